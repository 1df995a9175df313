"""Reading a run back from the store, as it was after its last commit."""

from __future__ import annotations

import logging

from eventcore.kernel.ports import Store
from eventcore.kernel.records import LIVE, JournalEntry, Run, Snapshot
from eventcore.workflows.plan import Plan
from eventcore.workflows.scribe import Active, entries_of, initial_state
from eventcore.workflows.snapshots import EVERY, UnfitSnapshot, restore, spacing
from eventcore.workflows.state import apply

log = logging.getLogger("eventcore.workflows")


async def load(store: Store, run: Run, plan: Plan, every: int = EVERY) -> Active:
    """The run: from its newest snapshot and the entries after it, or from its whole journal.

    Args:
        every: see `snapshots.EVERY`.
    """
    kept, journal = await store.journal_tail(run.id)
    active = Active(run, plan, initial_state(run))
    if kept is not None and not _restored(active, kept, every):
        journal = await store.journal(run.id)
    _follow(active, journal)
    active.state.ended = run.status not in LIVE  # an end is told by the run's row; it is no entry of the journal
    if active.state.count >= every and journal:
        active.position = journal[-1].event.position
    return active


def _restored(active: Active, kept: Snapshot, every: int) -> bool:
    active.kept = True
    try:
        active.started = restore(kept, active.state)
    except UnfitSnapshot as unfit:
        log.warning("the snapshot of run %s %s; reading its whole journal instead", active.run.id, unfit)
        return False
    active.position, active.due = kept.position, kept.count + spacing(len(kept.raw), every)
    return True


def _follow(active: Active, journal: list[JournalEntry]) -> None:
    for entry, stored in zip(entries_of(journal), journal, strict=True):
        apply(active.state, entry)
        if entry.type == "step_started":
            active.started[entry.path] = stored.event.id
