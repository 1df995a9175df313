"""SQLite databases that the host keeps for plugins, read and changed by statements that plugins send.

What a statement may do is decided by SQLite itself: it is compiled under an authorizer that knows whether it may write,
on a connection that is read-only where it may not. No statement can name another file, load code, or change how the
connection works. Time, memory, rows, sizes and the size of the file are bounded: statements run in processes of their
own (`statements.py`), which end where SQLite does not.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from eventcore.kernel.errors import InvalidInput, PermissionDenied
from eventcore.kernel.keeping import DatabaseSettings
from eventcore.plugins.statements import GRACE, MAX_ANSWER, MAX_VALUES, bound, receive, send

MAX_ROWS = 10_000
MAX_STATEMENTS = 1000
#: Statements that run at the same time, each in a process.
_AT_ONCE = 8
#: Processes that are kept though they have nothing to do.
_IDLE = 2
#: For a process to start, and for an answer to come through, on a busy machine. Seconds.
_START = 10.0
#: Between the end of a process's line to us and its own. Seconds.
_ENDING = 0.5
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


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
        #: Those that hold a database in memory, by its key; and those that have nothing to do.
        self._memory: dict[str, _Process] = {}
        self._idle: list[_Process] = []
        self._locks: dict[str, anyio.Lock] = {}
        self._slots = anyio.CapacityLimiter(_AT_ONCE)
        self._closed = False

    def close(self) -> None:
        """End the processes, and drop the databases in memory with them."""
        self._closed = True
        for process in (*self._memory.values(), *self._idle):
            process.close()
        self._memory.clear()
        self._idle.clear()

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
        lock = self._locks.setdefault(place.key, anyio.Lock())
        if place.path is None or write:
            async with lock:  # SQLite has one writer, a database in memory one connection; who waits holds no thread
                return await anyio.to_thread.run_sync(self._run, place, what, write, limiter=self._slots)
        return await anyio.to_thread.run_sync(self._run, place, what, write, limiter=self._slots)

    def _run(self, place: Place, what: dict[str, Any], write: bool) -> Any:
        asked = what | self._described(place, write)
        process = self._memory.pop(place.key, None) if place.path is None else self._waiting()
        process = process or _Process()
        try:
            answer = process.ask(asked)
        except OSError:
            why = process.end()
            spent = f"ran over its {self._settings.timeout:g} s in the database {asked['name']}; it was ended"
            raise InvalidInput(f"the statement {why or spent}") from None
        except BaseException:
            process.close()
            raise
        self._keep(place, process)
        if "error" not in answer:
            return answer["ok"]
        kind = PermissionDenied if answer["error"] == "denied" else InvalidInput
        raise kind(answer["message"], hint=answer["hint"])

    def _waiting(self) -> _Process | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _keep(self, place: Place, process: _Process) -> None:
        if self._closed:
            process.close()
        elif place.path is None:
            self._memory[place.key] = process
        elif len(self._idle) < _IDLE:
            self._idle.append(process)
        else:
            process.close()

    def _described(self, place: Place, write: bool) -> dict[str, Any]:
        """How the database is to be opened."""
        name, size = place.key.rpartition("/")[2], int(self._settings.size_mb * 1024 * 1024)
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


class _Process:
    """One process of `statements.py`, used by one thread at a time."""

    def __init__(self) -> None:
        self._sock, far = socket.socketpair()
        with far:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-P", "-m", "eventcore.plugins.statements", str(far.fileno())],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
            )
        self._fresh = True

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Its answer.

        Raises:
            OSError: it has ended, or does not answer in time.
        """
        self._sock.settimeout(asked["seconds"] + 2 * GRACE + (_START if self._fresh else 0))
        self._fresh = False
        send(self._sock, asked)
        answer: dict[str, Any] = receive(self._sock, 2 * MAX_ANSWER)
        return answer

    def close(self) -> None:
        """End it."""
        self._sock.close()
        self._process.kill()
        self._process.wait()

    def end(self) -> str:
        """End it. Returns why it had ended by itself, where that was not its clock; empty where it had not."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)  # its socket is closed a moment before
        code = self._process.returncode
        self.close()
        return "" if code in (None, -signal.SIGALRM) else f"was not carried out: its process ended with {code}"


def _environment() -> dict[str, str]:
    """Little of ours, but for where our modules are: relative places would be others there."""
    found = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return found | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}


def _check(sql: Any, values: Any) -> None:
    if not isinstance(sql, str) or not sql.strip():
        raise InvalidInput("a statement is SQL text")
    if not isinstance(values, list | dict) or len(values) > MAX_VALUES:
        raise InvalidInput(f"the values of a statement are a list or an object of at most {MAX_VALUES:,}")
    bound(values)
