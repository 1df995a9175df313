"""Requests that a worker makes of the host: the rules they keep to, and their answers."""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

import anyio

from eventcore.kernel.errors import EventCoreError, PermissionDenied
from eventcore.kernel.json import encode
from eventcore.kernel.ports import HostApi
from eventcore.plugins.sandbox.frames import MAX_FRAME, MAX_REQUEST_BYTES, MAX_REQUESTS, FrameError
from eventcore.plugins.sandbox.reports import clean

#: Set when the request before has begun, and to be set when this one has.
Turn: TypeAlias = tuple[anyio.Event, anyio.Event]

_log = logging.getLogger(__name__)


class Requests:
    """The requests of one worker.

    Args:
        slug: the plugin, for messages.
        rate: so many a second; what comes faster is answered later.
    """

    def __init__(self, slug: str, rate: float) -> None:
        self._slug = slug
        self._last = 0
        self._open = self._bytes = 0
        self._rate = self._tokens = rate
        self._at = 0.0
        self._begun = anyio.Event()
        self._begun.set()

    def admit(self, rid: int, size: int) -> None:
        """Count a request in.

        Args:
            size: its bytes.

        Raises:
            FrameError: its id is not above the last one, so it may be a replay; or too many, or too much, is open.
        """
        if not self._last < rid < 2**53:
            raise FrameError(f"it used the request id {rid} after {self._last}; ids must rise")
        if self._open >= MAX_REQUESTS:
            raise FrameError(f"it has more than {MAX_REQUESTS} requests in flight")
        if self._bytes + size > MAX_REQUEST_BYTES:
            raise FrameError(f"its requests in flight have more than {MAX_REQUEST_BYTES:,} bytes")
        self._last = rid
        self._open += 1
        self._bytes += size

    def turn(self) -> Turn:
        """The next admitted request's place in the row, for `answer`."""
        before, self._begun = self._begun, anyio.Event()
        return before, self._begun

    async def answer(self, turn: Turn, host: HostApi | None, frame: dict[str, Any]) -> bytes:
        """The frame that answers an admitted request. Errors become part of it. `done` follows.

        Requests run side by side, but begin in the order in which the plugin made them, whatever order the event loop
        starts tasks in (trio's is random): two emits in a row must not be swapped.
        """
        rid, method, params = frame["rid"], frame["method"], frame["params"]
        before, begun = turn
        try:
            await before.wait()
            if delay := self._delay():
                await anyio.sleep(delay)
            begun.set()  # nobody runs before the host's first await
            if host is None:
                return self._without_host(rid, method, params)
            result = await host(method, params)
            return encode({"rid": rid, "ok": True, "result": result}, limit=MAX_FRAME, what=f"the answer to {method}")
        except EventCoreError as error:
            return _refusal(rid, error.code, str(error))
        except Exception:  # noqa: BLE001 - a fault of the host must neither kill the worker nor show it the message
            _log.exception("the host failed on %s of %s", clean(method, 64), self._slug)
            return _refusal(rid, "internal_error", f"the host failed on {method}")
        finally:
            begun.set()

    def done(self, size: int) -> None:
        """An answer is on its way, in bounded room: its request counts no more."""
        self._open -= 1
        self._bytes -= size

    def _without_host(self, rid: int, method: str, params: dict[str, Any]) -> bytes:
        if method != "log":
            text = f"{method} is refused: this call has no services of the host"
            return _refusal(rid, PermissionDenied.code, text)
        _log.info("%s: %s", self._slug, clean(str(params.get("message", "")), 4096))
        return encode({"rid": rid, "ok": True, "result": None})

    def _delay(self) -> float:
        """Take one token of a bucket that holds a second's worth, and say how many seconds to wait for it."""
        now = anyio.current_time()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)


def _refusal(rid: int, code: str, message: str) -> bytes:
    return encode({"rid": rid, "ok": False, "error": {"code": code, "message": clean(message, 4096)}})
