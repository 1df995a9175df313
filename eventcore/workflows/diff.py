"""How a changed definition differs from the one that a run is pinned to, and what that means for the run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from eventcore.workflows.definition import Step, Workflow, needs_of

_INDEX = re.compile(r"\[\d+\]")
_WORST = ("failed", "running", "waiting", "retrying", "cancelled", "completed", "skipped")


@dataclass(frozen=True, slots=True)
class Change:
    """One step (or, with an empty path, the definition itself) that is not the same.

    Attributes:
        keys: what changed in it, `needs` as it comes out and not as it is written.
        status: how far the run has come with it; empty if it has not begun.
        means: what a fork onto the new definition would do, for people.
    """

    path: str
    change: Literal["added", "removed", "changed"]
    keys: tuple[str, ...]
    status: str
    means: str

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "keys": list(self.keys)}


def statuses_of(attempts: list[dict[str, Any]]) -> dict[str, str]:
    """How far each step has come, by path without iterations, from rows with `step` and `status` in journal order."""
    exact = {row["step"]: str(row["status"]) for row in attempts}
    found: dict[str, str] = {}
    for path, status in exact.items():
        plain = _INDEX.sub("", path)
        if plain in exact:
            found[plain] = exact[plain]
            continue
        known = found.get(plain, status)
        found[plain] = min(known, status, key=lambda one: _WORST.index(one) if one in _WORST else 0)
    return found


def compare(old: Workflow, new: Workflow, statuses: Mapping[str, str]) -> list[Change]:
    """What is different, in the order of the new definition, then what was removed."""
    before, after = _flat(old.steps), _flat(new.steps)
    changes: list[Change] = []
    if keys := _differing(_head(old), _head(new)):
        changes.append(Change("", "changed", keys, "", "counts for new runs; a run keeps its inputs"))
    for path, step in after.items():
        status = statuses.get(path, "")
        if path not in before:
            changes.append(Change(path, "added", (), status, "would run, after what it needs"))
        elif keys := _differing(before[path], step):
            changes.append(Change(path, "changed", keys, status, _meaning(status)))
    for path in before:
        if path not in after:
            status = statuses.get(path, "")
            means = "ran already; its output would be gone" if status == "completed" else "would not run"
            changes.append(Change(path, "removed", (), status, means))
    return changes


def _meaning(status: str) -> str:
    if not status:
        return "has not begun; would run in its new form"
    if status in ("completed", "skipped"):
        return "is over; fork from it, or from a step above it, to run the new form"
    return f"is {status}; would begin again in its new form"


def _head(workflow: Workflow) -> dict[str, Any]:
    body = workflow.as_dict()
    return {key: body[key] for key in body if key not in ("steps", "slug")}


def _flat(steps: tuple[Step, ...], prefix: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    needs = needs_of(steps)
    for step in steps:
        body = step.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        body.pop("steps", None)
        found[prefix + step.id] = {**body, "needs": list(needs[step.id])}
        found |= _flat(step.steps or (), f"{prefix}{step.id}/")
    return found


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(key for key in {*one, *other} if one.get(key) != other.get(key)))
