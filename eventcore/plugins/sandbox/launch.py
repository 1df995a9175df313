"""Starts worker processes, and ends them.

A launcher is what a stronger sandbox replaces: a zygote that forks confined children gives the same `Process` back.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

import anyio
from anyio import to_thread

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.plugins.sandbox.diskwatch import remove
from eventcore.plugins.sandbox.spec import WorkerSpec

_BOOT = Path(__file__).parent / "worker" / "boot.py"
_ROOT = Path(__file__).resolve().parents[3]


class Broken(NamedTuple):
    """A limit that a process ran into: its name, and a sentence."""

    limit: str
    text: str


class Process(Protocol):
    """A started worker process, seen from the host.

    Attributes:
        pid: its id here.
        sock: the host's end of the channel, non-blocking.
        output: the read end of a pipe that is the process's stdout and stderr, non-blocking.
        inside: what `load` is told in place of what is true out here, such as where the plugin's folder is.
    """

    pid: int
    sock: socket.socket
    output: int
    inside: Mapping[str, Any]

    async def hold(self) -> Broken | None:
        """Enforce what its kernel does not by itself. Returns at once, or goes on until it is cancelled or the process
        is gone; or returns what it broke, for which it has to be killed."""
        ...

    async def look_first(self) -> Broken | None:
        """Before an answer of it is passed on: what it broke and was not seen doing. Mostly returns at once."""
        ...

    async def stop(self) -> None:
        """Ask it to end, where that is more than to kill it. Returns when it has ended or been killed."""
        ...

    def kill(self) -> None:
        """SIGKILL to it and to all that came of it. Safe at any time."""
        ...

    async def wait(self) -> int:
        """Wait for the end and reap it. Returns the exit code, or the negative number of the signal."""
        ...

    def over(self) -> bool:
        """Whether it is seen to have ended, of which `wait` may tell some time later."""
        ...

    async def close(self) -> None:
        """Close what is open and remove what it leaves. Call it after `wait`."""
        ...


class BareProcess:
    """A worker process of its own, with a clean environment, and no other confinement."""

    inside: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self, child: subprocess.Popen[bytes], pidfd: int, sock: socket.socket, output: int, folder: str
    ) -> None:
        self.pid = child.pid
        self.sock = sock
        self.output = output
        self._child = child
        self._pidfd = pidfd
        self._folder = folder

    async def hold(self) -> Broken | None:
        """There are no limits to hold."""
        return None

    async def look_first(self) -> Broken | None:
        """There are none."""
        return None

    async def stop(self) -> None:
        """Nothing but a kill."""

    def kill(self) -> None:
        """SIGKILL to the process and to its group. Safe at any time: the pid is not reused before `wait` has reaped."""
        if self._child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the end and reap it. Returns the exit code, or the negative number of the signal."""
        while self._child.returncode is None:
            # A pidfd is readable once the process is a zombie: no thread, no SIGCHLD handler, on any event loop.
            await anyio.wait_readable(self._pidfd)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # what it left behind in its group, while the zombie holds the id
            self._child.poll()
        return self._child.returncode

    def over(self) -> bool:
        """Whether it is seen to have ended."""
        return self._child.returncode is not None or has_ended(self._pidfd)

    async def close(self) -> None:
        """Close what is open and remove the private folder. Call it after `wait`."""
        self.sock.close()
        os.close(self._pidfd)
        os.close(self.output)
        # In a thread, because how many files lie there is up to the plugin.
        await to_thread.run_sync(remove, self._folder)


#: Starts the process of a worker, which has not loaded its plugin yet.
Launcher: TypeAlias = Callable[[WorkerSpec], Awaitable[Process]]


async def spawn(spec: WorkerSpec) -> Process:
    """Start a fresh interpreter with a clean environment, a private folder and no file descriptors but its own.

    That is no sandbox: for tests, comparisons, and code that an operator trusts.

    Raises:
        SandboxUnavailable: not Linux, or a kernel without pidfds (5.3).
    """
    if sys.platform != "linux":
        raise SandboxUnavailable(
            f"plugins run in processes of their own on Linux only, and this is {sys.platform}",
            kind="SandboxUnavailable",
        )
    # In the loop's own thread: PDEATHSIG fires when the *thread* that made the child ends, and pool threads do.
    # vfork and exec take about a millisecond.
    try:
        return _start(f"eventcore-{spec.slug[:32]}-")
    except OSError as error:
        raise SandboxUnavailable(f"cannot start a worker process: {error}", kind="SandboxUnavailable") from error


def has_ended(pidfd: int) -> bool:
    """Whether the process is gone, or waits to be reaped."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _start(prefix: str) -> BareProcess:
    with ExitStack() as undo:
        folder = tempfile.mkdtemp(prefix=prefix)
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            read, write = os.pipe()
            undo.callback(os.close, read)
            try:
                child = _exec(theirs.fileno(), write, folder)
            finally:
                os.close(write)
        undo.callback(child.wait)
        undo.callback(child.kill)
        pidfd = os.pidfd_open(child.pid)
        ours.setblocking(False)
        os.set_blocking(read, False)
        undo.pop_all()
        return BareProcess(child, pidfd, ours, read, folder)


def _exec(channel: int, output: int, folder: str) -> subprocess.Popen[bytes]:
    # The real interpreter, not what a version manager put in its place: such a shim costs ten times as much.
    python = os.path.realpath(sys.executable)
    return subprocess.Popen(  # noqa: S603 - every word of it is ours
        [python, "-I", "-S", str(_BOOT), str(channel), str(os.getpid()), str(_ROOT)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(channel,),
        cwd=folder,
        env=clean_environment(folder),
        start_new_session=True,
    )


def clean_environment(folder: str) -> dict[str, str]:
    """The few variables that a worker has; none of them is the host's but its time zone."""
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder}
    if zone := os.environ.get("TZ"):
        env["TZ"] = zone
    return env


def host_paths() -> tuple[str, ...]:
    """The host's site-packages folders."""
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys(p for p in (paths["purelib"], paths["platlib"]) if os.path.isdir(p)))
