"""The worker's side of the channel.

The socket is blocking for what is sent (the host always reads) and is read from the loop. A plain function that asks
its host something reads the socket itself until its answer is there; calls that come meanwhile wait in the inbox.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol, TypeAlias

from eventcore.plugins.sandbox.frames import MAX_FRAME, FrameBuffer, NotJSON, encode, pack
from eventcore.sdk import Answer, NoResponder, PermissionDenied, PluginError

#: Together below frames.MAX_REQUESTS, with one more for a plain function's own request; and so are, with such a one and
#: with log lines, the bytes below frames.MAX_REQUEST_BYTES, because one alone may be as long as a frame.
_MOST_ASKED = 40
_MOST_TOLD = 16
_MOST_ASKED_BYTES = 3 << 18
_READ = 64 * 1024
_MOST_BYTES = MAX_FRAME - 64  # room for the id

#: The host's frames need no strictness: it is the one that has to be trusted, and it writes them with a strict encoder.
_scan = json.JSONDecoder().raw_decode

Future: TypeAlias = "asyncio.Future[Any]"


class Asker(Protocol):
    """The call on whose behalf a request is made."""

    id: int
    blocking: bool
    waiting: set[Future]


class HostChannel:
    """Sends frames to the host and sorts what comes back."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._sock = sock
        self._loop = loop
        self._thread = threading.get_ident()
        self._buffer = FrameBuffer()
        self._rids = count(1)
        self._asked: dict[int, tuple[Future, int]] = {}
        self._asked_bytes = 0
        self._told: set[int] = set()
        self._unsent: deque[tuple[bytes, Future]] = deque()
        self._inbox: deque[dict[str, Any]] = deque()
        self._busy = False
        self._handle: Callable[[dict[str, Any]], bool] = lambda frame: False
        self._plain: Callable[[], bool] = lambda: False

    def start(self, handle: Callable[[dict[str, Any]], bool], plain: Callable[[], bool]) -> None:
        """Read from now on.

        Args:
            handle: gets each call, and says whether it has run code of the plugin.
            plain: whether nothing needs the loop, so that calls can be waited for without it.
        """
        self._handle, self._plain = handle, plain
        self._loop.add_reader(self._sock, self._readable)

    # Reading

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        self._take(data)
        self._work()

    def _read_blocking(self) -> None:
        self._take(self._sock.recv(_READ))

    def _take(self, data: bytes) -> None:
        if not data:
            os._exit(0)  # the host is gone; nobody is left to tell, and plugin code has no say in it
        for body in self._buffer.feed(data):
            frame, _ = _scan(body.decode())
            if "rid" in frame:
                self._answered(frame)
            else:
                self._inbox.append(frame)

    def _work(self) -> None:
        """Handle what is in the inbox, and wait for more where nothing needs the loop: a turn of it costs as much as a
        short call. After a call of a plain function async handlers, if there are any, have their turn."""
        if self._busy:
            return
        self._busy = True
        try:
            self._handle_some()
            while self._plain():
                if not self._inbox:
                    self._read_blocking()
                self._handle_some()
        finally:
            self._busy = False
            if self._inbox:
                self._loop.call_soon(self._work)

    def _handle_some(self) -> None:
        """The calls of the inbox, up to one of a plain function."""
        while self._inbox:
            if self._handle(self._inbox.popleft()):
                break

    def _answered(self, frame: dict[str, Any]) -> None:
        rid = frame["rid"]
        if rid in self._told:
            self._told.discard(rid)
            return
        future, size = self._asked.pop(rid)
        self._asked_bytes -= size
        if not future.cancelled():
            if frame["ok"]:
                future.set_result(frame["result"])
            else:
                future.set_exception(as_exception(frame["error"]))
        while self._unsent and self._has_room(self._unsent[0][0]):
            self._ask(*self._unsent.popleft())

    def _has_room(self, request: bytes) -> bool:
        if len(self._asked) >= _MOST_ASKED:
            return False
        return not self._asked or self._asked_bytes + len(request) <= _MOST_ASKED_BYTES

    def _ask(self, request: bytes, future: Future) -> None:
        self._asked[self._send(request)] = future, len(request)
        self._asked_bytes += len(request)

    # Sending

    def reply(self, body: bytes) -> None:
        """Send the answer to a call; `body` is within the limit."""
        self._sock.sendall(pack(body))

    def ask(self, call: Asker, method: str, params: dict[str, Any]) -> Answer[Any]:
        """Send a request; for a plain function also wait for the answer.

        Raises:
            PluginError: the parameters are not JSON or too large, or this is another thread. In a plain function
                also what the host answered, if that is an error.
        """
        request = self._encoded(call.id, method, params)
        future: Future = self._loop.create_future()
        if call.blocking:
            self._ask(request, future)
            while not future.done():
                self._read_blocking()
            return Answer(future.result())
        call.waiting.add(future)
        future.add_done_callback(call.waiting.discard)
        if self._unsent or not self._has_room(request):
            self._unsent.append((request, future))
        else:
            self._ask(request, future)
        return Answer(pending=future)

    def tell(self, call_id: int, params: dict[str, Any]) -> None:
        """Send a log line. Its answer is read and dropped; too many open ones make the teller wait."""
        request = self._encoded(call_id, "log", params)
        while len(self._told) >= _MOST_TOLD:
            self._read_blocking()
        self._told.add(self._send(request))

    def _encoded(self, call_id: int, method: str, params: dict[str, Any]) -> bytes:
        """A request but for its id, which it gets when it is sent: ids rise in the order of sending."""
        if threading.get_ident() != self._thread:
            raise PluginError("ctx is used in another thread; use it in the handler itself")
        try:
            body = b'"call":%d,"method":%s,"params":%s}' % (call_id, encode(method), encode(params))
        except NotJSON as error:
            raise PluginError(f"ctx {method}: {error}", code="invalid_payload") from None
        if len(body) > _MOST_BYTES:
            raise PluginError(
                f"ctx {method}: {len(body):,} bytes; the limit is {_MOST_BYTES:,}", code="invalid_payload"
            )
        return body

    def _send(self, request: bytes) -> int:
        rid = next(self._rids)
        self._sock.sendall(pack(b'{"rid":%d,' % rid + request))
        return rid


def as_exception(error: dict[str, Any]) -> PluginError:
    for kind in (PermissionDenied, NoResponder):
        if error["code"] == kind.code:
            return kind(error["message"])
    return PluginError(error["message"], code=error["code"])
