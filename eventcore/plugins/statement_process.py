"""The processes that run statements (`statements.py`), as the host holds them.

A process belongs to one folder, or to one database in memory, and is never used for another: it is confined to that,
and what a statement may have broken in it is its own plugin's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventcore.plugins.statements import GRACE, MAX_ANSWER, receive, send

#: Processes that are kept though they have nothing to do.
_IDLE = 8
#: For a process to start, and for an answer to come through, on a busy machine. Seconds.
_START = 10.0
#: Between the end of a process's line to us and its own. Seconds.
_ENDING = 0.5


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a process is confined to.

    Attributes:
        folder: the only one with files that it may reach; empty: none.
        identity: the folder's device and number, so that one that was removed and made again is another.
        file_bytes: the largest size of a file; 0 for no limit.
    """

    folder: str
    identity: tuple[int, int]
    file_bytes: int

    @classmethod
    def of(cls, folder: Path | None, file_bytes: int) -> Bounds:
        """Those of a folder; one that is not there has nothing to be kept for."""
        if folder is None:
            return cls("", (0, 0), 0)
        try:
            found = folder.stat()
        except OSError:
            return cls(str(folder), (-1, -1), file_bytes)
        return cls(str(folder), (found.st_dev, found.st_ino), file_bytes)


class Pool:
    """Processes with nothing to do, the last used ones; and those at work, so that they can be ended. Threads use it:
    each of its steps is one that the interpreter's lock holds together."""

    def __init__(self) -> None:
        self._idle: list[StatementProcess] = []
        self._busy: set[StatementProcess] = set()
        self._closed = False

    def take(self, bounds: Bounds) -> StatementProcess:
        """One for these bounds."""
        for process in reversed(list(self._idle)):
            if process.bounds == bounds:
                with suppress(ValueError):  # another thread has it
                    self._idle.remove(process)
                    return self._at_work(process)
        return self._at_work(StatementProcess(bounds))

    def resume(self, process: StatementProcess) -> StatementProcess:
        """One that was kept elsewhere is at work again."""
        return self._at_work(process)

    def _at_work(self, process: StatementProcess) -> StatementProcess:
        self._busy.add(process)
        if self._closed:
            process.kill()
        return process

    def done(self, process: StatementProcess) -> None:
        """It has ended, or is kept elsewhere."""
        self._busy.discard(process)

    def give(self, process: StatementProcess) -> None:
        """It has nothing more to do."""
        self._busy.discard(process)
        self._idle.append(process)
        while self._idle and (self._closed or len(self._idle) > _IDLE):
            with suppress(IndexError):
                self._idle.pop(0).close()

    def forget(self, folder: str) -> None:
        """End those of a folder that is to go."""
        for process in [one for one in self._idle if one.bounds.folder == folder]:
            with suppress(ValueError):
                self._idle.remove(process)
                process.close()
        for process in [one for one in self._busy if one.bounds.folder == folder]:
            process.kill()

    def close(self) -> None:
        """End all. Those at work are ended too: who waits for them is told so."""
        self._closed = True
        for process in list(self._busy):
            process.kill()
        while self._idle:
            self._idle.pop().close()


class StatementProcess:
    """One process, used by one thread at a time."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._sock, far = socket.socketpair()
        # Closed when we end, however that is; which sends it a signal, in the middle of a statement too.
        line, self._line = os.pipe()
        words = ["eventcore.plugins.statements", str(far.fileno()), str(line), bounds.folder, str(bounds.file_bytes)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-P", "-m", *words],
                pass_fds=[far.fileno(), line],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(bounds.folder),
                cwd="/",
            )
        except BaseException:
            self._sock.close()
            os.close(self._line)
            raise
        finally:
            far.close()
            os.close(line)
        self._fresh = True

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Its answer.

        Raises:
            OSError: it has ended, or does not answer in time, or with what is no answer.
        """
        seconds = asked["seconds"] + 2 * GRACE + (_START if self._fresh else 0)
        self._fresh = False
        self._sock.settimeout(seconds)
        send(self._sock, asked)
        answer = receive(self._sock, 2 * MAX_ANSWER, time.monotonic() + seconds)
        match answer:
            case {"ok": _}:
                return {"ok": answer["ok"]}
            case {"error": str(kind), "message": str(text), "hint": str() | None as hint}:
                return {"error": kind, "message": text, "hint": hint}
        raise OSError("it answers with what is no answer")

    def kill(self) -> None:
        """End it, while another thread waits for it and tidies up."""
        with suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """End it."""
        self._sock.close()
        if self._line >= 0:
            os.close(self._line)
            self._line = -1
        self._process.kill()
        self._process.wait()

    def end(self) -> str:
        """End it. Returns why it had ended by itself, where that was not its clock; empty where it had not."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)  # its socket is closed a moment before
        code = self._process.returncode
        self.close()
        return "" if code in (None, -signal.SIGALRM) else f"was not carried out: its process ended with {code}"


def _environment(folder: str) -> dict[str, str]:
    """Little of ours, but for where our modules are: relative places would be others there."""
    found = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    found |= {"SQLITE_TMPDIR": folder} if folder else {}  # what one statement may have to undo is kept in a file
    return found | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}
