"""Unix stream sockets under asyncio and trio.

anyio has them too, but its own (4.16) set the result of a future that may be cancelled: when a client hangs up in the
moment the server is cancelled, asyncio reports an `InvalidStateError` (the pattern of anyio issue #1267, at another
place). `anyio.wait_readable` does not, so this stands on it.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from types import TracebackType

import anyio
import anyio.lowlevel

#: What `receive` and `send` raise when the other side has gone or this one was closed.
STREAM_ENDED = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)

_RETRY_PAUSE = 0.01
_UCRED = struct.Struct("iII")  # pid, uid, gid


class UnixStream:
    """A connected socket. One task may read and another write at the same time.

    Args:
        connection: owned from here on.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection

    async def receive(self, max_bytes: int) -> bytes:
        """At least one byte. A cancelled call has taken nothing.

        Raises:
            EndOfStream: the other side has finished.
            BrokenResourceError: the connection is broken.
        """
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError as error:
                raise anyio.BrokenResourceError from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, data: bytes) -> None:
        """Send all of `data`. A cancelled call may have sent part of it: then nothing more can be sent.

        Raises:
            BrokenResourceError: the connection is broken.
        """
        await anyio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    def close(self) -> None:
        """Close it, at once; whoever waits on it gets `ClosedResourceError`."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()

    def is_of_operator(self) -> bool:
        """Whether the other side runs as this process's user or as root, by the word of the kernel (SO_PEERCRED).

        Where the system has no such option (macOS), the modes of folder and socket alone keep others out.
        """
        if not hasattr(socket, "SO_PEERCRED"):
            return True
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(raw)
        return uid in (os.geteuid(), 0)

    def __enter__(self) -> UnixStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def accept(listening: socket.socket) -> UnixStream:
    """The next connection of a non-blocking listening socket.

    Raises:
        OSError: it cannot be accepted; mostly no file descriptor is free.
    """
    await anyio.lowlevel.checkpoint()
    while True:
        try:
            return UnixStream(listening.accept()[0])
        except BlockingIOError:
            await anyio.wait_readable(listening)


async def connect(path: Path) -> UnixStream:
    """A connection to the socket at `path`. Waits, without end, while the listener's backlog is full.

    Raises:
        OSError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        while True:
            try:
                connection.connect(str(path))
            except BlockingIOError:
                # EAGAIN, connect(2): there is nothing to wait on until the backlog has room.
                await anyio.sleep(_RETRY_PAUSE)
            else:
                return UnixStream(connection)
    except BaseException:
        connection.close()
        raise
