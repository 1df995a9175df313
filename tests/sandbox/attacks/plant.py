"""What an attack finds on the host, and whether it has been at it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from eventcore.kernel.errors import EventCoreError
from eventcore.plugins.sandbox.diskwatch import remove
from eventcore.plugins.sandbox.zygote.crew import SPARE

VARIABLE = "EVENTCORE_ATTACK_SECRET"


class Plant:
    """Files, sockets and a process of the host's user, in a folder that every user can reach.

    Use it as a context manager.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._secret = folder / "secret"
        self._outside, self.workspace = folder / "outside", folder / "workspace"
        self.token = os.environ.get(VARIABLE) or "secret " + secrets.token_hex(16)
        self._stack = ExitStack()
        self._listeners: dict[str, socket.socket] = {}
        self._victim: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Plant:
        self._folder.chmod(0o755)
        self._secret.write_text(self.token)
        self._secret.chmod(0o644)
        os.environ[VARIABLE] = self.token
        # A descriptor that a careless host lets its children inherit.
        self._inherited = os.open(self._secret, os.O_RDONLY)
        os.set_inheritable(self._inherited, True)
        for place in (self._outside, self.workspace):
            place.mkdir()
        self._listen()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        os.close(self._inherited)
        os.environ.pop(VARIABLE, None)
        if self._victim is not None:
            self._victim.kill()
            self._victim.wait()

    def _listen(self) -> None:
        abstract = f"eventcore-attack-{secrets.token_hex(8)}"
        places: list[tuple[str, int, int, Any]] = [
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("granted", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, str(self._folder / "u")),
            ("datagrams", socket.AF_UNIX, socket.SOCK_DGRAM, str(self._folder / "d")),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract),
        ]
        for name, family, kind, address in places:
            sock = self._stack.enter_context(socket.socket(family, kind))
            sock.bind(address)
            if kind == socket.SOCK_STREAM:
                sock.listen()
            sock.setblocking(False)
            self._listeners[name] = sock
        for name in ("u", "d"):
            (self._folder / name).chmod(0o777)
        self._abstract = abstract

    @property
    def granted_port(self) -> int:
        """The port that an attack may be allowed to connect to."""
        return int(self._listeners["granted"].getsockname()[1])

    @property
    def victim(self) -> int:
        """A process of the host's user."""
        assert self._victim is not None
        return self._victim.pid

    def told(self) -> dict[str, Any]:
        """What an attack is told, as its only argument."""
        return {
            "secret": str(self._secret),
            "outside": str(self._outside),
            "workspace": str(self.workspace),
            "variable": VARIABLE,
            "host": os.getpid(),
            "victim": self.victim,
            "tcp": self._listeners["tcp"].getsockname()[1],
            "granted": self.granted_port,
            "udp": self._listeners["udp"].getsockname()[1],
            "unix": str(self._folder / "u"),
            "datagrams": str(self._folder / "d"),
            "abstract": self._abstract,
        }

    def renew(self) -> None:
        """As it was at first."""
        for place in (self._outside, self.workspace):
            place.chmod(0o777)
            for entry in place.iterdir():
                if not entry.is_symlink() and entry.is_dir():  # a link may lead to a name that is none
                    remove(str(entry))
                else:
                    entry.unlink()
        (self._outside / "open").write_text(f"everybody may write here: {self.token}")
        (self._outside / "open").chmod(0o666)
        self._before = self._look()
        self.contacts()
        if self._victim is None or self._victim.poll() is not None:
            self._victim = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)

    def results(self, read: Callable[[Path, str], bytes]) -> list[str]:
        """Take what lies in the workspace as a host takes results, and look whether it is more than that.

        Args:
            read: reads a file of a folder by its name; an OSError or an EventCoreError refuses it.
        """
        found = []
        for name in os.listdir(self.workspace)[:50]:
            for path in (name, f"{name}/{self._secret.name}"):
                with suppress(OSError, EventCoreError):
                    if self.token.encode() in read(self.workspace, path):
                        found.append(f"the result {path} is a file of the host")
        return found

    def harm(self) -> list[str]:
        """What has been changed, said or killed since `renew`."""
        assert self._victim is not None
        found = [f"changed: {name}" for name in sorted(self._before.items() ^ self._look().items())]
        found += [f"a trap in the workspace: {name}" for name in self._traps()]
        found += [f"contact: {name}" for name in self.contacts()]
        if self._victim.poll() is not None:
            found.append(f"the victim ended with {self._victim.returncode}")
        return found

    def contacts(self) -> list[str]:
        """Who has been spoken to."""
        found = []
        for name, sock in self._listeners.items():
            with suppress(BlockingIOError):
                if sock.type == socket.SOCK_DGRAM:
                    while sock.recv(4096):
                        found.append(name)
                else:
                    while True:
                        sock.accept()[0].close()
                        found.append(name)
        return [name for name in found if name != "granted"]

    def _look(self) -> dict[str, str]:
        places = [self._secret, self._outside, *self._outside.rglob("*")]
        return {str(path): self._of(path) for path in places}

    @staticmethod
    def _of(path: Path) -> str:
        try:
            found = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
        except OSError as error:
            return repr(error)
        return f"{found.st_mode:o} {found.st_uid} {found.st_size} {found.st_mtime_ns} {content[:100]!r}"

    def _traps(self) -> list[str]:
        """What nobody should find in a folder of results: devices, pipes, sockets, programs with another's rights."""
        found = []
        for name, mode in _beneath(self.workspace):
            plain = stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
            if not plain or (stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID)):
                found.append(f"{name} {stat.filemode(mode)}")
        return found


def _beneath(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and mode of all that lies in a folder and beneath.

    By steps: a path may be longer than a path can be, folders deeper than recursion goes, and links lead to no name at
    all. A judge who stumbles over one takes its host for dead.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    here = os.open(folder, flags)
    left: list[list[str]] = []
    try:
        while True:
            below: list[str] = []
            for name in os.listdir(here):
                with suppress(OSError):
                    mode = os.lstat(name, dir_fd=here).st_mode
                    yield name, mode
                    if stat.S_ISDIR(mode):
                        os.chmod(name, 0o700, dir_fd=here)  # one that nobody may list hides what is in it
                        below.append(name)
            left.append(below)
            while not left[-1]:
                left.pop()
                if not left:
                    return
                here = _moved(here, "..", flags)
            here = _moved(here, left[-1].pop(), flags)
    finally:
        os.close(here)


def _moved(here: int, name: str, flags: int) -> int:
    there = os.open(name, flags, dir_fd=here)
    os.close(here)
    return there


def descendants(pid: int) -> list[int]:
    """All processes that came of one, and are still there."""
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def children(pid: int) -> list[int]:
    """Its own children."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (thread / "children").read_text().split()]
    return found


def spare_of(started: int) -> list[int]:
    """The keeper and the worker that a zygote keeps to spare.

    Plugin code can take their name, but not their place: it never comes to be a child of the zygote, or of a keeper
    that waits.

    Args:
        started: the process that the host started: the zygote, or the anchor above it.
    """
    zygotes = [started, *children(started)]
    keepers = [pid for one in zygotes for pid in children(one) if _name(pid) == SPARE]
    return keepers + [pid for one in keepers for pid in children(one)]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def end(pids: list[int]) -> None:
    """Kill what an attack has left behind."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
