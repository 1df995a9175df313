"""An event in a few words: what the timeline, the list and the tree print behind its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eventcore.cli.output import clean, compact, duration, plural

if TYPE_CHECKING:
    from eventcore.cli.session import Session

Event = Mapping[str, Any]

#: Event type -> its colour on a terminal.
_COLOURS = {
    **dict.fromkeys(("workflow_failed", "step_failed", "plugin_error", "plugin_failed", "trigger_failed"), "red"),
    **dict.fromkeys(("permission_denied", "bus_loop_detected", "bus_dead_letter", "bus_overflow"), "red"),
    **dict.fromkeys(("step_retrying", "plugin_degraded", "workflow_cancelled"), "yellow"),
    **dict.fromkeys(("workflow_started", "workflow_completed"), "green"),
    **dict.fromkeys(("on_message", "on_command", "on_file_upload", "chat_sent"), "cyan"),
}


def colour_of(event: Event) -> str | None:
    """The colour of an event's type, or None."""
    return _COLOURS.get(event["type"])


def walk(node: Event, depth: int = 0) -> Iterator[tuple[int, Event, Event]]:
    """(depth, event, its cause) for everything below an event in a tree, causes before effects."""
    for effect in node.get("effects", ()):
        yield depth, effect, node
        yield from walk(effect, depth + 1)


def seconds_between(cause: Event, event: Event) -> float | None:
    """How long a step took: its end is caused by its start. None for other pairs."""
    if cause["type"] != "step_started" or event["type"] not in ("step_completed", "step_failed"):
        return None
    return (datetime.fromisoformat(event["time"]) - datetime.fromisoformat(cause["time"])).total_seconds()


def about(event: Event, cause: Event | None = None) -> str:
    """What the event says, on one line, safe to print. `cause` adds how long a step took."""
    data = event.get("data")
    if not isinstance(data, dict):
        return compact(data)
    make = _ABOUT.get(event["type"]) or _by_family(event["type"])
    if make is None:
        return compact(data)
    words = make(data)
    took = duration(seconds_between(cause, event)) if cause is not None else ""
    return clean("  ".join(str(word) for word in (*words, took) if word not in (None, "")))


def _by_family(type: str) -> Any:
    if type.startswith("plugin_"):
        return lambda data: (data.get("plugin"), data.get("version"), data.get("reason"))
    if type.startswith("system_"):
        return lambda data: (data.get("home"),)
    return None


def _error(data: Mapping[str, Any]) -> str:
    error = data.get("error") or data.get("message") or ""
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def _step_started(data: Mapping[str, Any]) -> tuple[Any, ...]:
    attempt = data.get("attempt", 1)
    kinds = ("emit", "workflow", "hook", "approve")
    doing = data.get("plugin") or next((f"{kind} {data[kind]}" for kind in kinds if data.get(kind)), "")
    return data.get("step"), doing, f"attempt {attempt}" if attempt != 1 else ""


def _step_ended(data: Mapping[str, Any]) -> tuple[Any, ...]:
    status = data.get("status")
    return data.get("step"), status if status != "completed" else "", _error(data)


def _step_waiting(data: Mapping[str, Any]) -> tuple[Any, ...]:
    return data.get("step"), f"for {data.get('workflow') or 'an answer'}"


def _told(data: Mapping[str, Any]) -> tuple[Any, ...]:
    """What somebody did to a run."""
    by = f"by {data['by']}" if data.get("by") else ""
    return data.get("slug"), data.get("step"), by, data.get("reason"), _error(data)


def _asked(data: Mapping[str, Any]) -> tuple[Any, ...]:
    return data.get("step"), data.get("message"), f"asks {', '.join(data.get('roles') or ['operator'])}"


def _decided(data: Mapping[str, Any]) -> tuple[Any, ...]:
    return data.get("step"), "approved" if data.get("approved") else "denied", f"by {data.get('by')}", data.get("note")


def _completed(data: Mapping[str, Any]) -> tuple[Any, ...]:
    return data.get("slug"), data.get("status"), duration(data.get("seconds"))


def _hook_completed(data: Mapping[str, Any]) -> tuple[Any, ...]:
    if data.get("denied"):
        return data.get("hook"), f"denied by {data.get('by')}: {data.get('reason')}"
    replies = data.get("replies", 0)
    return data.get("hook"), plural(replies, "reply", "replies") if replies else ""


def _called(data: Mapping[str, Any]) -> tuple[Any, ...]:
    failed = data.get("status") not in ("ok", None)
    return data.get("intent"), data.get("status") if failed else "", duration(data.get("seconds"))


def _permissions(data: Mapping[str, Any]) -> tuple[Any, ...]:
    granted, revoked = (", ".join(data.get(key, ())) for key in ("granted", "revoked"))
    return data.get("plugin"), granted and f"granted {granted}", revoked and f"revoked {revoked}"


_ABOUT: dict[str, Any] = {
    "on_message": lambda data: (data.get("text"),),
    "on_command": lambda data: (data.get("text"),),
    "on_file_upload": lambda data: (data.get("name"),),
    "chat_sent": lambda data: (data.get("channel"), f"{data.get('plugin')}:", data.get("text")),
    "memory_purged": lambda data: (data.get("owner"), plural(data.get("forgotten", 0), "memory", "memories")),
    "plugin_permissions_changed": _permissions,
    "workflow_started": lambda data: (data.get("slug"),),
    "workflow_queued": lambda data: (data.get("slug"),),
    "workflow_completed": _completed,
    **dict.fromkeys(("workflow_paused", "workflow_resumed", "workflow_cancelling", "compensation_failed"), _told),
    "workflow_signalled": lambda data: (data.get("signal"), compact(data.get("data"))),
    "approval_requested": _asked,
    "approval_decided": _decided,
    "workflow_cancelled": lambda data: (data.get("slug"),),
    "workflow_failed": lambda data: (data.get("slug"), _error(data)),
    "step_started": _step_started,
    "step_waiting": _step_waiting,
    "step_completed": _step_ended,
    "step_failed": _step_ended,
    "step_retrying": _step_ended,
    "hook_completed": _hook_completed,
    "plugin_called": _called,
    "plugin_error": lambda data: (data.get("plugin"), data.get("intent") or data.get("hook"), _error(data)),
    "trigger_failed": lambda data: (data.get("slug"), _error(data)),
    "permission_denied": lambda data: (data.get("plugin"), _error(data)),
}


def id_of(session: Session, event: str) -> str:
    """The id of an event that was named by its id or position."""
    if event.isdecimal():
        # A position, most likely; a foreign id may look like one too, and then the position is not there.
        page = session.call("events.list", {"after": int(event) - 1, "limit": 1})
        if page and page[0]["position"] == int(event):
            return str(page[0]["id"])
    return event
