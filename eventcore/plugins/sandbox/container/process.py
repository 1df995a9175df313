"""A worker in a container, seen from the host as any other `Process`."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.plugins.sandbox.container.errors import EngineRefused
from eventcore.plugins.sandbox.container.request import WORKSPACE

if TYPE_CHECKING:
    from eventcore.plugins.sandbox.container.engine import Attached, DockerEngine

#: Of a part of the engine's stream: which stream, and how many bytes follow.
_HEADER = struct.Struct(">BxxxI")
_STDOUT = 1
_PART = 65_536
#: How long what a container said last may take to arrive after its end. Seconds.
_LAST = 2.0
_RETRY = 0.5


class Demux:
    """Cuts the engine's stream into parts of (is it stdout, bytes), as they come."""

    def __init__(self) -> None:
        self._header = b""
        self._left, self._stdout = 0, False

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        found = []
        while data:
            if not self._left:
                need = _HEADER.size - len(self._header)
                self._header, data = self._header + data[:need], data[need:]
                if len(self._header) < _HEADER.size:
                    break
                kind, self._left = _HEADER.unpack(self._header)
                self._stdout, self._header = kind == _STDOUT, b""
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            found.append((self._stdout, part))
        return found


class ContainerProcess:
    """One container with one worker.

    Its streams come over a connection to the engine; `sock` and `output` are the near ends of a pair and a pipe, and
    `hold` carries between them.

    Args:
        stop_timeout: seconds between SIGTERM and SIGKILL when it is stopped.
        gone: told when it is closed.
    """

    #: What `load` is told in place of what is true on the host.
    inside: Mapping[str, Any] = {"dir": WORKSPACE, "paths": []}

    def __init__(
        self,
        engine: DockerEngine,
        container: str,
        stream: Attached,
        pid: int,
        stop_timeout: float,
        gone: Callable[[ContainerProcess], None],
    ) -> None:
        self.container, self.pid = container, pid
        self._engine, self._stream, self._stop_timeout, self._gone = engine, stream, stop_timeout, gone
        self.sock, self._far = socket.socketpair()
        self.output, self._written = os.pipe()
        for one in (self.sock, self._far):
            one.setblocking(False)
        for fd in (self.output, self._written):
            os.set_blocking(fd, False)
        self._code: int | None = None
        self._killed, self._heard = anyio.Event(), anyio.Event()

    async def hold(self) -> None:
        """Carry the streams until it is cancelled, or both are at their end."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._carry_in)
                await self._carry_out()
                tasks.cancel_scope.cancel()
        finally:
            self._end_of_words()  # and not before: a descriptor that is waited for must not be closed

    async def look_first(self) -> None:
        """Its engine holds its limits."""

    def kill(self) -> None:
        """SIGKILL, by the engine, from within `wait`."""
        self._killed.set()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after the time to stop."""
        if self._code is None:
            with suppress(SandboxUnavailable):
                await self._engine.stop(self.container, self._stop_timeout)

    def over(self) -> bool:
        """Whether its engine has told of its end."""
        return self._code is not None

    async def wait(self) -> int:
        """Wait for the end. Returns the exit code, or the negative number of the signal."""
        if self._code is None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._kill_when_told)
                code = await self._await_end()
                tasks.cancel_scope.cancel()
            with anyio.move_on_after(_LAST):
                await self._heard.wait()
            self._code = code
        return self._code

    async def close(self) -> None:
        """Remove the container if it is still there, and close what is open."""
        with suppress(SandboxUnavailable):  # removed already, as it should be; or the engine has gone away
            await self._engine.remove(self.container)
        await self._stream.close()
        self._end_of_words()
        self.sock.close()
        os.close(self.output)
        self._gone(self)

    async def stats(self) -> dict[str, Any]:
        """What the engine measures of it."""
        return await self._engine.stats(self.container)

    async def _await_end(self) -> int:
        while True:
            try:
                code = await self._engine.wait(self.container)
            except EngineRefused:
                await anyio.sleep(_RETRY)
                continue
            except SandboxUnavailable:
                # The engine has gone away. Its containers may run on; without a stream to us the worker ends by itself.
                return -signal.SIGKILL
            return -signal.SIGKILL if code is None else code if code <= 128 else 128 - code

    async def _kill_when_told(self) -> None:
        await self._killed.wait()
        with suppress(SandboxUnavailable):
            await self._engine.kill(self.container)

    async def _carry_in(self) -> None:
        while True:
            await anyio.wait_readable(self._far)
            try:
                data = self._far.recv(_PART)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            await self._stream.write(data)

    async def _carry_out(self) -> None:
        demux = Demux()
        while data := await self._stream.read():
            for stdout, part in demux.feed(data):
                await (self._to_channel(part) if stdout else self._to_output(part))

    async def _to_channel(self, part: bytes) -> None:
        view = memoryview(part)
        while view:
            try:
                view = view[self._far.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._far)
            except OSError:
                return  # the host has closed its end

    async def _to_output(self, part: bytes) -> None:
        view = memoryview(part)
        while view:
            try:
                view = view[os.write(self._written, view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._written)
            except OSError:
                return

    def _end_of_words(self) -> None:
        """Close the far ends, so that the near ones are at their end."""
        if not self._heard.is_set():
            self._heard.set()
            self._far.close()
            os.close(self._written)
