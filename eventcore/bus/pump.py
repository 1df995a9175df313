"""What drains a subscription's queue: the lane, and the one watchdog that looks after all lanes' time limits.

Costs decide the shape (an anyio task 10 us and 6 KB, a cancel scope for each delivery 6 us, appending to a deque 0.05
us): one long-lived pump a lane, begun with its first event and woken only when it sleeps; one cancel scope a batch; and
no timer a delivery: a lane notes when its handler began, and the watchdog cancels the scope of the one that ran over.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import anyio

from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock

#: How long one pump may go on without letting others run, in seconds.
SLICE = 0.005
#: The watchdog never looks more often than this, in seconds.
_LEAST_SLEEP = 0.001


class Lane:
    """A queue and what its pump is at. Events of one lane are handled one after the other.

    Attributes:
        event: what is being handled.
        began: when its handler began, monotonic seconds.
        begun: whether it has a pump.
        timeout: seconds a handler may take.
        scope: what a timeout or an unsubscribe cancels.
        ring: wakes the pump; set while it sleeps, or until it has begun.
    """

    __slots__ = ("began", "begun", "busy", "event", "overdue", "queue", "ring", "scope", "timeout")

    def __init__(self, timeout: float) -> None:
        self.queue: deque[Event] = deque()
        self.timeout = timeout
        self.begun = self.busy = self.overdue = False
        self.began = 0.0
        self.event: Event | None = None
        self.scope: anyio.CancelScope | None = None
        self.ring: Callable[[], object] | None = None

    def put(self, event: Event) -> None:
        self.queue.append(event)
        if self.ring is not None:
            self.wake()

    def wake(self) -> None:
        """Let the pump look at its queue, if it sleeps."""
        ring, self.ring = self.ring, None
        if ring is not None:
            ring()

    async def wait(self) -> None:
        """Return when something was put into the queue, or after `wake`."""
        self.busy = False
        bell = anyio.Event()
        self.ring = bell.set
        await bell.wait()


class Watchdog:
    """Cuts off handlers that run over, with one task for all lanes. While no handler runs it costs nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lanes: dict[Lane, None] = {}
        self._next = math.inf
        self._bell = anyio.Event()

    def watch(self, lane: Lane) -> None:
        """The lane's handlers begin; `lane.began` is set."""
        self._lanes[lane] = None
        if lane.began + lane.timeout < self._next:
            self._next = lane.began + lane.timeout
            self._bell.set()

    def leave(self, lane: Lane) -> None:
        """No handler of the lane is running."""
        self._lanes.pop(lane, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._bell = anyio.Event()
            now = self._clock.monotonic()
            self._next = self._cut_off(now)
            with anyio.move_on_after(None if self._next == math.inf else max(self._next - now, _LEAST_SLEEP)):
                await self._bell.wait()

    def _cut_off(self, now: float) -> float:
        """Cancel what is overdue; return when the next one may be."""
        soonest = math.inf
        for lane in self._lanes:
            due = lane.began + lane.timeout
            if due > now:
                soonest = min(soonest, due)
            elif lane.scope is not None and not lane.overdue:
                lane.overdue = True
                lane.scope.cancel()
        return soonest
