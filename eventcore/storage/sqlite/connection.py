"""Connections: one that writes, some that only read.

An aiosqlite connection is a thread with a queue of functions. Its public methods queue one statement each; we queue a
whole transaction as one function, because each trip to the thread and back costs more than a statement does.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

import aiosqlite

from eventcore.kernel.errors import StoreClosed
from eventcore.kernel.names import pattern
from eventcore.storage.matching import Word, holds_words, matches_one, status_of, where_test, words_of
from eventcore.storage.sqlite import search
from eventcore.storage.sqlite.errors import explain

P = ParamSpec("P")
T = TypeVar("T")

#: The log file of the database is cut back to this many bytes after a checkpoint.
_WAL_LIMIT = 64 * 1024 * 1024
#: The log is copied into the database after so many pages (16 MiB). SQLite's own 1000 come every few groups under load.
_CHECKPOINT_PAGES = 4000

#: Seconds to wait for the thread of a connection that could not be made.
_THREAD_END = 5.0


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a function of ours in its thread."""

    def __init__(self, path: Path, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._path = path
        self.busy = 0
        # A process that forgot to close its store must still be able to end; SQLite stands that like any crash.
        self._thread.daemon = True

    async def opened(self) -> Self:
        """Connect; the same as awaiting the connection, but typed, and without a thread left behind if it fails."""
        try:
            await self
        except BaseException:
            # aiosqlite has told its thread to end but does not wait for it, and the thread reports its end to a loop
            # that may be closed by then.
            await asyncio.to_thread(self._thread.join, _THREAD_END)
            raise
        return self

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `function(connection, *args)` in the connection's thread: one trip, whatever it executes.

        The only use of aiosqlite's protected `_execute` and `_conn`; a test pins what is expected of them. If the
        caller is cancelled, the function runs all the same.

        Raises:
            StoreError: what SQLite raised, explained.
            StoreClosed: the connection is closed.
        """
        if not self._running or self._connection is None:
            raise StoreClosed
        self.busy += 1
        try:
            result: T = await self._execute(function, self._conn, *args, **kwargs)  # type: ignore[no-untyped-call]
            return result
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        finally:
            self.busy -= 1


def open_writer(path: Path, busy_timeout: float) -> Connection:
    """The connection that writes; not connected yet.

    Args:
        path: the database; made if it is not there.
        busy_timeout: seconds to wait for another process's lock.
    """

    def connect() -> sqlite3.Connection:
        # Autocommit: transactions begin and end where our statements say so.
        connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout, cached_statements=256)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
            connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            add_functions(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    return Connection(path, connect)


def open_reader(path: Path, busy_timeout: float) -> Connection:
    """A connection that reads, never waits for the writer, and cannot write; not connected yet."""

    def connect() -> sqlite3.Connection:
        address = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, timeout=busy_timeout, cached_statements=256
        )
        try:
            connection.execute("PRAGMA query_only=ON")
            add_functions(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    return Connection(path, connect)


def add_functions(connection: sqlite3.Connection) -> None:
    """The functions of ours that queries use, so that SQLite and the memory store match alike."""
    connection.create_function("holds_words", 3, _holds_words, deterministic=True)
    connection.create_function("type_matches", 2, _type_matches, deterministic=True)
    connection.create_function("type_in", 2, _type_in, deterministic=True)
    connection.create_function("data_is", 2, _data_is, deterministic=True)
    connection.create_function("memory_text", 2, search.memory_text, deterministic=True)
    connection.create_function("status_of", 1, status_of, deterministic=True)


@lru_cache(maxsize=64)
def _words(text: str) -> list[Word]:
    return words_of(text)


def _holds_words(text: str, plain: str, raw: bytes) -> bool:
    return holds_words(_words(text), plain, raw)


def _type_matches(text: str, type_: str) -> bool:
    return pattern(text).fullmatch(type_) is not None


@lru_cache(maxsize=4096)
def _type_in(patterns: str, type_: str) -> bool:
    return matches_one(json.loads(patterns), type_)


@lru_cache(maxsize=64)
def _where(pairs: str) -> Callable[[bytes], bool]:
    return where_test([(path, raw.encode()) for path, raw in json.loads(pairs)])


def _data_is(pairs: str, raw: bytes) -> bool:
    return _where(pairs)(raw)
