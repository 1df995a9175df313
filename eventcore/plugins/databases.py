"""SQLite databases that the host keeps for plugins, read and changed by statements that plugins send.

What a statement may do is decided by SQLite itself: it is compiled under an authorizer that knows whether it may write,
on a connection that is read-only where it may not. No statement can name another file, load code, or change how the
connection works. Time, rows, sizes and the size of the file are bounded.
"""

from __future__ import annotations

import base64
import math
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from eventcore.kernel.errors import InvalidInput, PermissionDenied
from eventcore.kernel.json import encode
from eventcore.kernel.keeping import DatabaseSettings

T = TypeVar("T")

MAX_ROWS = 10_000
MAX_STATEMENTS = 1000
#: Bytes of one answer as JSON; less than what one message to a worker may hold.
MAX_ANSWER = 768 * 1024
_MAX_SQL, _MAX_VALUE, _MAX_VALUES = 100_000, 1024 * 1024, 1000
#: Statements that run at the same time, each in a thread.
_AT_ONCE = 8
_STEPS = 10_000  # virtual machine steps between looks at the clock
_LOCKED = 2.0  # seconds to wait for another writer
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

_READ = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION,
}
_NEVER = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}
#: Looking at the schema is reading; every other pragma changes the connection or the file.
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})
_FUNCTIONS_NEVER = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is.

    Attributes:
        path: the file; None: in memory, for as long as the engine is open.
        key: what tells it from others.
        shared: the operator lists it, so others may use it too.
    """

    key: str
    path: Path | None
    shared: bool


class Databases:
    """The databases of one engine.

    Args:
        settings: limits, and what the operator lists.
        home: the home's folder, which the paths in the settings are relative to; None: there is no home.
        own: the folder for plugins' own databases; None: they are kept in memory.
    """

    def __init__(self, settings: DatabaseSettings, home: Path | None, own: Path | None) -> None:
        self._settings, self._home, self._own = settings, home, own
        self._memory: dict[str, sqlite3.Connection] = {}
        self._locks: dict[str, anyio.Lock] = {}
        self._slots = anyio.CapacityLimiter(_AT_ONCE)

    def close(self) -> None:
        """Drop the databases in memory."""
        for connection in self._memory.values():
            connection.close()
        self._memory.clear()

    async def remove(self, tenant: str, plugin: str) -> int:
        """Remove a plugin's own databases in a tenant; return how many there were. Listed ones are the operator's."""
        found = [key for key in self._memory if key.startswith(f"{tenant}/{plugin}/")]
        for key in found:
            self._memory.pop(key).close()
        if self._own is None:
            return len(found)
        folder = self._own / tenant / plugin
        files = await anyio.to_thread.run_sync(lambda: len(list(folder.glob("*.db"))))
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        return files

    def place(self, tenant: str, plugin: str, name: Any) -> Place:
        """Which database a plugin means: one that the operator lists, else one of its own in this tenant.

        Raises:
            InvalidInput: the name is none.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r:.80} is no name of a database; it has a-z, 0-9, _ and -, at most 64")
        if (listed := self._settings.shared.get(name)) is not None:
            path = Path(listed)
            return Place(name, path if self._home is None else self._home / path, shared=True)
        key = f"{tenant}/{plugin}/{name}"
        return Place(key, None if self._own is None else self._own / f"{key}.db", shared=False)

    async def fetch(self, place: Place, sql: Any, values: Any, limit: int) -> list[dict[str, Any]]:
        """The rows of a statement that only reads.

        Raises:
            PermissionDenied: it would do something else.
            InvalidInput: the statement or its values are wrong, or it gives too much or takes too long.
        """
        _check(sql, values)
        return await self._in_thread(place, lambda connection: _fetch(connection, sql, _bound(values), limit), False)

    async def execute(self, place: Place, statements: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Statements in one transaction; how many rows they changed, and the last row id.

        Raises:
            PermissionDenied, InvalidInput: as `fetch`. Nothing was changed.
        """
        for sql, values in statements:
            _check(sql, values)
        return await self._in_thread(place, lambda connection: _execute(connection, statements), True)

    async def _in_thread(self, place: Place, work: Callable[[sqlite3.Connection], T], write: bool) -> T:
        lock = self._locks.setdefault(place.key, anyio.Lock())
        if place.path is None:
            async with lock:  # one connection, which two threads must not use at once
                return await self._run(place, work, write)
        if write:
            async with lock:  # SQLite has one writer; who waits here does not hold a thread
                return await self._run(place, work, write)
        return await self._run(place, work, write)

    async def _run(self, place: Place, work: Callable[[sqlite3.Connection], T], write: bool) -> T:
        def run() -> T:
            with self._connected(place, write) as connection, _guarded(connection, write, self._settings.timeout):
                return work(connection)

        try:
            return await anyio.to_thread.run_sync(run, limiter=self._slots)
        except sqlite3.Error as error:
            raise _explained(error, place, self._settings) from None

    @contextmanager
    def _connected(self, place: Place, write: bool) -> Iterator[sqlite3.Connection]:
        if place.path is None:
            if place.key not in self._memory:
                self._memory[place.key] = self._opened(":memory:", write=True)
            yield self._memory[place.key]
            return
        if not place.shared:
            place.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not write and not place.path.exists():
            # A database that was never written to is empty, not missing.
            connection = self._opened(":memory:", write=False)
        else:
            mode = "rwc" if write and not place.shared else "rw" if write else "ro"
            address = f"{place.path.absolute().as_uri()}?mode={mode}"
            connection = self._opened(address, write=write, log_ahead=write and not place.shared)
        try:
            yield connection
        finally:
            connection.close()

    def _opened(self, address: str, *, write: bool, log_ahead: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, timeout=_LOCKED, check_same_thread=False, cached_statements=0
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, _MAX_VALUES)
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA temp_store=MEMORY")
            if write:
                connection.execute("PRAGMA foreign_keys=ON")
                if log_ahead:  # an operator's own file keeps the mode that it has
                    connection.execute("PRAGMA journal_mode=WAL")
                (page,) = connection.execute("PRAGMA page_size").fetchone()
                connection.execute(f"PRAGMA max_page_count={int(self._settings.size_mb * 1024 * 1024) // page}")
        except BaseException:
            connection.close()
            raise
        return connection


def _check(sql: Any, values: Any) -> None:
    if not isinstance(sql, str) or not sql.strip():
        raise InvalidInput("a statement is SQL text")
    if not isinstance(values, list | dict) or len(values) > _MAX_VALUES:
        raise InvalidInput(f"the values of a statement are a list or an object of at most {_MAX_VALUES:,}")


def _bound(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(name): _value(value) for name, value in values.items()}
    return [_value(value) for value in values]


def _value(value: Any) -> Any:
    match value:
        case {"base64": str(text), **rest} if not rest:
            try:
                return base64.b64decode(text, validate=True)
            except ValueError:
                raise InvalidInput("a value says base64 but is not") from None
        case None | bool() | int() | float() | str():
            return value
    raise InvalidInput(f"a value is null, a number, a text or {{'base64': text}}, not {type(value).__name__}")


@contextmanager
def _guarded(connection: sqlite3.Connection, write: bool, seconds: float) -> Iterator[None]:
    """Let statements do no more than they may, and no longer."""
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
    if write:
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection.execute("PRAGMA query_only=ON")
    connection.set_authorizer(_authorizer(write))
    try:
        yield
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA query_only=OFF")


def _authorizer(write: bool) -> Callable[..., int]:
    def allow(action: int, first: str | None, second: str | None, schema: str | None, inner: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_DENY if (second or "").lower() in _FUNCTIONS_NEVER else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA:
            return sqlite3.SQLITE_OK if (first or "").lower() in _PRAGMAS else sqlite3.SQLITE_DENY
        if action in _NEVER or (action == sqlite3.SQLITE_TRANSACTION and first != "ROLLBACK"):
            return sqlite3.SQLITE_DENY  # the transaction is ours to begin and end
        return sqlite3.SQLITE_OK if write or action in _READ else sqlite3.SQLITE_DENY

    return allow


def _fetch(connection: sqlite3.Connection, sql: str, values: Any, limit: int) -> list[dict[str, Any]]:
    rows = connection.execute(sql, values).fetchmany(limit + 1)
    if len(rows) > limit:
        raise InvalidInput(f"the statement gives more than {limit:,} rows", hint="add LIMIT, or raise limit=")
    found = [{name: _json(row[name]) for name in row.keys()} for row in rows]  # noqa: SIM118 - a Row is no mapping
    encode(found, limit=MAX_ANSWER, what="the rows")
    return found


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _execute(connection: sqlite3.Connection, statements: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    changed, last = 0, None
    for sql, values in statements:
        cursor = connection.execute(sql, _bound(values))
        changed += max(0, cursor.rowcount)
        last = cursor.lastrowid or last
    connection.set_authorizer(None)
    connection.execute("COMMIT")
    return {"changed": changed, "last_id": last}


def _explained(error: sqlite3.Error, place: Place, settings: DatabaseSettings) -> Exception:
    name, code = place.key.rpartition("/")[2], getattr(error, "sqlite_errorname", "")
    if code.startswith(("SQLITE_AUTH", "SQLITE_READONLY")):
        return PermissionDenied(f"the database {name} refuses the statement: {error}")
    if code == "SQLITE_INTERRUPT":
        return InvalidInput(f"the statement ran over its {settings.timeout:g} s in the database {name}")
    if code == "SQLITE_FULL":
        return InvalidInput(f"the database {name} has its {settings.size_mb:g} MiB")
    return InvalidInput(f"the database {name}: {error}")
