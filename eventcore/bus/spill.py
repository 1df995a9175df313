"""The overflow rule `spill`: a live subscription that fell behind reads on from the store until it has caught up.

Its memory stays bounded, since what does not fit the buffer is left where it is anyway: in the history. Nothing is lost
while the process lives. Transient events are in no history; those that find no room are dropped and reported.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from eventcore.bus.filters import selects
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.event import Event
from eventcore.kernel.names import pattern as compile_pattern
from eventcore.kernel.ports import Clock
from eventcore.kernel.records import EventQuery

log = logging.getLogger("eventcore.bus")

#: Reads a page of history.
Page = Callable[[EventQuery], Awaitable[list[Event]]]

#: The most events read at once.
_PAGE = 500
_RETRY_SECONDS = 1.0


class Reader(Protocol):
    """A subscription that reads on; see `eventcore.bus.subscription.Subscription`."""

    name: str
    pattern: str
    tenant: str
    buffer: int
    overflowing: bool

    @property
    def on_overflow(self) -> Callable[[Any, Event], None]: ...
    @property
    def backlog(self) -> int: ...
    @property
    def full(self) -> bool: ...
    @property
    def stopped(self) -> bool: ...
    def wants(self, event: Event) -> bool: ...
    def put(self, event: Event) -> None: ...
    def filter_failed(self, event: Event, error: Exception) -> None: ...


class Spill:
    """Where a subscription's reading stands. At any time it is either live (everything is buffered) or behind."""

    def __init__(self, subscription: Reader, read: Page, clock: Clock) -> None:
        self._subscription, self._read, self._clock = subscription, read, clock
        self._matches = compile_pattern(subscription.pattern).fullmatch
        self.behind = False
        # Everything up to here was buffered or is not for us; only kept while behind and for the first events after.
        self._position = 0
        # The newest event that was left to the store.
        self._latest = 0
        self._reading = False

    @property
    def due(self) -> bool:
        """Whether a pump should now call `read_on`: half the buffer is empty, and nobody else is reading."""
        one = self._subscription
        return self.behind and not self._reading and one.backlog <= one.buffer // 2

    def takes(self, event: Event) -> bool:
        """Whether the event is left to the store, or was read from it already. False: buffer it, or drop it."""
        if not event.position:
            return False
        if event.position <= self._position:
            return True
        if not self.behind:
            if not self._subscription.full:
                return False
            self.behind, self._position = True, event.position - 1
            self._subscription.on_overflow(self._subscription, event)
        self._latest = event.position
        return True

    async def read_on(self) -> None:
        """Put the next page of what was left behind into the buffer."""
        self._reading = True
        try:
            await self._page()
        except EventCoreError as error:
            log.error("%s cannot read on from the store: %s", self._subscription.name, error)
            await self._clock.sleep(_RETRY_SECONDS)
        finally:
            self._reading = False

    async def _page(self) -> None:
        one, upto = self._subscription, self._latest
        limit = max(1, min(_PAGE, one.buffer - one.backlog))
        query = EventQuery(tenant=one.tenant, **selects(one.pattern), after=self._position, limit=limit)
        events = await self._read(query)
        if one.stopped:
            return
        for event in events:
            self._buffer(event)
        # A page that is not full ends at what was visible when the reading began, which `upto` was.
        last = events[-1].position if events else 0
        self._position = last if len(events) == limit else max(last, upto)
        if self._latest <= self._position:
            self.behind = one.overflowing = False

    def _buffer(self, event: Event) -> None:
        try:
            one = self._subscription
            if self._matches(event.type) and not event.imported and one.wants(event):
                one.put(event)
        except Exception as error:  # noqa: BLE001 - a broken filter is a failed delivery, as it is for live events
            self._subscription.filter_failed(event, error)
