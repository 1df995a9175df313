"""One connection of the control socket, on the engine's side; the protocol is in `control_client`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from eventcore.home import control_client as wire
from eventcore.home.control_stream import STREAM_ENDED, UnixStream
from eventcore.kernel.errors import EventCoreError, InvalidInput, InvalidPayload
from eventcore.kernel.json import decode, encode

#: Sends one item of a stream; waits while the client does not read.
SendItem: TypeAlias = Callable[[Any], Awaitable[None]]
#: Does what a request asks: (op, params, send_item) -> result. `params["context"]` is the request's context, if any.
Handler: TypeAlias = Callable[[str, dict[str, Any], SendItem], Awaitable[Any]]

_log = logging.getLogger("eventcore.home.control")

_KEYS = frozenset({"id", "op", "params", "context"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a connection; see `ControlServer`."""

    requests: int = 32
    idle: float = 300.0
    write: float = 60.0


class Connection:
    """One client: reads requests, works on several at once, and writes answers one after the other."""

    def __init__(self, stream: UnixStream, handler: Handler, limits: Limits) -> None:
        self._stream = stream
        self._handler = handler
        self._limits = limits
        self._reader = FrameReader(stream)
        self._at_work: set[str | int] = set()

    async def run(self) -> None:
        """Serve until the client has gone, was idle too long, does not read, or breaks the protocol."""
        # No buffer: a stream that the client does not read holds one frame, and its handler waits.
        self._out, frames = anyio.create_memory_object_stream[bytes](0)
        async with frames, anyio.create_task_group() as tasks, self._out:
            # The writer has a task of its own, so that a handler cancelled in `send_item` leaves no half frame.
            tasks.start_soon(self._write, frames, tasks.cancel_scope)
            try:
                await self._read()
            except InvalidInput as error:
                # Where the next frame would begin is not known any more: say why, and let the writer finish.
                await self._answer(_failure(None, error.as_dict()))
            else:
                tasks.cancel_scope.cancel()

    async def refuse(self, code: str, message: str) -> None:
        """Tell the client why it is not served."""
        with anyio.move_on_after(self._limits.write):
            await self._stream.send(_frame(_failure(None, {"code": code, "message": message})))

    async def _read(self) -> None:
        # What is at work ends with the reading, in whatever way that ends.
        async with _cancelled_at_end() as tasks:
            while (raw := await self._next_request()) is not None:
                await self._take(raw, tasks)

    async def _next_request(self) -> bytes | None:
        """The next frame's body; None when the client has gone or was idle too long."""
        while True:
            try:
                with anyio.fail_after(self._limits.idle):
                    return await self._reader.frame(wire.MAX_REQUEST)
            except TimeoutError:
                if not self._at_work:
                    return None
            except STREAM_ENDED:
                return None

    async def _take(self, raw: bytes, tasks: TaskGroup) -> None:
        number: str | int | None = None
        try:
            body = decode(raw, what="the request")
            number = _id_of(body)
            op, params = _parts_of(body)
            if number in self._at_work:
                raise InvalidInput(f"a request with the id {number!r} is at work already")
            if len(self._at_work) >= self._limits.requests:
                await self._answer(_failure(number, _busy(self._limits.requests)))
                return
        except InvalidInput as error:
            await self._answer(_failure(number, error.as_dict()))
            return
        self._at_work.add(number)
        tasks.start_soon(self._work, number, op, params)

    async def _work(self, number: str | int, op: str, params: dict[str, Any]) -> None:
        async def send_item(item: Any) -> None:
            await self._answer({"id": number, "item": item}, strict=True)

        try:
            result = await self._handler(op, params, send_item)
            answer = {"id": number, "ok": True, "result": result}
        except EventCoreError as error:
            answer = _failure(number, error.as_dict())
        except Exception as error:  # noqa: BLE001 - one client's request must not end the others'
            _log.exception("the control operation %r failed", op)
            answer = _failure(number, {"code": "internal_error", "message": f"{type(error).__name__}: {error}"})
        # Before the answer is out, so that a client which has read it may use the id again.
        self._at_work.discard(number)
        await self._answer(answer)

    async def _answer(self, body: dict[str, Any], *, strict: bool = False) -> None:
        try:
            frame = _frame(body)
        except InvalidPayload as error:
            if strict:
                raise
            frame = _frame(_failure(body["id"], error.as_dict()))
        await self._out.send(frame)

    async def _write(self, frames: MemoryObjectReceiveStream[bytes], connection: anyio.CancelScope) -> None:
        async for frame in frames:
            try:
                with anyio.fail_after(self._limits.write):
                    await self._stream.send(frame)
            except (TimeoutError, *STREAM_ENDED):
                connection.cancel()
                return


@asynccontextmanager
async def _cancelled_at_end() -> AsyncGenerator[TaskGroup, None]:
    """A task group that does not wait for its tasks; an error of the block comes out as it is, in no group."""
    problem: InvalidInput | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except InvalidInput as error:
            problem = error
        tasks.cancel_scope.cancel()
    if problem is not None:
        raise problem


def _id_of(body: Any) -> str | int:
    number = body.get("id") if isinstance(body, dict) else None
    if not isinstance(number, str | int) or isinstance(number, bool):
        raise InvalidInput("a request is an object with an id (text or integer)")
    return number


def _parts_of(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    op, params, context = body.get("op"), body.get("params", {}), body.get("context")
    if not isinstance(op, str) or not op:
        raise InvalidInput("the request has no op")
    if not isinstance(params, dict) or not isinstance(context, dict | None):
        raise InvalidInput("the request's params and context must be objects")
    if unknown := body.keys() - _KEYS:
        raise InvalidInput(f"the request has unknown keys: {sorted(unknown)}")
    return op, ({**params, "context": context} if context else params)


def _failure(number: str | int | None, error: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "ok": False, "error": error}


def _busy(limit: int) -> dict[str, Any]:
    return {"code": "busy", "message": f"{limit} requests of this connection are at work; wait for one of them"}


def _frame(body: dict[str, Any]) -> bytes:
    raw = encode(body, limit=wire.MAX_RESPONSE, what="the answer")
    return wire.HEADER.pack(len(raw)) + raw


class FrameReader:
    """Frames from a stream. A read that is cancelled loses nothing: what has come stays here."""

    def __init__(self, stream: UnixStream) -> None:
        self._stream = stream
        self._data = bytearray()

    async def frame(self, limit: int) -> bytes:
        """The body of the next frame.

        Raises:
            InvalidPayload: it is longer than `limit` bytes.
            EndOfStream: the other side has gone.
        """
        await self._fill(wire.HEADER.size)
        size: int = wire.HEADER.unpack_from(self._data)[0]
        if size > limit:
            raise InvalidPayload(f"the frame is {size:,} bytes; the limit is {limit:,}")
        end = wire.HEADER.size + size
        await self._fill(end)
        body = bytes(self._data[wire.HEADER.size : end])
        del self._data[:end]
        return body

    async def _fill(self, size: int) -> None:
        while len(self._data) < size:
            self._data += await self._stream.receive(max(65_536, min(size - len(self._data), 1 << 20)))
