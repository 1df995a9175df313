"""What a long run has come to, kept as a row, so that going on with it does not mean to read its whole journal.

The journal stays the truth: a snapshot that is damaged, or that other code wrote, is left aside and the journal folded
from its start. So a mistake in `apply` that was corrected is corrected for runs that have snapshots too.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from operator import attrgetter
from pathlib import Path

import orjson

from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.quick import maker
from eventcore.kernel.records import Run, Snapshot
from eventcore.workflows.state import UNDO, State, StepState

#: From how many journal entries on, and then how many further on, a snapshot is kept. To read and fold so many takes
#: about 30 ms, which is what going on with a long run costs at most besides the snapshot; and a run of a few dozen
#: entries, as most are, never pays for one.
EVERY = 1_000
#: The layout of `raw`.
FORMAT = 1
#: The most bytes of a snapshot: as much as four foreach gather at most. A state beyond that is not kept.
MAX_SNAPSHOT = 64 * MAX_PAYLOAD
#: A large snapshot waits for more entries: it may write so many bytes an entry, twice what the entry itself takes.
_BYTES_AN_ENTRY = 2048

# What most steps have of the rest, in this order; a step that has something else is among `more`.
_REST = (
    "failures",
    "error",
    "due",
    "waits",
    "deadline",
    "ref",
    "listen",
    "items",
    "inside",
    "begun",
    "settled",
    "failed",
)
_rest = attrgetter(*_REST)
_PLAIN = (0, None, 0.0, "", 0.0, "", None, None, False, 0, 0, 0)
#: Of paths that expressions do not see by themselves: those in groups and foreach, and those that undo.
_INSIDE = re.compile(rf"[/\[]|{UNDO}$")
_COLUMNS = ("status", "attempt", "output", "order")
_step_state = maker(StepState)


class UnfitSnapshot(Exception):
    """Why a snapshot is not kept, or not used; the message begins with a verb."""


def spacing(size: int, every: int = EVERY) -> int:
    """How many entries lie between a snapshot of `size` bytes and the next."""
    return max(every, size // _BYTES_AN_ENTRY)


@cache
def reader() -> str:
    """Changes with the code that folds journals and reads snapshots."""
    here = Path(__file__)
    code = b"\0".join(path.read_bytes() for path in (here, here.with_name("state.py")))
    return hashlib.sha256(code).hexdigest()[:16]


def snapshot_of(run: Run, state: State, started: dict[str, str], position: int) -> Snapshot:
    """A run's state as a row.

    Args:
        state: after the entry at `position`; what it has of the run's head row (inputs, event) is left out.
        started: the event that began each step, by path.

    Raises:
        UnfitSnapshot: it would be too large, or nests too deep.
    """
    steps = list(state.steps.values())
    # A column each, not a row a step: reading rows makes a list each, and the garbage collector comes the sooner.
    held = {
        "paths": list(state.steps),
        "status": [step.status for step in steps],
        "attempt": [step.attempt for step in steps],
        "output": [step.output for step in steps],
        "order": [step.order for step in steps],
        "started": [started.get(path, "") for path in state.steps],
        "more": [(number, *more) for number, more in enumerate(map(_rest, steps)) if more != _PLAIN],
        "phase": state.phase,
        "outcome": state.outcome,
        "paused": state.paused,
        "epochs": state.epochs,
        "consumed": sorted(state.consumed),
    }
    try:
        raw = orjson.dumps(held)
    except orjson.JSONEncodeError as error:
        raise UnfitSnapshot(f"cannot be written: {error}") from None
    if len(raw) > MAX_SNAPSHOT:
        raise UnfitSnapshot(f"would take {len(raw):,} bytes; the limit is {MAX_SNAPSHOT:,}")
    return Snapshot(run.id, run.tenant, position, state.count, FORMAT, reader(), _digest(raw), raw)


def restore(kept: Snapshot, state: State) -> dict[str, str]:
    """Bring `state`, that of a run without a journal, to where a snapshot has it; return which event began each step.

    Raises:
        UnfitSnapshot: it is damaged, or other code wrote it. `state` is as it was.
    """
    if (kept.format, kept.reader) != (FORMAT, reader()):
        raise UnfitSnapshot(f"was written by another version of EventCore (format {kept.format})")
    if _digest(kept.raw) != kept.digest:
        raise UnfitSnapshot("is damaged: its digest does not fit")
    found = orjson.loads(kept.raw)  # not the strict parser: what the digest fits is what was written here
    paths, columns = found["paths"], zip(*(found[name] for name in _COLUMNS), strict=True)
    steps = {
        path: _step_state(status, attempt, 0, output, order=order)
        for path, (status, attempt, output, order) in zip(paths, columns, strict=True)
    }
    for number, *rest in found["more"]:
        path = paths[number]
        steps[path] = steps[path].but(**dict(zip(_REST, rest, strict=True)))
    state.steps = steps
    state.views = {path: steps[path].view() for path in paths if not _INSIDE.search(path)}
    state.phase, state.outcome, state.paused = found["phase"], found["outcome"], found["paused"]
    state.epochs, state.consumed, state.count = found["epochs"], frozenset(found["consumed"]), kept.count
    return {path: event for path, event in zip(paths, found["started"], strict=True) if event}


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
