"""Admission: what the buffers' rules allow is decided before anything is stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio
import anyio.lowlevel

from eventcore.bus.delivery import Dispatcher
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import BusOverflow
from eventcore.kernel.event import Event

#: How long `block` holds an emit back, in seconds.
BLOCK_SECONDS = 1.0
#: A subscription that handles nothing in so many turns of the event loop waits for something else.
_IDLE_TURNS = 3


class Admission:
    """Reserves places in buffers for events on their way to the store."""

    def __init__(self, dispatch: Dispatcher) -> None:
        self._dispatch = dispatch

    def is_open(self, event: Event) -> bool:
        """Whether nobody has to be asked for room."""
        return not self._dispatch.bounded(event)

    async def admit(self, events: Sequence[Event]) -> list[Subscription]:
        """Reserve a place for each event wherever a full buffer would refuse it or hold it back.

        At most one second goes by, however many events there are. The caller releases what is returned after the
        events were handed out.

        Raises:
            BusOverflow: a subscription with `overflow="error"` has no room; nothing is reserved.
        """
        reserved: list[Subscription] = []
        waiting: list[Subscription] = []
        try:
            for event in events:
                self._ask(event, reserved, waiting)
            if waiting:
                await self._wait(waiting, reserved)
        except BaseException:
            release(reserved)
            raise
        return reserved

    def _ask(self, event: Event, reserved: list[Subscription], waiting: list[Subscription]) -> None:
        dispatch = self._dispatch
        for subscription in dispatch.bounded(event):
            if not dispatch.wanted(subscription, event):
                continue
            if dispatch.reserve(subscription):
                reserved.append(subscription)
            elif subscription.overflow == "error":
                raise BusOverflow(
                    f"the buffer of {subscription.name} ({subscription.buffer} events) is full; {event.type} is refused"
                )
            elif not _own(subscription, event):
                waiting.append(subscription)

    async def _wait(self, waiting: list[Subscription], reserved: list[Subscription]) -> None:
        left = deque(waiting)
        with anyio.move_on_after(BLOCK_SECONDS):
            while left:
                while not self._dispatch.reserve(left[0]):
                    await left[0].wait_for_room()
                reserved.append(left.popleft())
        with anyio.move_on_after(BLOCK_SECONDS):
            await self._catch_up(left, reserved)

    async def _catch_up(self, left: deque[Subscription], reserved: list[Subscription]) -> None:
        """Go on as long as those who make room get on at every turn of the event loop.

        Maybe none of them was slow, but the whole process was held up, and the second went by for all of it at once.
        """
        idle, handled = 0, -1
        while left and idle < _IDLE_TURNS:
            await anyio.lowlevel.checkpoint()
            idle, before, handled = idle + 1, handled, left[0].handled
            if handled != before:
                idle = 0
            if self._dispatch.reserve(left[0]):
                reserved.append(left.popleft())
                handled = -1


def _own(subscription: Subscription, event: Event) -> bool:
    """A handler that waits for room in its own buffer waits for itself, also at the end of a chain of others."""
    return event.actor == subscription.actor or any(who == subscription.name for who, _, _ in event.path)


def release(reserved: Sequence[Subscription]) -> None:
    """Give reserved places back: the events have taken them, or did not come."""
    for subscription in reserved:
        subscription.release()
