"""`emit_nowait`: events accepted now and committed with the next group."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any

import anyio

from eventcore.bus.outcome import Receipt
from eventcore.kernel.errors import BusOverflow, EngineClosed
from eventcore.kernel.event import Event

log = logging.getLogger("eventcore.bus")

#: How many events may wait to be committed.
MAX_PENDING = 10_000
#: How many are committed together.
_GROUP = 500
#: How long closing waits for what is pending, in seconds.
_CLOSE_SECONDS = 10.0


class Pending:
    """An event on its way: `await pending` returns its receipt, or raises what `emit` would have raised.

    Attributes:
        id: the event's id.
    """

    __slots__ = ("_done", "_error", "_receipt", "awaited", "event", "id")

    def __init__(self, event: Event) -> None:
        self.event, self.id = event, event.id
        self._done = anyio.Event()
        self._receipt: Receipt | None = None
        self._error: Exception | None = None
        self.awaited = False

    @property
    def done(self) -> bool:
        """Whether it is known how it ended."""
        return self._done.is_set()

    def succeed(self, receipt: Receipt) -> None:
        self._receipt = receipt
        self._done.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._done.set()
        if not self.awaited:
            log.warning("%s %s, emitted without waiting, was not taken in: %s", self.event.type, self.id, error)

    def __await__(self) -> Generator[Any, Any, Receipt]:
        self.awaited = True
        return self._wait().__await__()

    async def _wait(self) -> Receipt:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._receipt is not None
        return self._receipt


class Outbox:
    """A bounded queue of events and the one task that takes them in, in order.

    Args:
        take_in: takes a group of events in as one, all or nothing.
        limit: how many may wait.
    """

    def __init__(self, take_in: Callable[[Sequence[Event]], Awaitable[list[Receipt]]], limit: int) -> None:
        self._take_in, self._limit = take_in, limit
        self._queue: deque[Pending] = deque()
        self._busy: list[Pending] = []
        self._bell = anyio.Event()

    @property
    def idle(self) -> bool:
        """Whether nothing is pending."""
        return not self._queue and not self._busy

    @property
    def waiting(self) -> int:
        """How many events are not committed yet."""
        return len(self._queue) + len(self._busy)

    def put(self, event: Event) -> Pending:
        """Accept an event.

        Raises:
            BusOverflow: too many wait.
        """
        if self.waiting >= self._limit:
            raise BusOverflow(
                f"{self._limit:,} events wait to be committed; {event.type} is refused",
                hint="await some of the receipts, or use emit",
            )
        pending = Pending(event)
        self._queue.append(pending)
        self._bell.set()
        return pending

    async def run(self) -> None:
        """Take in what is put in, until cancelled."""
        while True:
            await self._bell.wait()
            self._bell = anyio.Event()
            while self._queue:
                self._busy = [self._queue.popleft() for _ in range(min(_GROUP, len(self._queue)))]
                await self._settle(self._busy)
                self._busy = []

    async def close(self) -> None:
        """Wait until everything is committed, at most 10 seconds; what is left then fails."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
            while not self.idle:  # noqa: ASYNC110 - asked once in an engine's life
                await anyio.sleep(0.002)
        for pending in (*self._busy, *self._queue):
            if not pending.done:
                pending.fail(EngineClosed("the engine was closed before this event was committed"))
        self._queue.clear()

    async def _settle(self, group: list[Pending]) -> None:
        try:
            receipts = await self._take_in([pending.event for pending in group])
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the receipt
            if len(group) == 1:
                group[0].fail(error)
                return
            # One of them spoils the group: each for itself, in the same order.
            for pending in group:
                await self._settle([pending])
            return
        for pending, receipt in zip(group, receipts, strict=True):
            pending.succeed(receipt)
