"""What keeps the history in bounds, and what brings the past of another home into it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from eventcore.bus.foreign import imported
from eventcore.kernel.cloudevents import from_cloudevent
from eventcore.kernel.errors import EventCoreError, InvalidInput
from eventcore.kernel.event import IMPORTED, Event
from eventcore.kernel.names import canonical_pattern
from eventcore.kernel.ports import Clock, Metrics, Store
from eventcore.kernel.records import Batch
from eventcore.kernel.upkeep import KEEP_UNUSED, MAX_ENTRIES, Prune, Pruned, PrunedRuns, PruneRuns

log = logging.getLogger("eventcore.history")

#: Seconds from the start to the first look, and between two looks.
FIRST, EVERY = 60.0, 3600.0
#: So many events are removed in one transaction: others' commits wait for no longer.
_CHUNK = 1000
_PAUSE = 0.05
#: The first ones to go where the store is too large: they show how much room one takes.
_FEW = 50


@dataclass(slots=True)
class Imported:
    """What became of an import: how many events were stored, were there already, and were refused, and why."""

    imported: int = 0
    duplicates: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)


class Archive:
    """Retention and import of one engine's history.

    Args:
        keep: events older than this many seconds are removed; 0 keeps them for ever.
        max_size: the oldest events are removed while the store takes more bytes; 0 for no limit.
        keep_types: patterns of types that are never removed by themselves.
        keep_runs: finished runs that ended more than so many seconds ago are removed with their journals; 0: never.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        keep: float = 0.0,
        max_size: int = 0,
        keep_types: Iterable[str] = (),
        keep_runs: float = 0.0,
    ) -> None:
        self._store, self._clock, self._metrics = store, clock, metrics
        self._keep, self._max_size, self._keep_runs = keep, max_size, keep_runs
        self._keep_types = tuple(canonical_pattern(text) for text in keep_types)

    async def run(self) -> None:
        """Prune once an hour, for ever. A store that cannot write now may be able to later."""
        await self._clock.sleep(FIRST)
        while True:
            try:
                await self.tidy()
                if self._keep_runs:
                    await self.prune_runs(older_than=self._keep_runs)
            except EventCoreError as error:
                log.error("the history could not be pruned: %s", error)
            await self._clock.sleep(EVERY)

    async def tidy(self) -> Pruned:
        """Do what the settings say: by age, then by size."""
        now = self._clock.now()
        before = now - self._keep if self._keep else float("-inf")
        total = await self._prune(Prune(now=now, before=before, keep=self._keep_types, limit=_CHUNK))
        return total + await self._shrink(now) if self._max_size else total

    async def _shrink(self, now: float) -> Pruned:
        """Remove the oldest until the store is small enough, and not many more."""
        total, most = Pruned(), _FEW
        size = await self._store.size()
        while size > self._max_size:
            removed = await self._store.prune(Prune(now=now, keep=self._keep_types, limit=most))
            self._count(removed)
            total += removed
            number = removed.events + removed.steps
            if not number:
                log.warning("the history takes more than max_size, but nothing more may be removed")
                break
            await self._clock.sleep(_PAUSE)
            before, size = size, await self._store.size()
            # How many more, if each takes what those took that just went.
            each = max(1.0, (before - size) / number)
            most = max(1, min(_CHUNK, int((size - self._max_size) / each) + 1))
        return total

    async def prune(self, *, older_than: float, tenant: str, pattern: str | None, dry_run: bool = False) -> Pruned:
        """Remove a tenant's events that are older than `older_than` seconds, whatever the settings keep.

        Raises:
            InvalidInput: `pattern` is none, or the age is below 0.
        """
        if older_than < 0:
            raise InvalidInput("an age is not below 0")
        now = self._clock.now()
        patterns = (canonical_pattern(pattern),) if pattern else ()
        request = Prune(now=now, before=now - older_than, tenant=tenant, patterns=patterns, limit=_CHUNK)
        return await self._store.prune(request, dry_run=True) if dry_run else await self._prune(request)

    async def prune_runs(self, *, older_than: float, tenant: str | None = None, dry_run: bool = False) -> PrunedRuns:
        """Remove runs that ended more than `older_than` seconds ago, with their journals.

        Args:
            tenant: only this tenant's; None: everyone's.

        Raises:
            InvalidInput: the age is below 0.
        """
        if older_than < 0:
            raise InvalidInput("an age is not below 0")
        now = self._clock.now()
        request = PruneRuns(now - older_than, unused_since=now - KEEP_UNUSED, tenant=tenant)
        if dry_run:
            return await self._store.prune_runs(request, dry_run=True)
        total = PrunedRuns()
        while True:
            removed = await self._store.prune_runs(request)
            total += removed
            if removed.runs:
                self._metrics.count("eventcore_pruned_total", removed.runs, kind="run")
            if removed.runs < request.limit and removed.entries < MAX_ENTRIES:
                return total
            await self._clock.sleep(_PAUSE)

    async def _prune(self, request: Prune) -> Pruned:
        total = Pruned()
        while True:
            removed = await self._store.prune(request)
            self._count(removed)
            total += removed
            if removed.events + removed.steps < request.limit:
                return total
            await self._clock.sleep(_PAUSE)

    def _count(self, removed: Pruned) -> None:
        if removed.events or removed.steps:
            self._metrics.count("eventcore_pruned_total", removed.events, kind="event")
            self._metrics.count("eventcore_pruned_total", removed.steps, kind="step")

    async def add(self, bodies: Iterable[tuple[int, Any]], tenant: str) -> Imported:
        """Store CloudEvents as history: nothing is delivered, nothing is triggered, and each is marked `imported`.

        Ids are kept. An event whose id and source are there already is skipped and counted; one that is no CloudEvent
        is reported with its number.

        Args:
            bodies: (number, CloudEvent) pairs; one commit.
        """
        result, fresh = Imported(), dict[tuple[str, str], Event]()
        for number, body in bodies:
            try:
                event = imported(from_cloudevent(body, host=True), tenant, self._clock.now(), {IMPORTED: True})
            except EventCoreError as error:
                result.errors.append({"line": number, **error.as_dict()})
                continue
            name = (event.source, event.id)
            if name in fresh or await self._store.event(event.id, tenant, event.source) is not None:
                result.duplicates += 1
            else:
                fresh[name] = event
        if fresh:
            # Past the bus: contributors would start runs of what is over.
            await self._store.commit(Batch(log=list(fresh.values())))
        result.imported = len(fresh)
        return result
