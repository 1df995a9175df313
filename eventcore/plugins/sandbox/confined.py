"""The default launcher: workers forked from a zygote and confined before they load a line of their plugin.

One `Sandbox` belongs to one engine and to its event loop. It starts a zygote at the first worker, probes with it what
this machine enforces, and starts another one if it dies. Plugins with an interpreter of their own have a zygote each.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
from anyio import to_thread

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.plugins.sandbox import diskwatch
from eventcore.plugins.sandbox.grouping import Grouping
from eventcore.plugins.sandbox.launch import Broken, Process, clean_environment
from eventcore.plugins.sandbox.linux.cgroup import Group
from eventcore.plugins.sandbox.planning import make_plan
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.sandbox.throttle import throttle

_log = logging.getLogger(__name__)
_BOOT = Path(__file__).parent / "zygote" / "boot.py"
_ROOT = Path(__file__).resolve().parents[3]
#: How long a zygote may take to come up, and how long to fork a worker. Seconds.
_UP, _FORK = 30.0, 10.0
_MESSAGE = 64 * 1024
_MIB = 1 << 20
#: How long a dead process may remain a zombie before we stop looking. Seconds.
_REAPED = 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What was proven on this machine.

    Attributes:
        namespaces: whether workers get namespaces, and with them a view of their own.
        means: the rows of `probe.probe`, and the one of control groups.
        groups: whether control groups hold workers to their limits.
    """

    namespaces: bool
    means: tuple[dict[str, Any], ...]
    groups: bool = False

    @property
    def level(self) -> str:
        """`full`, `reduced` (no namespaces) or `none`."""
        if self.missing():
            return "none"
        return "full" if self.namespaces else "reduced"

    @property
    def abi(self) -> int:
        """The Landlock ABI; 0 where there is none."""
        detail = str(self.row("landlock")["detail"])
        return int(detail.removeprefix("ABI ")) if detail.startswith("ABI ") and self.row("landlock")["works"] else 0

    def row(self, name: str) -> dict[str, Any]:
        """One means."""
        return next(row for row in self.means if row["name"] == name)

    def missing(self, *needed: str) -> list[dict[str, Any]]:
        """What is needed (`always`, and those) and does not work."""
        return [row for row in self.means if row["needed"] in ("always", *needed) and not row["works"]]

    def check(self, spec: WorkerSpec) -> None:
        """Refuse a worker that this machine cannot confine as it must be.

        Raises:
            SandboxUnavailable: naming what is missing, the errno, and what to do.
        """
        lacks = self.missing()
        allow = spec.allow
        if allow.full or allow.programs:
            lacks += [row for row in self.means if row["needed"] == "full" and not row["works"]]
            if not lacks and not self.namespaces:
                raise unavailable(spec.slug, "namespaces", "", "they are switched off", "sandbox.namespaces = true")
        if allow.ports and not self.row("landlock tcp")["works"]:
            lacks.append(self.row("landlock tcp"))
        if lacks:
            first = lacks[0]
            raise unavailable(spec.slug, first["name"], first["errno"], first["detail"], first["remedy"])


def unavailable(slug: str, means: str, number: str, detail: str, remedy: str) -> SandboxUnavailable:
    """The error that refuses a plugin."""
    why = f"{number}: {detail}" if number else detail
    return SandboxUnavailable(
        f"{slug} is not run: the sandbox needs {means}, which does not work here ({why})",
        kind="SandboxUnavailable",
        hint=f"needed: {remedy}; `eventcore sandbox check` shows all",
        means=means,
        errno=number,
    )


@dataclass(slots=True)
class _Zygote:
    """A running zygote, seen from the host."""

    child: subprocess.Popen[bytes]
    sock: socket.socket
    folder: str
    machine: Machine

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def end(self) -> None:
        """Kill it, and with it all of its workers that are left."""
        self.sock.close()
        self.child.kill()
        self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sandbox:
    """Starts confined workers. Use it as the launcher of a `Supervisor`, and `close` it after that.

    Args:
        namespaces: whether to use namespaces where they work.
        groups: whether to use control groups where they are proven to work.
    """

    def __init__(self, *, namespaces: bool = True, groups: bool = True) -> None:
        self._namespaces = namespaces
        self._grouping = Grouping(groups)
        self._zygotes: dict[str, _Zygote] = {}
        self._lock = anyio.Lock()

    async def __call__(self, spec: WorkerSpec) -> Process:
        """Start a worker.

        Raises:
            SandboxUnavailable: this machine cannot confine it as it must be; not a line of the plugin has run.
        """
        with _as_unavailable(f"a worker of {spec.slug}"):
            zygote = await self._zygote(spec.python)
            zygote.machine.check(spec)
            return await _fork(zygote, spec, self._grouping)

    async def program(self, spec: WorkerSpec, command: tuple[str, ...], env: Mapping[str, str]) -> Process:
        """Start a program in place of a worker, confined as the plugin is: `sock` is its standard input and output,
        `output` its standard error.

        Args:
            spec: whose; `allow.programs` are what the kernel lets run.
            command: the program's absolute path, and its arguments.
            env: variables besides the few that workers have.

        Raises:
            SandboxUnavailable: this machine cannot confine it; programs need a pid namespace.
        """
        with _as_unavailable(f"a program of {spec.slug}"):
            zygote = await self._zygote(None)
            zygote.machine.check(spec)
            return await _fork(zygote, spec, self._grouping, command, env)

    async def machine(self) -> Machine:
        """What this machine enforces; probed once, when the first zygote starts.

        Raises:
            SandboxUnavailable: not Linux, or no zygote can be started.
        """
        with _as_unavailable("the zygote"):
            return (await self._zygote(None)).machine

    def close(self) -> None:
        """End the zygotes, and with them any worker that is left."""
        for zygote in self._zygotes.values():
            zygote.end()
        self._zygotes.clear()
        self._grouping.close()

    async def _zygote(self, python: str | None) -> _Zygote:
        # The real interpreter, not what a version manager put in its place: such a shim costs ten times as much.
        name = os.path.realpath(python or sys.executable)  # noqa: ASYNC240 - a few look-ups, in memory
        async with self._lock:
            found = self._zygotes.get(name)
            if found is not None and not found.alive:
                _log.error("the zygote of %s ended with %s; another one is started", name, found.child.returncode)
                self._zygotes.pop(name).end()
                found = None
            if found is None:
                found = self._zygotes[name] = await _start(name, "auto" if self._namespaces else "always")
                row = await self._grouping.row()
                found.machine = replace(found.machine, means=(*found.machine.means, row), groups=row["works"])
            return found


@contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    if sys.platform != "linux":
        raise SandboxUnavailable(
            f"plugins run in processes of their own on Linux only, and this is {sys.platform}",
            kind="SandboxUnavailable",
        )
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise SandboxUnavailable(f"cannot start {what}: {error!r}", kind="SandboxUnavailable") from error


async def _start(python: str, reduced: str) -> _Zygote:
    folder = tempfile.mkdtemp(prefix="eventcore-zygote-")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    child: subprocess.Popen[bytes] | None = None
    try:
        with theirs:
            # In the loop's own thread: the parent-death signal comes when the *thread* that made the child ends.
            child = subprocess.Popen(  # noqa: S603, ASYNC220 - every word of it is ours; it takes a millisecond
                [python, "-I", "-S", str(_BOOT), str(theirs.fileno()), str(os.getpid()), str(_ROOT), folder, reduced],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                # Each arena of malloc takes 64 MiB of address space, which the memory limit counts.
                env={**clean_environment(folder), "MALLOC_ARENA_MAX": "2"},
                start_new_session=True,
            )
        with anyio.fail_after(_UP):
            await anyio.wait_readable(ours)
        said = json.loads(ours.recv(_MESSAGE) or b"{}")
        if "up" not in said:
            step, number, text = said.get("failed") or ("zygote", child.poll(), "it ended at once")
            raise OSError(number, f"{step}: {text}")
        return _Zygote(child, ours, folder, Machine(said["namespaces"], tuple(said["means"])))
    except BaseException:
        ours.close()
        if child is not None:
            child.kill()
            child.wait()
        shutil.rmtree(folder, ignore_errors=True)
        raise


async def _fork(
    zygote: _Zygote,
    spec: WorkerSpec,
    grouping: Grouping,
    command: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> ConfinedProcess:
    machine, private = zygote.machine, ""
    if not machine.namespaces:
        private = tempfile.mkdtemp(prefix=f"eventcore-{spec.slug[:32]}-")
    plan = make_plan(spec, namespaces=machine.namespaces, abi=machine.abi, folder=private, command=command, env=env)
    if private and plan.uid is not None:
        os.chown(private, plan.uid, plan.uid)
    sock, channel = socket.socketpair()
    status, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output, written = os.pipe()
    process = ConfinedProcess(sock, output, status, private, spec.allow.cpu_percent / 100, _quotas(spec, private))
    try:
        with channel, told:
            try:
                data = json.dumps(plan.as_dict()).encode()
                socket.send_fds(zygote.sock, [data], [channel.fileno(), written, told.fileno()])
            finally:
                os.close(written)
        with anyio.fail_after(_FORK):
            await process.begun(spec.slug)
        process.group = grouping.join(spec, (process.pid,))
    except BaseException:
        with anyio.CancelScope(shield=True):
            process.kill()
            await process.close()
        raise
    return process


def _quotas(spec: WorkerSpec, private: str) -> list[diskwatch.Quota]:
    """What has to be looked at: the private folder of a view is a file system with a size of its own."""
    allow = spec.allow
    found = [diskwatch.Quota(path, int(allow.data_mb * _MIB)) for path in allow.write if allow.data_mb]
    return found + ([diskwatch.Quota(private, int(allow.disk_mb * _MIB))] if private else [])


class ConfinedProcess:
    """A confined worker: its keeper and itself, both held by pidfds."""

    inside: Mapping[str, Any] = MappingProxyType({})
    #: What its plugin tries is refused by the kernel, so that it can be told as refused.
    confined = True

    def __init__(
        self,
        sock: socket.socket,
        output: int,
        status: socket.socket,
        folder: str,
        share: float = 0.0,
        quotas: Sequence[diskwatch.Quota] = (),
    ) -> None:
        self.pid = 0
        self._quotas = quotas
        self._share, self._worker, self._stopped = share, -1, False
        self.sock, self.output = sock, output
        self._status, self._folder = status, folder
        self._pidfds: list[int] = []
        self._code: int | None = None
        self._gone = False
        self.group: Group | None = None
        for one in (sock, status):
            one.setblocking(False)
        os.set_blocking(output, False)

    async def begun(self, slug: str) -> None:
        """Wait until it is confined.

        Raises:
            SandboxUnavailable: a step could not be taken.
        """
        ready = False
        while not (ready and self.pid):  # worker and keeper speak in any order
            await anyio.wait_readable(self._status)
            said = self._hear()
            if said is None:
                raise unavailable(slug, "a worker", "", "it ended while it was confined", "look into the engine's log")
            if "failed" in said:
                step, number, text = said["failed"]
                raise unavailable(slug, step, str(number or ""), text, "see the message")
            ready = ready or "ready" in said

    def _hear(self) -> dict[str, Any] | None:
        """The next message of zygote, keeper or worker; None at the end."""
        try:
            data, fds, _, _ = socket.recv_fds(self._status, _MESSAGE, 2)
        except BlockingIOError:
            return {}
        except OSError:
            return None
        self._pidfds += fds
        if not data:
            return None
        said: dict[str, Any] = json.loads(data)
        if "worker" in said and fds:
            self.pid, self._worker = _pid_of(fds[0]), fds[0]
        self._code = said.get("exited", self._code)
        return said

    async def hold(self) -> Broken | None:
        """Hold it to its share of a CPU, and look how full its folders are."""
        async with anyio.create_task_group() as tasks:
            if self._share and self.group is None:
                tasks.start_soon(throttle, self, self._share)
            text = await diskwatch.watch(self._quotas, self.cpu_seconds) if self._quotas else ""
        return Broken("disk", text) if text else None

    async def stop(self) -> None:
        """Nothing but a kill: its plugin's `cleanup` has had its say."""

    def cpu_seconds(self) -> float | None:
        """CPU time of all its threads so far; None when it is gone."""
        try:
            return time.clock_gettime((~self.pid) << 3 | 2)  # what clock_getcpuclockid(3) returns
        except OSError:
            return None

    def pause(self, stopped: bool) -> None:
        """Stop it, or let it go on."""
        if stopped != self._stopped:
            self._stopped = stopped
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._worker, signal.SIGSTOP if stopped else signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the keeper, which takes its whole namespace along, and to the worker."""
        for pidfd in self._pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if self.group is not None:
            self.group.kill()

    async def wait(self) -> int:
        """Wait for the end of both. Returns the worker's exit code, or the negative number of the signal."""
        while not self._gone:
            await anyio.wait_readable(self._status)
            while (said := self._hear()) is not None:
                if not said:
                    break
            self._gone = said is None
        for pidfd in self._pidfds:
            await anyio.wait_readable(pidfd)
        with anyio.move_on_after(_REAPED):
            # The zygote reaps them in a moment, and nothing tells when.
            while any(_pid_of(pidfd) > 0 for pidfd in self._pidfds):  # noqa: ASYNC110
                await anyio.sleep(0.001)
        return -signal.SIGKILL if self._code is None else self._code

    async def close(self) -> None:
        """Close what is open, and remove the private folder where there is one."""
        self.sock.close()
        self._status.close()
        os.close(self.output)
        for pidfd in self._pidfds:
            os.close(pidfd)
        self._pidfds.clear()
        if self.group is not None:
            await to_thread.run_sync(self.group.remove)
        if self._folder:
            await to_thread.run_sync(diskwatch.remove, self._folder)


def _pid_of(pidfd: int) -> int:
    """The process's id in our own pid namespace; -1 once it is reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1
