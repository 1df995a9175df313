"""Events of a pattern as an async iterator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from eventcore.kernel.event import Event

#: How long a stream's reader may leave one event untaken, in seconds.
STREAM_SECONDS = 3600.0


class EventStream:
    """See `Bus.stream`.

    Args:
        begin: subscribes the given handler and returns what ends the subscription.
    """

    def __init__(self, begin: Callable[[Callable[[Event], Any]], Callable[[], None]]) -> None:
        # No buffer here: the subscription's own is the only one, so that its overflow rule is what holds.
        self._send, self._receive = anyio.create_memory_object_stream[Event](0)
        self._end = begin(self._send.send)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            raise StopAsyncIteration from None

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription. Twice is no error."""
        self._end()
        self._send.close()
        self._receive.close()
