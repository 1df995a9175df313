"""The store in memory: everything a store does, but nothing outlives the object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import replace
from itertools import islice

import anyio.lowlevel

from eventcore.kernel.errors import StoreClosed, StoreError
from eventcore.kernel.event import Event, after
from eventcore.kernel.faults import NoFaults
from eventcore.kernel.ports import CommitListener, Faults, Store
from eventcore.kernel.records import (
    LIVE,
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
    LogEntry,
    Memory,
    PluginState,
    Run,
    RunMove,
    RunQuery,
    Schedule,
    Timer,
)
from eventcore.storage.admission import admit
from eventcore.storage.matching import holds_words, matcher, page_size, words_of
from eventcore.storage.watchers import Watchers


class _Tables:
    """The rows, and how a batch changes them. Implements `eventcore.storage.admission.View`."""

    def __init__(self) -> None:
        # Entry n of the log has position n + 1.
        self.log: list[LogEntry] = []
        self.by_id: dict[str, list[int]] = defaultdict(list)
        self.by_run: dict[str, list[int]] = defaultdict(list)
        self.runs: dict[str, Run] = {}
        # The runs with something left to do: few, while `runs` only grows.
        self.live: dict[str, Run] = {}
        self.definitions: dict[str, Definition] = {}
        self.timers: dict[str, Timer] = {}
        self.keys: dict[tuple[str, str, str], Key] = {}
        self.cursors: dict[tuple[str, str], Cursor] = {}
        self.deliveries: dict[tuple[str, str, int], Delivery] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self.plugin_states: dict[tuple[str, str], PluginState] = {}
        self.memory: dict[str, Memory] = {}
        self.schedules: dict[str, Schedule] = {}
        self.audit: list[Audit] = []

    def run_head(self, run: str) -> tuple[int, int] | None:
        row = self.runs.get(run)
        return None if row is None else (row.version, row.fence)

    def key_expiry(self, key: tuple[str, str, str]) -> float | None:
        row = self.keys.get(key)
        return None if row is None else row.expires

    def cursor_position(self, tenant: str, name: str) -> int:
        row = self.cursors.get((tenant, name))
        return 0 if row is None else row.position

    def live_runs(self, tenant: str, slug: str, limit_key: str | None) -> int:
        return sum(
            run.status in ("running", "waiting")
            and (run.tenant, run.slug) == (tenant, slug)
            and (limit_key is None or run.limit_key == limit_key)
            for run in self.live.values()
        )

    def apply(self, batch: Batch) -> int:
        """Store the batch; return what `commit` returns. Removals come before additions, as in every backend."""
        first = len(self.log) + 1 if batch.log else len(self.log)
        for entry in batch.log:
            self._append(entry)
        self._apply_runs(batch.runs, batch.moves)
        self._apply_removals(batch)
        self.definitions.update((row.hash, row) for row in batch.definitions)
        self.timers.update((row.id, row) for row in batch.timers)
        self.keys.update(((row.tenant, row.scope, row.key), row) for row in batch.keys)
        self.cursors.update(((row.tenant, row.name), row) for row in batch.cursors)
        self.deliveries.update(((row.tenant, row.subscription, row.position), row) for row in batch.deliveries)
        self.dead_letters.update((row.id, row) for row in batch.dead_letters)
        self.plugin_states.update(((row.tenant, row.plugin), row) for row in batch.plugin_states)
        self.memory.update((row.id, row) for row in batch.memory)
        self.schedules.update((row.id, row) for row in batch.schedules)
        self.audit.extend(batch.audit)
        return first

    def _append(self, entry: LogEntry) -> None:
        index = len(self.log)
        self.log.append(entry)
        if isinstance(entry, JournalEntry):
            self.by_run[entry.event.run or ""].append(index)
            entry = entry.event
        self.by_id[entry.id].append(index)

    def _apply_runs(self, runs: Iterable[Run], moves: Iterable[RunMove]) -> None:
        for run in runs:
            self._put_run(copy(run))
        for move in moves:
            run = self.runs[move.id]
            run.status, run.version, run.updated = move.status, move.version, move.updated
            run.raw_output, run.raw_error = move.raw_output, move.raw_error
            self._put_run(run)

    def _put_run(self, run: Run) -> None:
        self.runs[run.id] = run
        if run.status in LIVE:
            self.live[run.id] = run
        else:
            self.live.pop(run.id, None)

    def _apply_removals(self, batch: Batch) -> None:
        for timer in batch.timers_done:
            self.timers.pop(timer, None)
        for delivery in batch.deliveries_done:
            self.deliveries.pop(delivery, None)
        for letter in batch.dead_letters_done:
            self.dead_letters.pop(letter, None)
        for schedule in batch.schedules_done:
            self.schedules.pop(schedule, None)

    def event_at(self, index: int) -> Event:
        """The log entry as an event of its own: nobody can change what the store holds through it."""
        entry = self.log[index]
        event = entry.event if isinstance(entry, JournalEntry) else entry
        return replace(event, position=index + 1, _data=[])


class MemoryStore(Store):
    """A store without a file, on asyncio and trio. Engines of one event loop may share it.

    What it holds stays while the object lives: it can be started again after it was closed.

    Args:
        faults: the fault points of tests.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self._faults = faults or NoFaults()
        self._tables = _Tables()
        self._watchers = Watchers()
        self._users = 0

    async def start(self, stack: AsyncExitStack) -> None:
        self._users += 1
        stack.callback(self._leave)

    def _leave(self) -> None:
        self._users -= 1

    async def _open(self) -> _Tables:
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

    async def event(self, event_id: str, tenant: str | None = None) -> Event | None:
        tables = await self._open()
        found = (tables.event_at(index) for index in tables.by_id.get(event_id, ()))
        return next((event for event in found if tenant is None or event.tenant == tenant), None)

    async def events(self, query: EventQuery) -> list[Event]:
        tables = await self._open()
        matches = matcher(query)
        start = max(0, query.after or 0)
        stop = len(tables.log) if query.before is None else max(start, min(query.before - 1, len(tables.log)))
        indexes = range(stop - 1, start - 1, -1) if query.newest_first else range(start, stop)
        entries = ((index, tables.log[index]) for index in indexes)
        found = (i for i, entry in entries if matches(entry.event if isinstance(entry, JournalEntry) else entry))
        return [tables.event_at(index) for index in islice(found, page_size(query.limit))]

    async def journal(self, run: str) -> list[JournalEntry]:
        tables = await self._open()
        rows = []
        for index in tables.by_run.get(run, ()):
            entry = tables.log[index]
            assert isinstance(entry, JournalEntry)
            rows.append(JournalEntry(tables.event_at(index), entry.attempt))
        return rows

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

    async def key(self, tenant: str, scope: str, key: str, now: float) -> Key | None:
        row = (await self._open()).keys.get((tenant, scope, key))
        return row if row is not None and row.expires > now else None

    async def plugin_states(self, tenant: str) -> list[PluginState]:
        rows = (await self._open()).plugin_states
        return [row for (owner, _), row in sorted(rows.items(), key=lambda item: item[0]) if owner == tenant]

    async def memories(self, tenant: str, text: str, limit: int = 5) -> list[Memory]:
        words = words_of(text)
        rows = [row for row in (await self._open()).memory.values() if row.tenant == tenant]
        rows.sort(key=lambda row: (row.at, row.id), reverse=True)
        found = (row for row in rows if holds_words(words, row.query, row.raw_result))
        return list(islice(found, page_size(limit)))

    async def schedules(self, due: float, limit: int = 100) -> list[Schedule]:
        rows = [row for row in (await self._open()).schedules.values() if row.due <= due]
        return sorted(rows, key=lambda row: (row.due, row.id))[: page_size(limit)]

    async def audit(self, tenant: str | None = None, limit: int = 100) -> list[Audit]:
        rows = (row for row in reversed((await self._open()).audit) if tenant is None or row.tenant == tenant)
        return list(islice(rows, page_size(limit)))

    async def cursor(self, tenant: str, name: str) -> Cursor | None:
        """How far a durable subscription has come, or None if it never began."""
        return (await self._open()).cursors.get((tenant, name))

    async def deliveries(self, tenant: str, subscription: str, limit: int = 1000) -> list[Delivery]:
        """Deliveries of a durable subscription, by position."""
        rows = (await self._open()).deliveries
        wanted = (row for key, row in sorted(rows.items(), key=lambda i: i[0]) if key[:2] == (tenant, subscription))
        return list(islice(wanted, page_size(limit)))

    async def dead_letters(self, tenant: str, limit: int = 100) -> list[DeadLetter]:
        """Dead letters of a tenant, newest first."""
        rows = [row for row in (await self._open()).dead_letters.values() if row.tenant == tenant]
        return sorted(rows, key=lambda row: (row.at, row.id), reverse=True)[: page_size(limit)]

    async def claim(self, owner: str, now: float, lease: float, limit: int = 100) -> list[Run]:
        live = (await self._open()).live
        free = (
            run
            for _, run in sorted(live.items())
            if run.status != "paused" and (run.owner is None or (run.owner != owner and run.lease_until <= now))
        )
        claimed = list(islice(free, page_size(limit)))
        for run in claimed:
            run.owner, run.fence, run.lease_until = owner, run.fence + 1, now + lease
        return [copy(run) for run in claimed]

    async def renew(self, owner: str, now: float, lease: float) -> int:
        held = [run for run in (await self._open()).live.values() if run.owner == owner]
        for run in held:
            run.lease_until = now + lease
        return len(held)

    async def release(self, owner: str) -> None:
        for run in (await self._open()).runs.values():
            if run.owner == owner:
                run.owner, run.lease_until = None, 0.0
