"""Names and patterns of events, intents and slugs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache

from eventcore.kernel.errors import InvalidName

MAX_NAME = 128

_EVENT_NAME = re.compile(r"(?:[a-z][a-z0-9_]*|[a-z][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)+)")
_PATTERN = re.compile(r"(?:\*\*|[a-z*][a-z0-9_*-]*(?:\.[a-z0-9*][a-z0-9_*-]*)*)")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*")

#: Events that only the host may emit. A plugin that tries is refused, and the try is recorded.
CORE_EVENTS = frozenset(
    {
        *("workflow_started", "workflow_completed", "workflow_failed", "workflow_cancelled"),
        *("step_started", "step_completed", "step_failed", "step_retrying", "step_waiting"),
        *("workflow_queued", "workflow_paused", "workflow_resumed"),
        *("workflow_cancelling", "workflow_undoing", "workflow_retried"),
        *("workflow_signalled", "approval_requested", "approval_decided", "compensation_failed"),
        *("plugin_installed", "plugin_uninstalled", "plugin_loaded", "plugin_unloaded", "plugin_enabled"),
        *("plugin_disabled", "plugin_degraded", "plugin_updated", "plugin_reloaded", "plugin_failed"),
        *("plugin_permissions_changed", "chat_sent", "memory_purged", "plugin_fallback"),
        *("plugin_error", "plugin_called", "trigger_failed", "permission_denied", "hook_completed"),
        *("bus_overflow", "bus_dead_letter", "bus_loop_detected", "system_started", "system_stopped"),
    }
)

#: Spelling with a dot, accepted wherever a type or pattern comes in: `workflow.started`.
ALIASES = {name.replace("_", ".", 1): name for name in CORE_EVENTS}


def event_type(name: str) -> str:
    """The stored form of an event type; `workflow.started` becomes `workflow_started`.

    Raises:
        InvalidName: it breaks the grammar `^([a-z][a-z0-9_]*|[a-z][a-z0-9_-]*(\\.[a-z0-9][a-z0-9_-]*)+)$` or is longer
            than 128 characters.
    """
    name = ALIASES.get(name, name) if type(name) is str else name
    if type(name) is not str or len(name) > MAX_NAME or not _EVENT_NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} is not an event type",
            hint=f"snake_case like order_created, or my-plugin.order_created; at most {MAX_NAME} characters",
        )
    return name


def is_event_type(name: str) -> bool:
    """Whether `name` follows the grammar of event types."""
    return len(name) <= MAX_NAME and _EVENT_NAME.fullmatch(name) is not None


def is_hook_event(name: str) -> bool:
    """Only hook calls create `on_*` events."""
    return name.startswith("on_")


@lru_cache(maxsize=4096)
def pattern(text: str) -> re.Pattern[str]:
    """The compiled form of an event pattern.

    `*` matches within a segment (`workflow_*`, `my-plugin.*`); `**` matches every event but those of the bus itself
    (`bus_*`), so that a subscriber to everything cannot feed on its own overflow notices.

    Raises:
        InvalidName: it is not a pattern.
    """
    text = ALIASES.get(text, text) if type(text) is str else text
    if type(text) is not str or len(text) > MAX_NAME or not _PATTERN.fullmatch(text):
        raise InvalidName(f"{text!r} is not an event pattern", hint="a type, workflow_*, my-plugin.* or **")
    if text == "**":
        return re.compile(r"(?!bus_).*")
    return re.compile(r"\.".join(map(_segment, text.split("."))))


def _segment(text: str) -> str:
    """One segment of a pattern.

    What lies between two stars is looked for once, at its first place, which is as good as any later one: a stranger's
    `*a*a*a*a*b` would otherwise try all places of each `a` with all of the others.
    """
    first, *others = map(re.escape, text.split("*"))
    if not others:
        return first
    between = "".join(f"(?>[^.]*?{one})" for one in others[:-1] if one)
    return f"{first}{between}[^.]*{others[-1]}"


def canonical_pattern(text: str) -> str:
    """The stored form of a pattern, with aliases resolved.

    Raises:
        InvalidName: it is not a pattern.
    """
    pattern(text)
    return ALIASES.get(text, text)


def is_literal(text: str) -> bool:
    """Whether a pattern names one type only."""
    return "*" not in text


def slug(name: str) -> str:
    """`MyAwesomePlugin`, `My awesome plugin` and `my_awesome_plugin` all become `my-awesome-plugin`.

    Raises:
        InvalidName: nothing usable is left, or it is longer than 128 characters.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name.strip())
    result = re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-")
    if not result or len(result) > MAX_NAME:
        raise InvalidName(f"{name!r} gives no usable slug", hint="use letters, digits and dashes")
    return result


def workflow_slug(name: str) -> str:
    """A workflow's slug, as written: lower case letters, digits, `_` and `-`.

    Raises:
        InvalidName: it is none.
    """
    if len(name) > MAX_NAME or not _SLUG.fullmatch(name):
        raise InvalidName(f"{name!r} is not a workflow slug", hint="lower case letters, digits, _ and -")
    return name


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` most likely meant, or None."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the empty string."""
    best = nearest(word, choices)
    return f"; did you mean {best!r}?" if best else ""
