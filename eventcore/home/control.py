"""The control socket of a running engine: the server, and the client for async programs.

The protocol is described in `eventcore.home.control_client`. Whoever may connect is the operator: the folder is for its
owner only (0700), so is the socket (0600), and the kernel tells the server who is at the other end (SO_PEERCRED, see
unix(7)); only the engine's own user and root are served.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from eventcore.home import control_client as wire
from eventcore.home.control_connection import Connection, FrameReader, Handler, Limits
from eventcore.home.control_socket import bind, remove
from eventcore.home.control_stream import STREAM_ENDED, UnixStream, accept, connect
from eventcore.home.lock import OwnerLock
from eventcore.home.remote_errors import remote_error
from eventcore.kernel.errors import InvalidPayload

_log = logging.getLogger("eventcore.home.control")

#: Seconds to wait after a connection could not be accepted.
_ACCEPT_PAUSE = 0.1


class ControlServer:
    """Serves requests on a unix socket until it is cancelled. Runs under asyncio and trio.

    ::

        async with anyio.create_task_group() as tasks:
            await tasks.start(ControlServer(home.socket, handler, lock=lock).run)

    Args:
        path: where the socket should be. A path too long for a socket address is replaced by a short one, see
            `address`.
        handler: does the work; what it raises goes to the client.
        lock: the home's lock, held. A socket file left by a killed engine is removed only under it, and the address is
            recorded in it. Without a lock, an existing file is an error.
        max_connections: connections served at once; more are told so and closed.
        max_requests: requests of one connection worked on at once.
        idle_timeout: seconds after which a connection without requests at work is closed.
        write_timeout: seconds a client may take to read what was sent before its connection is closed.
    """

    def __init__(
        self,
        path: Path,
        handler: Handler,
        *,
        lock: OwnerLock | None = None,
        max_connections: int = 64,
        max_requests: int = 32,
        idle_timeout: float = 300.0,
        write_timeout: float = 60.0,
    ) -> None:
        self.path = path
        self.handler = handler
        self._limits = Limits(max_requests, idle_timeout, write_timeout)
        self._lock = lock
        self._max_connections = max_connections
        self._connections = 0
        self._address: Path | None = None

    @property
    def address(self) -> Path | None:
        """Where the socket is; None while it is not open."""
        return self._address

    async def run(self, *, task_status: TaskStatus[Path] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the socket, report its address, and serve until cancelled.

        Raises:
            HomeError: the socket cannot be opened, or its file exists and the lock is not held.
        """
        bound = bind(self.path, replace=self._lock is not None and self._lock.held)
        try:
            if self._lock is not None:
                self._lock.record_socket(bound.path)
            self._address = bound.path
            async with anyio.create_task_group() as tasks:
                task_status.started(bound.path)
                await self._accept(bound.socket, tasks)
        finally:
            self._address = None
            bound.socket.close()
            remove(bound)

    async def _accept(self, listening: socket.socket, tasks: TaskGroup) -> None:
        while True:
            try:
                stream = await accept(listening)
            except OSError as error:
                # Mostly: no file descriptor is free. Those that run go on, and end some time.
                _log.warning("cannot accept a control connection: %s", error)
                await anyio.sleep(_ACCEPT_PAUSE)
            else:
                tasks.start_soon(self._serve, stream)

    async def _serve(self, stream: UnixStream) -> None:
        self._connections += 1
        try:
            with stream:
                connection = Connection(stream, self.handler, self._limits)
                if not stream.is_of_operator():
                    await connection.refuse("access_denied", "only the engine's own user and root may connect")
                elif self._connections > self._max_connections:
                    await connection.refuse("busy", f"{self._max_connections} connections are open; try again later")
                else:
                    await connection.run()
        except STREAM_ENDED:
            pass
        finally:
            self._connections -= 1


class ControlClient:
    """Asks a running engine, from an async program. Each call has a connection of its own.

    Args:
        path: the control socket; `control_client.socket_path` finds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    async def call(
        self,
        op: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float = wire.DEFAULT_TIMEOUT,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The result of `op`; items on the way are dropped. Cancelling the call cancels the operation.

        Args:
            timeout: seconds for all of it.

        Raises:
            EngineNotRunning: nothing listens there.
            InvalidPayload: the params are not JSON, or too large.
            RemoteError: the engine refused, the connection broke or the time is over; `code` tells which.
        """
        frame = wire.encode_request(1, op, params, context)
        try:
            with anyio.fail_after(timeout):
                with await self._ask(frame) as stream:
                    reader = FrameReader(stream)
                    while True:
                        answer = await _response(reader)
                        if "item" not in answer:
                            return wire.result_of(answer)
        except TimeoutError:
            raise wire.timed_out() from None

    async def stream(
        self,
        op: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The items of `op`. Use it with `contextlib.aclosing`: closing it cancels the operation.

        Args:
            timeout: seconds to wait for each item; None for ever.

        Raises:
            the errors of `call`.
        """
        frame = wire.encode_request(1, op, params, context)
        try:
            with anyio.fail_after(wire.DEFAULT_TIMEOUT):
                connection = await self._ask(frame)
        except TimeoutError:
            raise wire.timed_out() from None
        with connection:
            reader = FrameReader(connection)
            while True:
                try:
                    # Around the waiting only: a generator must not be inside a cancel scope while it yields.
                    with anyio.fail_after(timeout):
                        answer = await _response(reader)
                except TimeoutError:
                    raise wire.timed_out() from None
                if "item" not in answer:
                    wire.result_of(answer)
                    return
                yield answer["item"]

    async def _ask(self, frame: bytes) -> UnixStream:
        """An open connection on which `frame` was sent."""
        try:
            stream = await connect(self.path)
        except OSError:
            raise wire.not_running(self.path) from None
        try:
            await stream.send(frame)
        except anyio.BrokenResourceError:
            # The engine may have answered before it hung up (too many connections); that answer says more than we can.
            pass
        except BaseException:
            stream.close()
            raise
        return stream


async def _response(reader: FrameReader) -> dict[str, Any]:
    try:
        return wire.decode_response(await reader.frame(wire.MAX_RESPONSE))
    except InvalidPayload as error:
        raise remote_error({"code": "protocol_error", "message": error.message}) from None
    except STREAM_ENDED:
        raise wire.connection_lost() from None
