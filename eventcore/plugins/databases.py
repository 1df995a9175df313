"""SQLite databases that the host keeps for plugins, read and changed by statements that plugins send.

What a statement may do is decided by SQLite itself: it is compiled under an authorizer that knows whether it may write,
on a connection that is read-only where it may not. No statement can name another file, load code, or change how the
connection works. Time, memory, rows, sizes and the size of the file are bounded: statements run in processes of their
own (`statements.py`), which end where SQLite does not.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from eventcore.kernel.errors import InvalidInput, PermissionDenied
from eventcore.kernel.keeping import DatabaseSettings
from eventcore.plugins.statement_process import Bounds, Pool, StatementProcess
from eventcore.plugins.statements import MAX_VALUES, bound

MAX_ROWS = 10_000
MAX_STATEMENTS = 1000
#: Statements that run at the same time, each in a process.
_AT_ONCE = 8
#: And of one plugin in one tenant, so that it cannot have them all; who waits for more waits in its own line.
_OF_ONE = 2
#: A log of what is written ahead takes as much as the database, and is begun anew when nobody reads the old one.
_LOGGED = 2
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is.

    Attributes:
        path: the file; None: in memory, for as long as the engine is open.
        key: what tells it from others.
        shared: the operator lists it, so others may use it too.
        user: the tenant and the plugin that ask.
    """

    key: str
    path: Path | None
    shared: bool
    user: tuple[str, str] = ("", "")


class _Turn:
    """A statement that a thread waits for, on behalf of somebody who may leave."""

    def __init__(self) -> None:
        self.process: StatementProcess | None = None
        self._left = False

    def enter(self, process: StatementProcess) -> None:
        self.process = process
        if self._left:
            process.kill()

    def leave(self) -> None:
        self._left = True
        if (process := self.process) is not None:
            process.kill()


class Databases:
    """The databases of one engine.

    Args:
        settings: limits, and what the operator lists.
        home: the home's folder, which the paths in the settings are relative to; None: there is no home.
        own: the folder for plugins' own databases; None: they are kept in memory.
    """

    def __init__(self, settings: DatabaseSettings, home: Path | None, own: Path | None) -> None:
        self._settings, self._home, self._own = settings, home, own
        #: Those that hold a database in memory, by its key.
        self._memory: dict[str, StatementProcess] = {}
        self._pool = Pool()
        self._locks: dict[str, anyio.Lock] = {}
        self._slots = anyio.CapacityLimiter(_AT_ONCE)
        self._shares: dict[tuple[str, str], anyio.CapacityLimiter] = {}
        #: The databases of their own that plugins have, by tenant and plugin.
        self._names: dict[tuple[str, str], set[str]] = {}
        self._listed: dict[str, Path] = {}
        self._closed = False

    def close(self) -> None:
        """End the processes, and drop the databases in memory with them."""
        self._closed = True
        self._pool.close()
        while self._memory:
            self._memory.popitem()[1].close()

    async def remove(self, tenant: str, plugin: str) -> int:
        """Remove a plugin's own databases in a tenant; return how many there were. Listed ones are the operator's."""
        self._names.pop((tenant, plugin), None)
        if self._own is None:
            return await self._forget(f"{tenant}/{plugin}/")
        folder = self._own / tenant / plugin
        self._pool.forget(str(folder.absolute()))
        files = await anyio.to_thread.run_sync(lambda: len(list(folder.glob("*.db"))))
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        return files

    async def _forget(self, beginning: str) -> int:
        """Drop databases in memory, each after the statement that it is at."""
        count = 0
        for key in [key for key in self._locks if key.startswith(beginning)]:
            async with self._locks[key]:
                if (process := self._memory.pop(key, None)) is not None:
                    process.close()
                    count += 1
        return count

    def place(self, tenant: str, plugin: str, name: Any) -> Place:
        """Which database a plugin means: one that the operator lists, else one of its own in this tenant.

        Raises:
            InvalidInput: the name is none.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r:.80} is no name of a database; it has a-z, 0-9, _ and -, at most 64")
        if (listed := self._settings.shared.get(name)) is not None:
            return Place(name, self._listed_path(name, listed), shared=True, user=(tenant, plugin))
        key = f"{tenant}/{plugin}/{name}"
        return Place(key, None if self._own is None else self._own / f"{key}.db", shared=False, user=(tenant, plugin))

    def _listed_path(self, name: str, listed: str) -> Path:
        """Where the operator's file lies. Links are followed once: who may change the folder later leads nobody off."""
        if name not in self._listed:
            path = Path(listed) if self._home is None else self._home / listed
            self._listed[name] = path.resolve()
        return self._listed[name]

    async def fetch(self, place: Place, sql: Any, values: Any, limit: int) -> list[dict[str, Any]]:
        """The rows of a statement that only reads.

        Raises:
            PermissionDenied: it would do something else.
            InvalidInput: the statement or its values are wrong, or it gives too much or takes too long.
        """
        _check(sql, values)
        rows: list[dict[str, Any]] = await self._ask(place, {"sql": sql, "values": values, "limit": limit}, False)
        return rows

    async def execute(self, place: Place, statements: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Statements in one transaction; how many rows they changed, and the last row id.

        Raises:
            PermissionDenied, InvalidInput: as `fetch`. Nothing was changed.
        """
        for sql, values in statements:
            _check(sql, values)
        changed: dict[str, Any] = await self._ask(place, {"statements": statements}, True)
        return changed

    async def _ask(self, place: Place, what: dict[str, Any], write: bool) -> Any:
        if not place.shared and (write or place.path is None):
            self._count(place)
        async with self._shares.setdefault(place.user, anyio.CapacityLimiter(_OF_ONE)):
            if place.path is not None and not write:
                return await self._in_thread(place, what, write)
            # SQLite has one writer, a database in memory one connection; who waits holds no thread.
            async with self._locks.setdefault(place.key, anyio.Lock()):
                return await self._in_thread(place, what, write)

    def _count(self, place: Place) -> None:
        """Take one more database of a plugin's own into account.

        Raises:
            InvalidInput: it has as many as it may.
        """
        names = self._names.get(place.user)
        if names is None:
            folder = None if place.path is None else place.path.parent
            names = self._names[place.user] = set() if folder is None else {path.stem for path in folder.glob("*.db")}
        name = place.key.rpartition("/")[2]
        if name not in names and len(names) >= self._settings.most:
            raise InvalidInput(
                f"{place.user[1]} has {len(names)} databases, which are as many as it may have",
                hint="use one of them, or raise [databases] most",
            )
        names.add(name)

    async def _in_thread(self, place: Place, what: dict[str, Any], write: bool) -> Any:
        turn = _Turn()
        kept = place.path is None  # to end its process would end the database
        try:
            return await anyio.to_thread.run_sync(
                self._run, place, what, write, turn, limiter=self._slots, abandon_on_cancel=not kept
            )
        finally:
            turn.leave()  # who asked may be gone, and a statement may have minutes

    def _run(self, place: Place, what: dict[str, Any], write: bool, turn: _Turn) -> Any:
        asked = what | self._described(place, write)
        process = self._taken(place)
        turn.enter(process)
        try:
            answer = process.ask(asked)
        except OSError:
            self._pool.done(process)
            why = process.end()
            spent = f"ran over its {self._settings.timeout:g} s in the database {asked['name']}; it was ended"
            raise InvalidInput(f"the statement {why or spent}") from None
        except BaseException:
            self._pool.done(process)
            process.close()
            raise
        turn.process = None
        self._keep(place, process)
        if "error" not in answer:
            return answer["ok"]
        kind = PermissionDenied if answer["error"] == "denied" else InvalidInput
        raise kind(answer["message"], hint=answer["hint"])

    def _taken(self, place: Place) -> StatementProcess:
        if place.path is None and (kept := self._memory.pop(place.key, None)) is not None:
            return self._pool.resume(kept)
        if place.path is None:
            return self._pool.take(Bounds.of(None, 0))
        return self._pool.take(Bounds.of(place.path.parent.absolute(), self._largest(place.path, place.shared)))

    def _largest(self, path: Path, shared: bool) -> int:
        """Bytes of the largest file that a statement may leave. What the operator's own database has goes before."""
        most = _LOGGED * self._bytes() + (1 << 20)
        for file in (path, path.with_name(f"{path.name}-wal")) if shared else (path,):
            with suppress(OSError):
                while most < _LOGGED * file.stat().st_size:
                    most *= 2
        return most

    def _bytes(self) -> int:
        return int(self._settings.size_mb * 1024 * 1024)

    def _keep(self, place: Place, process: StatementProcess) -> None:
        if place.path is not None:
            self._pool.give(process)
            return
        self._pool.done(process)
        self._memory[place.key] = process
        if self._closed and self._memory.pop(place.key, None) is process:
            process.close()

    def _described(self, place: Place, write: bool) -> dict[str, Any]:
        """How the database is to be opened."""
        name, size = place.key.rpartition("/")[2], self._bytes()
        found = {"name": name, "size": size, "seconds": self._settings.timeout, "write": write}
        found |= {"log_ahead": write and not place.shared, "kept": place.path is None}
        if place.path is None:
            return found | {"address": ":memory:"}
        if not place.shared:
            place.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not write and not place.path.exists():
            # A database that was never written to is empty, not missing.
            return found | {"address": ":memory:"}
        mode = "rwc" if write and not place.shared else "rw" if write else "ro"
        return found | {"address": f"{place.path.absolute().as_uri()}?mode={mode}"}


def _check(sql: Any, values: Any) -> None:
    if not isinstance(sql, str) or not sql.strip():
        raise InvalidInput("a statement is SQL text")
    if not isinstance(values, list | dict) or len(values) > MAX_VALUES:
        raise InvalidInput(f"the values of a statement are a list or an object of at most {MAX_VALUES:,}")
    bound(values)
