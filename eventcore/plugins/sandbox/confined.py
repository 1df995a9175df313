"""The default launcher: workers forked from a zygote and confined before they load a line of their plugin.

One `Sandbox` belongs to one engine and to its event loop. It starts a zygote at the first worker, probes with it what
this machine enforces, and starts another one if it dies. Plugins with an interpreter of their own have a zygote each.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.plugins.sandbox import diskwatch
from eventcore.plugins.sandbox.confined_process import MAX_MESSAGE, ConfinedProcess
from eventcore.plugins.sandbox.grouping import Grouping
from eventcore.plugins.sandbox.launch import Process, clean_environment
from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.places import Places
from eventcore.plugins.sandbox.planning import make_plan
from eventcore.plugins.sandbox.spec import WorkerSpec

_log = logging.getLogger(__name__)
_BOOT = Path(__file__).parent / "zygote" / "boot.py"
_ROOT = Path(__file__).resolve().parents[3]
#: How long a zygote may take to come up, and how long to fork a worker. Seconds.
_UP, _FORK = 30.0, 10.0
_MIB = 1 << 20


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
        self._places = Places()
        self._lock = anyio.Lock()

    async def __call__(self, spec: WorkerSpec) -> Process:
        """Start a worker.

        Raises:
            SandboxUnavailable: this machine cannot confine it as it must be; not a line of the plugin has run.
        """
        with _as_unavailable(f"a worker of {spec.slug}"):
            zygote = await self._zygote(spec.python)
            zygote.machine.check(spec)
            return await _fork(zygote, spec, self._places, self._grouping)

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
            return await _fork(zygote, spec, self._places, self._grouping, command, env)

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
        self._places.close()

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
                found = self._zygotes[name] = await _start(
                    name, self._places.make("zygote"), "auto" if self._namespaces else "always"
                )
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


async def _start(python: str, folder: str, reduced: str) -> _Zygote:
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
        said = json.loads(ours.recv(MAX_MESSAGE) or b"{}")
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
    places: Places,
    grouping: Grouping,
    command: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> ConfinedProcess:
    machine, private = zygote.machine, ""
    if not machine.namespaces:
        private = places.make(spec.slug)
    plan = make_plan(spec, namespaces=machine.namespaces, abi=machine.abi, folder=private, command=command, env=env)
    if private and plan.uid is not None:
        os.chown(private, plan.uid, plan.uid)
    sock, channel = socket.socketpair()
    status, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output, written = os.pipe()
    process = ConfinedProcess(
        *(sock, output, status, private, spec.allow.cpu_percent / 100, _quotas(spec, private)),
        programs=bool(plan.programs),
        file_bytes=plan.disk,
    )
    try:
        with channel, told:
            try:
                await process.note_folders()
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
