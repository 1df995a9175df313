"""The store in memory: everything a store does, but nothing outlives the object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from copy import copy
from itertools import islice

import anyio.lowlevel

from eventcore.kernel.errors import StoreClosed, StoreError
from eventcore.kernel.event import Event, after
from eventcore.kernel.faults import NoFaults
from eventcore.kernel.ports import CommitListener, Faults, Store
from eventcore.kernel.records import (
    Audit,
    Batch,
    Cursor,
    DeadLetter,
    Definition,
    Delivery,
    EventQuery,
    Guard,
    JournalEntry,
    Key,
    Listening,
    Memory,
    Package,
    PluginHook,
    PluginSetting,
    PluginState,
    Run,
    RunQuery,
    Schedule,
    Snapshot,
    Timer,
)
from eventcore.kernel.upkeep import MAX_COUNTS, CountBy, EventCount, Prune, Pruned, PrunedRuns, PruneRuns, ordered
from eventcore.kernel.vectors import likest
from eventcore.storage.admission import admit
from eventcore.storage.matching import holds_words, matcher, page_size, span_of, status_of, words_of
from eventcore.storage.tables import Tables
from eventcore.storage.watchers import Watchers

#: About what an event takes besides its payload, in bytes.
_ROW_BYTES = 1000


class MemoryStore(Store):
    """A store without a file, on asyncio and trio. Engines of one event loop may share it.

    What it holds stays while the object lives: it can be started again after it was closed.

    Args:
        faults: the fault points of tests.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self._faults = faults or NoFaults()
        self._tables = Tables()
        self._watchers = Watchers()
        self._users = 0

    async def start(self, stack: AsyncExitStack) -> None:
        self._users += 1
        stack.callback(self._leave)

    def _leave(self) -> None:
        self._users -= 1

    async def _open(self) -> Tables:
        """The rows, after a checkpoint: on trio and asyncio alike every call lets others run."""
        await anyio.lowlevel.checkpoint()
        if not self._users:
            raise StoreClosed("the store is not open; start it, and use it before its exit stack closes")
        return self._tables

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        tables = await self._open()
        # From here on nothing waits, so commits are serialized and cannot be cancelled half-way.
        admit(batch, guards, tables)
        self._reach("store.before_commit")
        first = tables.apply(batch)
        self._reach("store.after_commit")
        if batch.log:
            for position, entry in enumerate(batch.log, first):
                after(entry.event if isinstance(entry, JournalEntry) else entry, position)
            self._watchers.tell(batch.log)
        return first

    def _reach(self, point: str) -> None:
        try:
            self._faults.reach(point)
        except Exception as error:
            raise StoreError(f"the commit failed: {error}") from error

    def watch(self, listener: CommitListener) -> Callable[[], None]:
        return self._watchers.add(listener)

    async def last_position(self) -> int:
        return len((await self._open()).log)

    async def event(self, event_id: str, tenant: str | None = None, source: str | None = None) -> Event | None:
        tables = await self._open()
        found = (tables.event_at(index) for index in tables.by_id.get(event_id, ()))
        return next((e for e in found if tenant in (None, e.tenant) and source in (None, e.source)), None)

    async def events(self, query: EventQuery) -> list[Event]:
        tables = await self._open()
        matches = matcher(query)
        span = span_of(query, len(tables.log))
        found = (i for i, e in tables.shown(reversed(span) if query.newest_first else span) if matches(e))
        return [tables.event_at(index) for index in islice(found, page_size(query.limit))]

    async def counts(self, query: EventQuery, by: CountBy, every: float | None = None) -> list[EventCount]:
        tables = await self._open()
        matches = matcher(query)
        counts: Counter[tuple[str | None, float | None]] = Counter()
        for _, event in tables.shown(span_of(query, len(tables.log))):
            if matches(event):
                value = status_of(event.raw) if by == "status" else getattr(event, by)
                counts[value, None if every is None else int(event.at / every) * every] += 1
        return ordered(counts)[:MAX_COUNTS]

    async def prune(self, request: Prune, *, dry_run: bool = False) -> Pruned:
        tables = await self._open()
        found = [(i, isinstance(tables.log[i], JournalEntry)) for i in tables.prunable(request)]
        if not dry_run:
            found = found[: request.limit]
            for index, _ in found:
                tables.remove(index)
        keys = [] if dry_run else [name for name, key in tables.keys.items() if key.expires <= request.now]
        for name in keys:
            del tables.keys[name]
        steps = sum(step for _, step in found)
        return Pruned(len(found) - steps, steps, len(keys))

    async def prune_runs(self, request: PruneRuns, *, dry_run: bool = False) -> PrunedRuns:
        tables = await self._open()
        found = tables.old_runs(request)
        return PrunedRuns(len(found)) if dry_run else tables.forget_runs(found, request)

    async def size(self) -> int:
        tables = await self._open()
        rows = (entry.event if isinstance(entry, JournalEntry) else entry for entry in tables.log if entry is not None)
        return tables.blobs.size + sum(len(event.raw) + _ROW_BYTES for event in rows)

    async def blob(self, tenant: str, digest: str) -> bytes | None:
        return (await self._open()).blobs.get(tenant, digest)

    async def journal(self, run: str) -> list[JournalEntry]:
        tables = await self._open()
        rows = []
        for index in tables.by_run.get(run, ()):
            entry = tables.log[index]
            assert isinstance(entry, JournalEntry)
            rows.append(JournalEntry(tables.event_at(index), entry.attempt))
        return rows

    async def journal_tail(self, run: str) -> tuple[Snapshot | None, list[JournalEntry]]:
        rows = await self.journal(run)
        kept = self._tables.snapshots.get(run)
        return kept, [row for row in rows if kept is None or row.event.position > kept.position]

    async def run(self, run_id: str) -> Run | None:
        row = (await self._open()).runs.get(run_id)
        return None if row is None else copy(row)

    async def runs(self, query: RunQuery) -> list[Run]:
        rows = (
            run
            for _, run in sorted((await self._open()).runs.items(), reverse=True)
            if (query.tenant is None or run.tenant == query.tenant)
            and (query.slug is None or run.slug == query.slug)
            and (not query.statuses or run.status in query.statuses)
            and (query.before is None or run.id < query.before)
        )
        return [copy(run) for run in islice(rows, page_size(query.limit))]

    async def definition(self, digest: str) -> Definition | None:
        return (await self._open()).definitions.get(digest)

    async def timers(self, due: float, limit: int = 100) -> list[Timer]:
        rows = [row for row in (await self._open()).timers.values() if row.due <= due]
        return sorted(rows, key=lambda row: (row.due, row.id))[: page_size(limit)]

    async def next_timer(self) -> float | None:
        return min((row.due for row in (await self._open()).timers.values()), default=None)

    async def listening(self, after: str = "", limit: int = 1000) -> list[Listening]:
        rows = sorted((await self._open()).listening.items())
        return [row for name, row in rows if name > after][: page_size(limit)]

    async def key(self, tenant: str, scope: str, key: str, now: float) -> Key | None:
        row = (await self._open()).keys.get((tenant, scope, key))
        return row if row is not None and row.expires > now else None

    async def plugin_states(self, tenant: str) -> list[PluginState]:
        rows = (await self._open()).plugin_states
        return [row for (owner, _), row in sorted(rows.items(), key=lambda item: item[0]) if owner == tenant]

    async def plugin_hooks(self, tenant: str) -> list[PluginHook]:
        rows = (await self._open()).plugin_hooks
        return [row for key, row in sorted(rows.items()) if row.tenant == tenant]

    async def packages(self, tenant: str) -> list[Package]:
        rows = (await self._open()).packages
        return [row for (owner, _), row in sorted(rows.items(), key=lambda item: item[0]) if owner == tenant]

    async def plugin_settings(self, tenant: str) -> list[PluginSetting]:
        rows = (await self._open()).plugin_settings
        return [row for (owner, *_), row in sorted(rows.items(), key=lambda item: item[0]) if owner == tenant]

    async def memories(
        self, tenant: str, text: str, limit: int = 5, *, owner: str | None = None, until: float | None = None
    ) -> list[Memory]:
        words = words_of(text)
        rows = [row for row in (await self._open()).memory.values() if row.tenant == tenant]
        rows.sort(key=lambda row: (row.at, row.id), reverse=True)
        found = (
            row
            for row in rows
            if owner in (None, row.owner)
            and (until is None or row.at < until)
            and holds_words(words, row.query, row.raw_result)
        )
        return list(islice(found, page_size(limit)))

    async def nearest(
        self, tenant: str, model: str, vector: bytes, limit: int, among: int
    ) -> list[tuple[Memory, float]]:
        memory = (await self._open()).memory
        rows = [row for row in memory.values() if row.tenant == tenant and row.model == model and row.vector]
        rows.sort(key=lambda row: (row.at, row.id), reverse=True)
        found = likest(vector, ((row.id, row.vector or b"") for row in rows[: page_size(among)]), page_size(limit))
        return [(memory[name], likeness) for name, likeness in found]

    async def unmeasured(self, model: str, limit: int = 100) -> list[Memory]:
        rows = [row for row in (await self._open()).memory.values() if row.model != model]
        return sorted(rows, key=lambda row: (row.model, row.at, row.id))[: page_size(limit)]

    async def oldest_memories(self, tenant: str, limit: int = 100) -> list[Memory]:
        rows = [row for row in (await self._open()).memory.values() if row.tenant == tenant]
        return sorted(rows, key=lambda row: (row.at, row.id))[: page_size(limit)]

    async def memory_owners(self, tenant: str) -> list[tuple[str, int, float]]:
        found: dict[str, list[float]] = {}
        for row in (await self._open()).memory.values():
            if row.tenant == tenant:
                found.setdefault(row.owner, []).append(row.at)
        return [(owner, len(times), max(times)) for owner, times in sorted(found.items())]

    async def schedules(self, due: float, limit: int = 100) -> list[Schedule]:
        rows = [row for row in (await self._open()).schedules.values() if row.due <= due and not row.owner]
        return sorted(rows, key=lambda row: (row.due, row.id))[: page_size(limit)]

    async def plans(
        self, due: float, limit: int = 100, *, tenant: str | None = None, owner: str | None = None
    ) -> list[Schedule]:
        rows = [
            row
            for row in (await self._open()).schedules.values()
            if row.owner and row.due <= due and tenant in (None, row.tenant) and owner in (None, row.owner)
        ]
        return sorted(rows, key=lambda row: (row.due, row.id))[: page_size(limit)]

    async def audit(self, tenant: str | None = None, limit: int = 100) -> list[Audit]:
        rows = (row for row in reversed((await self._open()).audit) if tenant is None or row.tenant == tenant)
        return list(islice(rows, page_size(limit)))

    async def cursor(self, tenant: str, name: str) -> Cursor | None:
        """How far a durable subscription has come, or None if it never began."""
        return (await self._open()).cursors.get((tenant, name))

    async def cursors(self, tenant: str) -> list[Cursor]:
        rows = (await self._open()).cursors
        return [row for _, row in sorted(rows.items()) if row.tenant == tenant]

    async def forget_cursor(self, tenant: str, name: str, now: float) -> bool:
        return (await self._open()).forget_cursor(tenant, name, now)

    async def deliveries(self, tenant: str, subscription: str, limit: int = 1000) -> list[Delivery]:
        """Deliveries of a durable subscription, by position."""
        rows = (await self._open()).deliveries
        wanted = (row for key, row in sorted(rows.items(), key=lambda i: i[0]) if key[:2] == (tenant, subscription))
        return list(islice(wanted, page_size(limit)))

    async def dead_letters(self, tenant: str, limit: int = 100) -> list[DeadLetter]:
        """Dead letters of a tenant, newest first."""
        rows = [row for row in (await self._open()).dead_letters.values() if row.tenant == tenant]
        return sorted(rows, key=lambda row: (row.at, row.id), reverse=True)[: page_size(limit)]

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        return (await self._open()).dead_letters.get(letter_id)

    async def claim(self, owner: str, now: float, lease: float, limit: int = 100, run: str | None = None) -> list[Run]:
        tables = await self._open()
        named = [one for one in [tables.runs.get(run or "")] if one]
        free = (
            one
            for one in (named if run is not None else [one for _, one in sorted(tables.live.items())])
            if one.owner is None
            or (one.owner != owner and one.lease_until <= now)
            or (run is not None and one.owner == owner)
            if run is not None or one.status != "paused"
        )
        claimed = list(islice(free, page_size(limit)))
        for one in claimed:
            one.owner, one.fence, one.lease_until = owner, one.fence + 1, now + lease
        return [copy(one) for one in claimed]

    async def renew(self, owner: str, now: float, lease: float) -> int:
        tables = await self._open()
        held = [run for run in tables.live.values() if run.owner == owner]
        for run in held:
            run.lease_until = now + lease
        for name, (holder, fence, _) in tables.claims.items():
            if holder == owner:
                tables.claims[name] = (owner, fence, now + lease)
        return len(held)

    async def release(self, owner: str) -> None:
        tables = await self._open()
        for run in tables.runs.values():
            if run.owner == owner:
                run.owner, run.lease_until = None, 0.0
        for name in [name for name, claim in tables.claims.items() if claim[0] == owner]:
            tables.give_up(name)

    async def claim_cursor(self, tenant: str, name: str, owner: str, now: float, lease: float) -> int | None:
        claims = (await self._open()).claims
        holder, fence, until = claims.get((tenant, name), (None, 0, 0.0))
        if holder not in (None, owner) and until > now:
            return None
        claims[tenant, name] = (owner, fence + 1, now + lease)
        return fence + 1

    async def release_cursor(self, tenant: str, name: str, fence: int) -> None:
        tables = await self._open()
        if tables.cursor_fence(tenant, name) == fence:
            tables.give_up((tenant, name))
