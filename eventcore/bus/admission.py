"""Admission: what the buffers' rules allow is decided before anything is stored."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from eventcore.bus.delivery import Dispatcher
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import BusOverflow
from eventcore.kernel.event import Event

#: How long `block` holds an emit back, in seconds.
BLOCK_SECONDS = 1.0
#: A timer that fires so much too late, in seconds, says that the event loop stood still.
_HELD_UP = 0.05


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
        # In all lines at once: one after the other would take a turn of the event loop each.
        lines = [(subscription, subscription.line_up()) for subscription in waiting]
        try:
            # Where the whole process was held up, the second went by for everybody, whether anyone is slow or not: then
            # it begins once more.
            for _ in range(2):
                end = anyio.current_time() + BLOCK_SECONDS
                with anyio.move_on_after(BLOCK_SECONDS):
                    for _, place in lines:
                        await place.wait()
                if all(place.is_set() for _, place in lines) or anyio.current_time() < end + _HELD_UP:
                    return
        finally:
            for subscription, place in lines:
                if place.is_set():
                    reserved.append(subscription)
                else:
                    subscription.leave_line(place)


def _own(subscription: Subscription, event: Event) -> bool:
    """A handler that waits for room in its own buffer waits for itself, also at the end of a chain of others."""
    return event.actor == subscription.actor or any(who == subscription.name for who, _, _ in event.path)


def release(reserved: Sequence[Subscription]) -> None:
    """Give reserved places back: the events have taken them, or did not come."""
    for subscription in reserved:
        subscription.release()
