"""Whether a batch may be stored: its guards, and what a batch itself requires of the rows that are there.

One function for every backend, so that they cannot disagree. Everything that can refuse a batch is asked here, before
anything of it is written; that is why no backend needs savepoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventcore.kernel.errors import Conflict
from eventcore.kernel.records import (
    Batch,
    CursorAt,
    CursorHeld,
    Guard,
    KeyAbsent,
    LiveRunsBelow,
    RunAt,
    ScheduleAt,
    StillListening,
)


class View(Protocol):
    """The rows as the batch would find them: those committed, and those of earlier batches of its group."""

    def run_head(self, run: str) -> tuple[int, int] | None:
        """Version and fence of a run, or None if there is no such run."""
        ...

    def key_expiry(self, key: tuple[str, str, str]) -> float | None:
        """When the key (tenant, scope, key) expires, or None if it is not there."""
        ...

    def cursor_position(self, tenant: str, name: str) -> int:
        """Where a cursor stands, 0 if there is none."""
        ...

    def cursor_fence(self, tenant: str, name: str) -> int | None:
        """The fence of the claim on a cursor, or None if nobody holds it."""
        ...

    def schedule_due(self, name: str) -> float | None:
        """When a schedule is due, or None if there is none."""
        ...

    def listens(self, name: str) -> bool:
        """Whether the row of a wait is there."""
        ...

    def live_runs(self, tenant: str, slug: str, limit_key: str | None) -> int:
        """How many runs of the slug (with that limit key, where one is given) are running or waiting."""
        ...


def admit(batch: Batch, guards: Sequence[Guard], view: View) -> None:
    """Return if the batch may be stored.

    Raises:
        Conflict: a guard does not hold; or the batch adds a run that is there, moves one that is not, or adds a key
            that is there without a `KeyAbsent` guard that found it expired.
    """
    for guard in guards:
        if (why := _broken(guard, view)) is not None:
            raise Conflict(why, guard=guard)
    touched = batch.touched
    if "runs" in touched or "moves" in touched:
        _admit_runs(batch, view)
    if "keys" in touched:
        _admit_keys(batch, guards, view)


def _broken(guard: Guard, view: View) -> str | None:
    """Why the guard does not hold, or None."""
    match guard:
        case RunAt():
            return _run_moved(guard, view.run_head(guard.run))
        case KeyAbsent():
            expires = view.key_expiry((guard.tenant, guard.scope, guard.key))
            taken = expires is not None and expires > guard.now
            return f"the key {guard.key!r} of {guard.scope!r} was used before" if taken else None
        case CursorAt():
            found = view.cursor_position(guard.tenant, guard.name)
            moved = found != guard.position
            return f"the cursor {guard.name!r} is at {found}, not at {guard.position}" if moved else None
        case CursorHeld():
            held = view.cursor_fence(guard.tenant, guard.name) == guard.fence
            return None if held else f"the subscription {guard.name!r} was claimed by another engine, or given up"
        case ScheduleAt():
            same = view.schedule_due(guard.id) == guard.due
            return None if same else f"the plan {guard.id!r} was changed, done or given up"
        case StillListening():
            return None if view.listens(guard.id) else f"{guard.id!r} does not wait any more"
        case LiveRunsBelow():
            found = view.live_runs(guard.tenant, guard.slug, guard.limit_key)
            full = found >= guard.limit
            return f"{found} runs of {guard.slug!r} are live; the limit is {guard.limit}" if full else None


def _run_moved(guard: RunAt, head: tuple[int, int] | None) -> str | None:
    if head is None:
        return f"there is no run {guard.run!r}"
    version, fence = head
    if version != guard.version:
        return f"run {guard.run!r} is at version {version}, not at {guard.version}"
    if guard.fence is not None and fence != guard.fence:
        return f"run {guard.run!r} was claimed by another engine (fence {fence}, not {guard.fence})"
    return None


def _admit_runs(batch: Batch, view: View) -> None:
    added = set()
    for run in batch.runs:
        if run.id in added or view.run_head(run.id) is not None:
            raise Conflict(f"the run {run.id!r} is there already")
        added.add(run.id)
    for move in batch.moves:
        if move.id not in added and view.run_head(move.id) is None:
            raise Conflict(f"there is no run {move.id!r} to change")


def _admit_keys(batch: Batch, guards: Sequence[Guard], view: View) -> None:
    # A guard that held for a key that is there has found it expired, so it may be written anew.
    free = {(g.tenant, g.scope, g.key) for g in guards if isinstance(g, KeyAbsent)}
    added = set()
    for key in batch.keys:
        name = (key.tenant, key.scope, key.key)
        if name in added or (name not in free and view.key_expiry(name) is not None):
            raise Conflict(f"the key {key.key!r} of {key.scope!r} is there already")
        added.add(name)
