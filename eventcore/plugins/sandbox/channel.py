"""The host's side of the channel: bytes in, frames out, and a bounded backlog towards a worker that is busy."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

import anyio

from eventcore.plugins.sandbox.frames import FrameBuffer, FrameError, pack

_READ = 64 * 1024
#: Who sends a frame in many crumbs makes the host wake up for each. After so many in a row, shorter than this, the host
#: reads only once in a while: bytes, and seconds.
_CRUMBS, _CRUMB, _WHILE = 64, 4096, 0.001
#: Above so many unsent bytes new senders wait. A worker in a plain function does not read, so some backlog is normal.
HIGH_WATER = 4 * 1024 * 1024


class Channel:
    """One connected, non-blocking stream socket.

    Args:
        sock: the host's end; the caller closes it, after `run` has ended.
        on_frame: gets the body of each frame, in the loop, and must not block. Called outside any task, where anyio
            may set events, but cannot make them or start tasks.
        on_fault: told once, with a sentence, when the other side breaks the rules of the frames.
    """

    def __init__(self, sock: socket.socket, on_frame: Callable[[bytes], None], on_fault: Callable[[str], None]) -> None:
        self._sock = sock
        self._on_frame = on_frame
        self._on_fault = on_fault
        self._buffer = FrameBuffer()
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._unsent = anyio.Event()
        self._room = anyio.Event()
        self._ended = anyio.Event()
        self._crumbs = 0

    async def run(self) -> None:
        """Read and write until the other side is gone."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._flush)
            await self._read()
            tasks.cancel_scope.cancel()

    def send(self, body: bytes) -> bool:
        """Send a frame, or put it behind what is not sent yet.

        Returns:
            Whether somebody may read it: False if the other side is known to be gone.

        Raises:
            FrameError: it is longer than `MAX_FRAME`.
        """
        data = pack(body)
        sent = 0
        if not self._backlog:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                return False  # whoever watches the process says more
        if sent < len(data):
            self._backlog.append(memoryview(data)[sent:])
            self._backlog_bytes += len(data) - sent
            self._unsent.set()
        return True

    @property
    def full(self) -> bool:
        return self._backlog_bytes > HIGH_WATER

    async def room(self) -> None:
        """Wait until the backlog is below the mark, or the channel is at its end."""
        while self.full and not self._ended.is_set():
            if self._room.is_set():
                self._room = anyio.Event()
            await self._room.wait()

    def read_rest(self) -> None:
        """Take what still lies in the socket after the other side has ended: it may hold the last answers."""
        while self._readable():
            pass

    def end(self) -> None:
        """Let those who wait for room go; nothing will be sent any more."""
        self._ended.set()
        self._room.set()

    async def _read(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await self._read_anywhere()
            return
        # asyncio's own callback, kept registered, saves two epoll_ctl and a task switch a wake-up: a fifth of a call.
        ended = anyio.Event()
        fd = self._sock.fileno()
        again: list[asyncio.TimerHandle] = []

        def wake() -> None:
            if not self._readable(once=True):
                loop.remove_reader(fd)
                ended.set()
            elif self._crumbs > _CRUMBS:
                loop.remove_reader(fd)
                again[:] = [loop.call_later(_WHILE, loop.add_reader, fd, wake)]

        loop.add_reader(fd, wake)
        try:
            await ended.wait()
        finally:
            for timer in again:
                timer.cancel()
            loop.remove_reader(fd)

    async def _read_anywhere(self) -> None:
        while True:
            await anyio.wait_readable(self._sock)
            if not self._readable(once=True):
                return
            if self._crumbs > _CRUMBS:
                await anyio.sleep(_WHILE)

    def _readable(self, *, once: bool = False) -> bool:
        """Take what there is. False when nothing more will come (`once`), or when nothing more is there."""
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return once
        except OSError:
            return False
        if not data:
            return False
        try:
            bodies = self._buffer.feed(data)
            self._crumbs = 0 if bodies or len(data) >= _CRUMB else self._crumbs + 1
            for body in bodies:
                self._on_frame(body)
        except FrameError as error:
            self._on_fault(str(error))
            return False
        return True

    async def _flush(self) -> None:
        while True:
            await self._unsent.wait()
            while self._backlog:
                await anyio.wait_writable(self._sock)
                self._send_some()
            self._unsent = anyio.Event()

    def _send_some(self) -> None:
        chunk = self._backlog[0]
        try:
            sent = self._sock.send(chunk)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._backlog.clear()
            self._backlog_bytes = 0
            return
        self._backlog_bytes -= sent
        if sent < len(chunk):
            self._backlog[0] = chunk[sent:]
        else:
            self._backlog.popleft()
        if not self.full:
            self._room.set()
