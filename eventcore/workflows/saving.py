"""Committing what runs decide, and counting it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from eventcore.kernel.errors import StoreError
from eventcore.kernel.ports import Clock, Metrics
from eventcore.kernel.records import Batch, Guard, JournalEntry, Run
from eventcore.workflows.decision import Decision
from eventcore.workflows.scribe import Active
from eventcore.workflows.snapshots import EVERY, spacing

log = logging.getLogger("eventcore.workflows")

Commit = Callable[[Batch, Sequence[Guard]], Any]

_STORE_RETRY = (0.1, 0.5, 2.0, 5.0, 15.0)
#: From so many journal entries on, a run is said to be long.
LONG_JOURNAL = 10_000


class Saver:
    """Commits through bad minutes of the store; one a runner.

    Attributes:
        every: how many journal entries lie between snapshots of a run; see `snapshots.EVERY`.
    """

    every = EVERY

    def __init__(self, commit: Commit, clock: Clock, metrics: Metrics) -> None:
        self._commit, self._clock, self._metrics = commit, clock, metrics

    async def save(self, batch: Batch, guards: list[Guard]) -> None:
        """Commit; while the store cannot write, try again, so that no run is stranded by a bad minute.

        Raises:
            Conflict: a guard does not hold.
        """
        delays = iter(_STORE_RETRY)
        while True:
            try:
                await self._commit(batch, guards)
            except StoreError as error:
                delay = next(delays, _STORE_RETRY[-1])
                log.error("the store cannot commit (%s); trying again in %g s", error, delay)
                await self._clock.sleep(delay)
            else:
                return

    def count(self, active: Active, decision: Decision, batch: Batch) -> None:
        """Feed the metrics of what is committed; warn of a journal that grows long, and see to its snapshots."""
        run = active.run
        for entry in decision.entries:
            if entry.type == "step_completed":
                self._metrics.count("eventcore_steps_total", slug=run.slug, outcome=entry.data["status"])
        count = decision.state.count
        if count >= self.every:
            self._grown_long(active, batch)
        if count >= LONG_JOURNAL > count - len(decision.entries):
            log.warning("run %s of %s has %d journal entries; split long work into child runs", run.id, run.slug, count)
        if decision.end is not None:
            self.count_end(run, decision)

    def _grown_long(self, active: Active, batch: Batch) -> None:
        """Note what the next commit needs to keep a snapshot of what this one has led to."""
        if batch.touched.get("snapshots"):
            kept = batch.snapshots[-1]
            active.kept, active.due = True, kept.count + spacing(len(kept.raw), self.every)
        run = active.run.id  # what a step staged may have begun other runs in the same commit
        mine = (one for one in reversed(batch.log) if isinstance(one, JournalEntry) and one.event.run == run)
        if last := next(mine, None):
            active.position = last.event.position

    def count_end(self, run: Run, decision: Decision) -> None:
        """The end of a run."""
        assert decision.end is not None
        self._metrics.count("eventcore_runs_total", slug=run.slug, status=decision.end.status)
        self._metrics.observe("eventcore_run_seconds", max(0.0, run.updated - run.created), slug=run.slug)
