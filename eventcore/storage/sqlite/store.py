"""The store in a SQLite file: one connection writes, a few read beside it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio

from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import StoreClosed, StoreError
from eventcore.kernel.event import Event
from eventcore.kernel.faults import NoFaults
from eventcore.kernel.ports import Clock, CommitListener, Faults, Metrics, Store
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
from eventcore.storage.matching import page_size, words_of
from eventcore.storage.sqlite import search, statements, upkeep
from eventcore.storage.sqlite.connection import Connection, open_reader, open_writer
from eventcore.storage.sqlite.errors import explain
from eventcore.storage.sqlite.history import read_counts, read_page
from eventcore.storage.sqlite.rows import event_of, journal_of, run_of
from eventcore.storage.sqlite.schema import copy_to, fresh_schema, make_private, migrations, prepare
from eventcore.storage.sqlite.writer import Writer
from eventcore.storage.watchers import Watchers

_log = logging.getLogger("eventcore.store")

P = ParamSpec("P")
T = TypeVar("T")

#: The longest that closing waits for what is on its way to the disk, in seconds.
_CLOSING = 30.0
#: How many log entries the search index takes in at once, and how long a search waits for it, in seconds.
_SEARCH_CHUNK, _SEARCH_WAIT = 500, 2.0
#: Once somebody has searched, the index follows: seconds between two looks, and between two chunks.
_SEARCH_LOOK, _SEARCH_PAUSE = 5.0, 0.05


class SqliteStore(Store):
    """A store in one SQLite file, with `synchronous=FULL`: what is committed survives a power cut.

    Engines of one event loop may share it; the last to leave closes it.

    Args:
        path: the file; made, for this user only, if it is not there. Its folder must be.
        faults: the fault points of tests.
        readers: connections that read, each with a thread of its own.
        group_limit: the most commits in one transaction.
        busy_timeout: seconds to wait for another process's lock on the file.
        clock: names the copy that is made before a migration.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        faults: Faults | None = None,
        readers: int = 2,
        group_limit: int = 500,
        busy_timeout: float = 5.0,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.path = Path(path)
        self._metrics = metrics
        self._faults = faults or NoFaults()
        self._reader_count = max(1, readers)
        self._group_limit = max(1, group_limit)
        self._busy_timeout = busy_timeout
        self._clock = clock or SystemClock()
        self._watchers = Watchers()
        self._readers: list[Connection] = []
        self._connection: Connection | None = None
        self._writer: Writer | None = None
        self._follower: asyncio.Task[None] | None = None
        self._users = 0
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        self._check_loop()
        async with self._opening:
            if not self._users:
                await self._open()
            self._users += 1
        stack.push_async_callback(self._leave)

    def _check_loop(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise StoreError(
                "the SQLite store runs on asyncio only, because aiosqlite does",
                hint="run under asyncio, or use the memory store",
            ) from None
        if self._users and loop is not self._loop:
            raise StoreError("the store is open in another event loop", hint="give each event loop a store of its own")
        self._loop = loop

    async def _open(self) -> None:
        async with AsyncExitStack() as undo:
            self._check_place()
            try:
                self._connection = connection = await open_writer(self.path, self._busy_timeout).opened()
                undo.push_async_callback(connection.close)
                await connection.run(prepare, self.path, self._clock.now(), migrations(), fresh_schema())
                for _ in range(self._reader_count):
                    reader = await open_reader(self.path, self._busy_timeout).opened()
                    undo.push_async_callback(reader.close)
                    self._readers.append(reader)
            except sqlite3.Error as error:
                raise explain(error, self.path) from error
            finally:
                self._readers, opened = [], self._readers
            self._readers = opened
            self._writer = Writer(connection, self.path, self._watchers, self._faults, self._group_limit, self._metrics)
            undo.pop_all()

    def _check_place(self) -> None:
        """What SQLite would report as `unable to open database file`, said in full; and the file made private."""
        if str(self.path) == ":memory:":
            raise StoreError("':memory:' is not a file", hint="use the memory store")
        if not self.path.parent.is_dir():
            raise StoreError(f"the folder {self.path.parent} does not exist", hint="make it, or name another place")
        if self.path.is_dir():
            raise StoreError(f"{self.path} is a folder", hint="name a file in it")
        try:
            make_private(self.path)
        except OSError as error:
            raise StoreError(
                f"the database {self.path} cannot be opened: {error.strerror}",
                hint="make the file and its folder writable for this user",
            ) from error

    async def _leave(self) -> None:
        self._users -= 1
        if self._users:
            return
        with anyio.move_on_after(_CLOSING, shield=True):
            await self._close()

    async def _close(self) -> None:
        """Readers first: the last connection to close tidies up the log file, and that is the writer's work."""
        writer, connection, readers = self._writer, self._connection, self._readers
        self._writer, self._connection, self._readers = None, None, []
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
            self._follower = None
        if writer is not None:
            await writer.close()
        for reader in readers:
            await reader.close()
        if connection is not None:
            await connection.close()

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        writer = self._writer
        if writer is None:
            raise StoreClosed("the store is not open; start it, and use it before its exit stack closes")
        if writer.full:
            await writer.room()
        return await writer.submit(batch, guards)

    async def record(self, event: Event) -> int:
        writer = self._writer
        if writer is None:
            raise StoreClosed("the store is not open; start it, and use it before its exit stack closes")
        if writer.full:
            await writer.room()
        return await writer.submit_event(event)

    def watch(self, listener: CommitListener) -> Callable[[], None]:
        return self._watchers.add(listener)

    async def _read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function on the reader that has the least to do."""
        if not self._readers:
            raise StoreClosed("the store is not open; start it, and use it before its exit stack closes")
        reader = min(self._readers, key=lambda connection: connection.busy)
        return await reader.run(function, *args, **kwargs)

    async def _write(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function in a transaction of its own, after the group that is on its way."""
        if self._connection is None:
            raise StoreClosed("the store is not open; start it, and use it before its exit stack closes")
        return await self._connection.run(partial(statements.in_transaction, function), *args, **kwargs)

    async def _rows(self, name: str, values: Any, make: Callable[[Any], T]) -> list[T]:
        return [make(row) for row in await self._read(statements.fetch, name, values)]

    async def _one(self, name: str, values: Any, make: Callable[[Any], T]) -> T | None:
        return next(iter(await self._rows(name, values, make)), None)

    async def last_position(self) -> int:
        [[position]] = await self._read(statements.fetch, "last_position", ())
        return int(position)

    async def event(self, event_id: str, tenant: str | None = None, source: str | None = None) -> Event | None:
        return await self._one("event_by_id", {"id": event_id, "tenant": tenant, "source": source}, event_of)

    async def blob(self, tenant: str, digest: str) -> bytes | None:
        return await self._one("blob", (tenant, digest), lambda row: bytes(row[0]))

    async def events(self, query: EventQuery) -> list[Event]:
        if words_of(query.text):
            await self._catch_up()
        return await self._read(read_page, query)

    async def _catch_up(self) -> None:
        """Bring the search index up to now, as far as that goes quickly; a search looks through the rest itself."""
        end = asyncio.get_running_loop().time() + _SEARCH_WAIT
        try:
            while await self._write(search.follow, _SEARCH_CHUNK) == _SEARCH_CHUNK:
                if asyncio.get_running_loop().time() > end:
                    break
        except StoreClosed:
            raise
        except StoreError as error:
            _log.warning("the search index could not be written; searching without it: %s", error)
            return
        if self._follower is None:
            self._follower = asyncio.create_task(self._follow(), name="eventcore-store-search")

    async def _follow(self) -> None:
        """Take new entries into the search index. Begins with the first search: who never searches pays nothing."""
        while True:
            try:
                behind = await self._write(search.follow, _SEARCH_CHUNK) == _SEARCH_CHUNK
            except StoreError:
                behind = False  # the next search says so
            await asyncio.sleep(_SEARCH_PAUSE if behind else _SEARCH_LOOK)

    async def counts(self, query: EventQuery, by: CountBy, every: float | None = None) -> list[EventCount]:
        return ordered(await self._read(read_counts, query, by, every))[:MAX_COUNTS]

    async def prune(self, request: Prune, *, dry_run: bool = False) -> Pruned:
        if dry_run:
            return await self._read(upkeep.prunable, request)
        return await self._write(upkeep.prune, request)

    async def prune_runs(self, request: PruneRuns, *, dry_run: bool = False) -> PrunedRuns:
        if dry_run:
            return await self._read(upkeep.prunable_runs, request)
        return await self._write(upkeep.prune_runs, request)

    async def size(self) -> int:
        [[size]] = await self._read(statements.fetch, "size", ())
        return int(size)

    async def journal(self, run: str) -> list[JournalEntry]:
        return await self._rows("journal_of_run", (run,), journal_of)

    async def journal_tail(self, run: str) -> tuple[Snapshot | None, list[JournalEntry]]:
        kept, rows = await self._read(statements.journal_tail, run)
        return None if kept is None else Snapshot(*kept), [journal_of(row) for row in rows]

    async def run(self, run_id: str) -> Run | None:
        return await self._one("run_by_id", (run_id,), run_of)

    async def runs(self, query: RunQuery) -> list[Run]:
        return [run_of(row) for row in await self._read(statements.runs_page, query)]

    async def definition(self, digest: str) -> Definition | None:
        return await self._one("definition", (digest,), lambda row: Definition(*row))

    async def timers(self, due: float, limit: int = 100) -> list[Timer]:
        return await self._rows("due_timers", (due, page_size(limit)), lambda row: Timer(*row))

    async def next_timer(self) -> float | None:
        [[due]] = await self._read(statements.fetch, "next_timer", ())
        return None if due is None else float(due)

    async def listening(self, after: str = "", limit: int = 1000) -> list[Listening]:
        return await self._rows("listening", (after, page_size(limit)), lambda row: Listening(*row))

    async def key(self, tenant: str, scope: str, key: str, now: float) -> Key | None:
        return await self._one("live_key", (tenant, scope, key, now), lambda row: Key(*row))

    async def plugin_states(self, tenant: str) -> list[PluginState]:
        return await self._rows("plugin_states", (tenant,), lambda row: PluginState(*row))

    async def plugin_hooks(self, tenant: str) -> list[PluginHook]:
        return await self._rows("plugin_hooks", (tenant,), lambda row: PluginHook(*row))

    async def packages(self, tenant: str) -> list[Package]:
        return await self._rows("packages", (tenant,), lambda row: Package(*row))

    async def plugin_settings(self, tenant: str) -> list[PluginSetting]:
        return await self._rows("plugin_settings", (tenant,), lambda row: PluginSetting(*row))

    async def memories(
        self, tenant: str, text: str, limit: int = 5, *, owner: str | None = None, until: float | None = None
    ) -> list[Memory]:
        values = {"tenant": tenant, "owner": owner, "until": until, "words": text, "limit": page_size(limit)}
        return await self._rows("memories", values | {"search": search.candidates(text)}, lambda row: Memory(*row))

    async def nearest(
        self, tenant: str, model: str, vector: bytes, limit: int, among: int
    ) -> list[tuple[Memory, float]]:
        values = {"tenant": tenant, "model": model, "among": page_size(among)}
        return await self._read(statements.nearest, vector, page_size(limit), values)

    async def unmeasured(self, model: str, limit: int = 100) -> list[Memory]:
        return await self._rows("unmeasured", {"model": model, "limit": page_size(limit)}, lambda row: Memory(*row))

    async def oldest_memories(self, tenant: str, limit: int = 100) -> list[Memory]:
        return await self._rows("oldest_memories", (tenant, page_size(limit)), lambda row: Memory(*row))

    async def memory_owners(self, tenant: str) -> list[tuple[str, int, float]]:
        return await self._rows("memory_owners", (tenant,), lambda row: (row[0], row[1], row[2]))

    async def schedules(self, due: float, limit: int = 100) -> list[Schedule]:
        return await self._rows("due_schedules", (due, page_size(limit)), lambda row: Schedule(*row))

    async def plans(
        self, due: float, limit: int = 100, *, tenant: str | None = None, owner: str | None = None
    ) -> list[Schedule]:
        values = {"due": due, "limit": page_size(limit), "tenant": tenant, "owner": owner}
        return await self._rows("due_plans", values, lambda row: Schedule(*row))

    async def audit(self, tenant: str | None = None, limit: int = 100) -> list[Audit]:
        return await self._rows("audit", {"tenant": tenant, "limit": page_size(limit)}, lambda row: Audit(*row))

    async def cursor(self, tenant: str, name: str) -> Cursor | None:
        """How far a durable subscription has come, or None if it never began."""
        return await self._one("cursor", (tenant, name), lambda row: Cursor(*row))

    async def cursors(self, tenant: str) -> list[Cursor]:
        return await self._rows("cursors", (tenant,), lambda row: Cursor(*row))

    async def forget_cursor(self, tenant: str, name: str, now: float) -> bool:
        return await self._write(statements.forget_cursor, {"tenant": tenant, "name": name, "now": now})

    async def deliveries(self, tenant: str, subscription: str, limit: int = 1000) -> list[Delivery]:
        """Deliveries of a durable subscription, by position."""
        return await self._rows("deliveries", (tenant, subscription, page_size(limit)), lambda row: Delivery(*row))

    async def dead_letters(self, tenant: str, limit: int = 100) -> list[DeadLetter]:
        """Dead letters of a tenant, newest first."""
        return await self._rows("dead_letters", (tenant, page_size(limit)), lambda row: DeadLetter(*row))

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        return await self._one("dead_letter", (letter_id,), lambda row: DeadLetter(*row))

    async def claim(self, owner: str, now: float, lease: float, limit: int = 100, run: str | None = None) -> list[Run]:
        return await self._write(statements.claim, owner, now, lease, page_size(limit), run)

    async def renew(self, owner: str, now: float, lease: float) -> int:
        return await self._write(statements.renew, owner, now + lease)

    async def release(self, owner: str) -> None:
        await self._write(statements.release, owner)

    async def claim_cursor(self, tenant: str, name: str, owner: str, now: float, lease: float) -> int | None:
        values = {"tenant": tenant, "name": name, "owner": owner, "now": now, "until": now + lease}
        rows = await self._write(statements.fetch, "claim_cursor", values)
        return rows[0][0] if rows else None

    async def release_cursor(self, tenant: str, name: str, fence: int) -> None:
        await self._write(statements.change, "release_cursor", {"tenant": tenant, "name": name, "fence": fence})

    async def backup(self, target: Path) -> None:
        """Copy the whole database to a new file, as it is at one moment, while work goes on.

        Raises:
            StoreError: the target exists or cannot be written.
        """
        if self._connection is None:
            raise StoreClosed("the store is not open; start it, and use it before its exit stack closes")
        # A connection of its own: a copy takes long, and readers must not wait behind it.
        reader = await open_reader(self.path, self._busy_timeout).opened()
        try:
            await reader.run(copy_to, target)
        except OSError as error:
            raise StoreError(f"the backup {target} cannot be written: {error.strerror}") from error
        finally:
            await reader.close()
