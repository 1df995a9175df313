"""Events of a pattern as an async iterator, and the one that somebody looks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from eventcore.kernel.event import Event
from eventcore.kernel.names import is_literal
from eventcore.kernel.ports import Store
from eventcore.kernel.records import EventQuery

#: How long a stream's reader may leave one event untaken, in seconds.
STREAM_SECONDS = 3600.0
_PAGE = 500


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


async def find_event(
    store: Store,
    pattern: str,
    tenant: str,
    where: Callable[[Event], bool] | None,
    since: float | None,
    future: float,
    begin: Callable[[Callable[[Event], Any]], Callable[[], None]],
) -> Event | None:
    """See `Bus.find`.

    Args:
        since: look back to this time (seconds since the epoch); None: do not look back.
        begin: subscribes the given handler and returns what ends the subscription.
    """
    watch = _Watch(where)
    end = begin(watch.see)
    try:
        if since is not None and (event := await _look_back(store, pattern, tenant, where, since)):
            return event
        with anyio.move_on_after(future):
            await watch.seen.wait()
        if watch.error is not None:
            raise watch.error
        return watch.event
    finally:
        end()


class _Watch:
    """Keeps the first event that matches."""

    def __init__(self, where: Callable[[Event], bool] | None) -> None:
        self._where = where
        self.event: Event | None = None
        self.error: Exception | None = None
        self.seen = anyio.Event()

    async def see(self, event: Event) -> None:
        if self.seen.is_set():
            return
        try:
            if self._where is None or self._where(event):
                self.event = event
        except Exception as error:  # noqa: BLE001 - the caller's own function: the caller gets it
            self.error = error
        if self.event is not None or self.error is not None:
            self.seen.set()


async def _look_back(
    store: Store, pattern: str, tenant: str, where: Callable[[Event], bool] | None, since: float
) -> Event | None:
    literal = is_literal(pattern)
    after = None
    while True:
        query = EventQuery(
            tenant=tenant,
            types=(pattern,) if literal else (),
            pattern=None if literal else pattern,
            since=since,
            after=after,
            limit=_PAGE,
        )
        page = await store.events(query)
        for event in page:
            if where is None or where(event):
                return event
        if len(page) < _PAGE:
            return None
        after = page[-1].position
