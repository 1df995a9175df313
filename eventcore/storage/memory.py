"""The store in memory: everything a store does, but nothing outlives the object."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from eventcore.kernel.upkeep import MAX_COUNTS, CountBy, EventCount, Prune, Pruned, ordered
from eventcore.storage.admission import admit
from eventcore.storage.blobs import Blobs
from eventcore.storage.matching import holds_words, matcher, matches_one, page_size, span_of, status_of, words_of
from eventcore.storage.watchers import Watchers

#: About what an event takes besides its payload, in bytes.
_ROW_BYTES = 1000


class _Tables:
    """The rows, and how a batch changes them. Implements `eventcore.storage.admission.View`."""

    def __init__(self) -> None:
        # Entry n of the log has position n + 1. None: it was pruned; positions are never given again.
        self.log: list[LogEntry | None] = []
        # Indexes of step events that have left the history.
        self.hidden: set[int] = set()
        self.by_id: dict[str, list[int]] = defaultdict(list)
        self.by_run: dict[str, list[int]] = defaultdict(list)
        self.runs: dict[str, Run] = {}
        # The runs with something left to do: few, while `runs` only grows.
        self.live: dict[str, Run] = {}
        self.definitions: dict[str, Definition] = {}
        self.timers: dict[str, Timer] = {}
        self.keys: dict[tuple[str, str, str], Key] = {}
        self.cursors: dict[tuple[str, str], Cursor] = {}
        # Owner (None: given up), fence, end of the lease.
        self.claims: dict[tuple[str, str], tuple[str | None, int, float]] = {}
        self.deliveries: dict[tuple[str, str, int], Delivery] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self.plugin_states: dict[tuple[str, str], PluginState] = {}
        self.memory: dict[str, Memory] = {}
        self.schedules: dict[str, Schedule] = {}
        self.audit: list[Audit] = []
        self.blobs = Blobs()

    def run_head(self, run: str) -> tuple[int, int] | None:
        row = self.runs.get(run)
        return None if row is None else (row.version, row.fence)

    def key_expiry(self, key: tuple[str, str, str]) -> float | None:
        row = self.keys.get(key)
        return None if row is None else row.expires

    def cursor_position(self, tenant: str, name: str) -> int:
        row = self.cursors.get((tenant, name))
        return 0 if row is None else row.position

    def cursor_fence(self, tenant: str, name: str) -> int | None:
        owner, fence, _ = self.claims.get((tenant, name), (None, 0, 0.0))
        return None if owner is None else fence

    def live_runs(self, tenant: str, slug: str, limit_key: str | None) -> int:
        return sum(
            run.status in ("running", "waiting")
            and (run.tenant, run.slug) == (tenant, slug)
            and (limit_key is None or run.limit_key == limit_key)
            for run in self.live.values()
        )

    def prunable(self, request: Prune) -> Iterator[int]:
        """Indexes of what may be removed, oldest first; see `Prune`."""
        passed: dict[str, int] = {}
        for cursor in self.cursors.values():
            passed[cursor.tenant] = min(cursor.position, passed.get(cursor.tenant, cursor.position))
        held = {row.position for row in self.deliveries.values()} | {row.position for row in self.dead_letters.values()}
        for index, event in self.shown(range(len(self.log))):
            if (
                (request.tenant in (None, event.tenant))
                and (request.before is None or event.at < request.before)
                and (not request.patterns or matches_one(request.patterns, event.type))
                and not matches_one(request.keep, event.type)
                and index < passed.get(event.tenant, index + 1)
                and index + 1 not in held
                and event.run not in self.live
            ):
                yield index

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
        for begun in batch.cursors_begun:
            self.cursors.setdefault((begun.tenant, begun.name), begun)
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
        else:
            self.blobs.add(entry)
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

    def give_up(self, cursor: tuple[str, str]) -> None:
        self.claims[cursor] = (None, self.claims[cursor][1], 0.0)

    def event_at(self, index: int) -> Event:
        """The log entry as an event of its own: nobody can change what the store holds through it."""
        entry = self.log[index]
        assert entry is not None
        event = entry.event if isinstance(entry, JournalEntry) else entry
        return replace(event, position=index + 1, _data=[])

    def shown(self, indexes: Iterable[int]) -> Iterator[tuple[int, Event]]:
        """The events of the history at these indexes, as they are in the log."""
        for index in indexes:
            entry = self.log[index]
            if entry is not None and index not in self.hidden:
                yield index, entry.event if isinstance(entry, JournalEntry) else entry

    def remove(self, index: int) -> None:
        """Take an event out of the history; of a step event the journal keeps the row."""
        entry = self.log[index]
        if isinstance(entry, JournalEntry):
            self.hidden.add(index)
        elif entry is not None:
            self.blobs.remove(entry)
            self.by_id[entry.id].remove(index)
            self.log[index] = None


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

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        return (await self._open()).dead_letters.get(letter_id)

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
