"""A confined worker as the host holds it: by pidfds of itself and of its keeper."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import anyio
from anyio import to_thread

from eventcore.plugins.sandbox import diskwatch, lockwatch
from eventcore.plugins.sandbox.kin import cpu_of_kin, kin_of
from eventcore.plugins.sandbox.launch import Broken, has_ended
from eventcore.plugins.sandbox.linux.cgroup import Group
from eventcore.plugins.sandbox.machine import unavailable
from eventcore.plugins.sandbox.nameless import Disks, nameless
from eventcore.plugins.sandbox.throttle import throttle, used_by

#: Bytes of the longest message of a zygote, a keeper or a worker on its way.
MAX_MESSAGE = 64 * 1024
#: How long a dead process may remain a zombie before we stop looking. Seconds.
_REAPED = 1.0


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
        *,
        programs: bool = False,
        file_bytes: int = 0,
    ) -> None:
        self.pid = 0
        self._disk = diskwatch.DiskWatch(quotas, self) if quotas else None
        self._share, self._worker, self._programs = share, -1, programs
        self._most_of_a_file = file_bytes
        #: Who wants it to stand still.
        self._stops: set[str] = set()
        self.sock, self.output = sock, output
        self._status, self._folder = status, folder
        self._pidfds: list[int] = []
        self._code: int | None = None
        self._gone = False
        self.group: Group | None = None
        for one in (sock, status):
            one.setblocking(False)
        os.set_blocking(output, False)

    async def note_folders(self) -> None:
        """Note what lies in its folders, before it is there."""
        if self._disk is not None:
            await self._disk.begin()

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
            data, fds, _, _ = socket.recv_fds(self._status, MAX_MESSAGE, 2)
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
        """Hold it to its share of a CPU, look how full its folders are, and how many locks it holds."""
        broken: list[Broken] = []

        async def look(limit: str, watch: Awaitable[str]) -> None:
            if text := await watch:
                broken.append(Broken(limit, text))
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            if self.group is None:
                tasks.start_soon(look, "locks", lockwatch.watch(self.pid, self.active_seconds))
            if self._share and self.group is None:
                tasks.start_soon(throttle, self, self._share)
            if self._disk is not None:
                tasks.start_soon(look, "disk", self._disk.run())
        return broken[0] if broken else None

    async def look_first(self) -> Broken | None:
        """Look at its folders, if it may have filled them since that was last done."""
        if self._disk is not None and (text := await self._disk.look_first()):
            return Broken("disk", text)
        return None

    async def stop(self) -> None:
        """Nothing but a kill: its plugin's `cleanup` has had its say."""

    def cpu_seconds(self) -> float | None:
        """CPU time of all its threads so far; None when it is gone."""
        return used_by(self.pid)

    def active_seconds(self) -> float | None:
        """CPU time of it and of the programs that it runs; changes when one of them ends, too. None when it is gone."""
        if not self.pid:
            return None
        return cpu_of_kin(self.pid) if self._programs else self.cpu_seconds()

    def nameless_bytes(self, disks: Disks) -> float:
        """What it and its programs keep in files without a name. Takes some system calls a descriptor."""
        if not self.pid:
            return 0.0
        pids = kin_of(self.pid) if self._programs else (self.pid,)
        return nameless(pids, disks, self._most_of_a_file)

    def pause(self, stopped: bool, why: str = "share") -> None:
        """Stop it, or let it go on once nobody wants it to stand still."""
        was = bool(self._stops)
        (self._stops.add if stopped else self._stops.discard)(why)
        if was != bool(self._stops):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._worker, signal.SIGCONT if was else signal.SIGSTOP)

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

    def over(self) -> bool:
        """Whether the worker is seen to have ended; its keeper and the zygote tell of that in their own time."""
        return has_ended(self._worker)

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
