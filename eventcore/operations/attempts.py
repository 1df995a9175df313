"""A run's journal as rows for people: each attempt of each step, and what was done to the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventcore.kernel.records import JournalEntry
from eventcore.operations.shapes import instant
from eventcore.workflows.plan import SIGNALLED

#: What a step does, as its entries name it.
_KINDS = ("plugin", "workflow", "hook", "emit", "sleep", "wait_for", "approve")
_WAITING = {"sleep": "time", "wait_for": "event", "approve": "approval"}


def attempts(journal: Sequence[JournalEntry]) -> list[dict[str, Any]]:
    """One row an attempt: `step`, `attempt`, `kind`, `status`, and as far as known what it does, input, output, error,
    `seconds`, what it `waits` for and `until` when, the `roles` that may decide or the values that have to `match`, and
    the `run` of a child."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    begun: dict[tuple[str, int], float] = {}
    for entry in journal:
        if not entry.step or not entry.event.type.startswith("step_"):
            continue
        key, at = (entry.step, entry.attempt), entry.event.at
        row = rows.setdefault(key, {"step": entry.step, "attempt": entry.attempt, "status": "running"})
        if entry.event.type == "step_started":
            begun[key] = at
            row |= {"event": entry.event.id, "started": instant(at)}
        _tell(row, entry.event.type, entry.event.data)
        if entry.event.type == "step_completed":
            row["ended"] = instant(at)
            if key in begun:
                row["seconds"] = round(at - begun[key], 6)
    return list(rows.values())


def deeds(journal: Sequence[JournalEntry]) -> list[dict[str, Any]]:
    """What happened to the run as a whole: paused, resumed, cancelled, retried, undone."""
    return [
        {"type": entry.event.type, "time": instant(entry.event.at), "by": entry.event.data.get("by")}
        | ({"reason": entry.event.data["reason"]} if entry.event.data.get("reason") else {})
        for entry in journal
        if not entry.step
    ]


def _tell(row: dict[str, Any], type: str, data: dict[str, Any]) -> None:
    match type:
        case "step_started":
            _started(row, data)
        case "step_waiting":
            row |= {"status": "waiting", "waits": data["waits"]}
            row |= {"until": instant(data["due"])} if data.get("due") else {}
            row |= {"run": data["ref"]} if data["waits"] == "child" else {}
        case "step_retrying":
            row |= {"status": "retrying", "error": data["error"], "next": instant(data["due"])}
        case "step_failed":
            row |= {"error": data["error"]}
        case "step_completed":
            row |= {"status": data["status"], "output": data.get("output")}
            row.pop("waits", None)


def _started(row: dict[str, Any], data: dict[str, Any]) -> None:
    if "items" in data or "group" in data:
        row |= {"kind": "foreach", "items": len(data["items"])} if "items" in data else {"kind": "group"}
        return
    kind = next((kind for kind in _KINDS if kind in data), "")
    row |= {"kind": kind, kind: data[kind]} if kind else {}
    row |= {"input": data.get("input")}
    row |= {"interrupted": True} if data.get("interrupted") else {}
    if kind in _WAITING:
        row |= {"status": "waiting", "waits": _WAITING[kind]} | _wanted(kind, data.get("listen") or {})
        row |= {"until": instant(data["due"])} if data.get("due") else {}


def _wanted(kind: str, listen: dict[str, Any]) -> dict[str, Any]:
    """Who or what ends a wait."""
    if kind == "approve":
        return {"roles": listen.get("about", {}).get("roles", [])}
    told = listen.get("match", {})
    return {"match": told} if told and listen.get("event") != SIGNALLED else {}
