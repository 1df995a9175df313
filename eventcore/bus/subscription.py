"""A live subscription: a bounded buffer in memory and one pump that drains it.

Costs decide the shape (an anyio task 10 us, a stream `send` 3.8 us, appending to a deque 0.05 us): one long-lived pump
a lane, which is woken only when it sleeps, and never a task a delivery.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.calling import AsyncHandler, as_async, describe, name_of
from eventcore.bus.current import current_context, serving
from eventcore.bus.outcome import Outcome
from eventcore.kernel.context import OPERATOR_ROLES, CallContext
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock

log = logging.getLogger("eventcore.bus")

Overflow = Literal["block", "drop_oldest", "drop_newest", "error"]
OVERFLOWS: tuple[str, ...] = ("block", "drop_oldest", "drop_newest", "error")

#: Called with each event's outcome.
OnOutcome = Callable[["Subscription", Event, Outcome], None]


class Lane:
    """A queue and its pump. Events of one lane are handled one after the other."""

    __slots__ = ("_bell", "busy", "queue")

    def __init__(self) -> None:
        self.queue: deque[Event] = deque()
        self.busy = False
        self._bell: anyio.Event | None = None

    def put(self, event: Event) -> None:
        self.queue.append(event)
        self.wake()

    def wake(self) -> None:
        if self._bell is not None:
            self._bell.set()
            self._bell = None

    async def wait(self) -> None:
        """Return when something is in the queue, or after `wake`."""
        self.busy = False
        self._bell = anyio.Event()
        await self._bell.wait()


class Subscription:
    """A pattern, a handler, and the events between them. Made by `Bus.subscribe`.

    Attributes:
        name: unique within the tenant; shown wherever the subscription is spoken of.
        pattern: what it listens to.
        owner: the plugin it belongs to, or None for the embedder's own.
    """

    def __init__(
        self,
        *,
        name: str,
        pattern: str,
        handler: Callable[..., Any],
        tenant: str | None,
        owner: str | None,
        where: Callable[[Event], bool] | None,
        allow: Callable[[Event], bool] | None,
        priority: int,
        concurrency: int,
        buffer: int,
        overflow: Overflow,
        timeout: float,
        ignore_self: bool,
        clock: Clock,
        bus: object,
        on_outcome: OnOutcome,
    ) -> None:
        self.name, self.pattern, self.tenant, self.owner = name, pattern, tenant, owner
        self.priority, self.buffer, self.overflow, self.timeout = priority, buffer, overflow, timeout
        self.ignore_self = ignore_self
        self.handler_name = name_of(handler)
        self.overflowing = False
        self.dropped = 0
        self._handler: AsyncHandler = as_async(handler)
        self._where, self._allow = where, allow
        self._clock, self._bus, self._on_outcome = clock, bus, on_outcome
        self._lanes = [Lane() for _ in range(concurrency)]
        self._scopes: list[anyio.CancelScope] = []
        self._room: anyio.Event | None = None
        self._reserved = 0
        self._stopped = False
        self.actor = f"plugin:{owner}" if owner else f"subscription:{name}"
        # The embedder's own handlers act for the operator; a plugin's have no roles by themselves.
        self._roles = frozenset[str]() if owner else OPERATOR_ROLES

    # -- taking in ---------------------------------------------------------------------------------------------------

    def lane_for(self, event: Event) -> Lane:
        """Events of one key share a lane; others go where the least is waiting."""
        if len(self._lanes) == 1:
            return self._lanes[0]
        if event.key is not None:
            return self._lanes[hash(event.key) % len(self._lanes)]
        return min(self._lanes, key=lambda lane: len(lane.queue) + lane.busy)

    def wants(self, event: Event) -> bool:
        """Whether the event passes what is not in the pattern: self, grants, and the payload filter."""
        if self.ignore_self and event.actor == self.actor:
            return False
        if self._allow is not None and not self._allow(event):
            return False
        return self._where is None or bool(self._where(event))

    @property
    def backlog(self) -> int:
        """How many events wait in the buffer."""
        return sum(len(lane.queue) for lane in self._lanes)

    @property
    def full(self) -> bool:
        return self.backlog >= self.buffer

    def reserve(self) -> bool:
        """Keep a place for an event that is about to be committed. False: there is none."""
        if self.backlog + self._reserved >= self.buffer:
            return False
        self._reserved += 1
        return True

    def release(self) -> None:
        """Give a reserved place back: the event has taken it, or did not come."""
        self._reserved -= 1
        if not self.full:
            self._make_room()

    async def wait_for_room(self) -> None:
        """Return after something was taken out of the buffer, or a reserved place was given back."""
        if self._room is None:
            self._room = anyio.Event()
        await self._room.wait()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def offer(self, event: Event) -> Outcome | None:
        """Buffer the event; return the outcome if it (or an older one) had to be dropped."""
        if not self.full:
            self.overflowing = False
            self.lane_for(event).put(event)
            return None
        self.dropped += 1
        victim = event
        if self.overflow == "drop_oldest":
            lane = max(self._lanes, key=lambda one: len(one.queue))
            victim = lane.queue.popleft()
            self.lane_for(event).put(event)
        outcome = Outcome(self.name, "skipped", error=f"buffer of {self.buffer} is full ({self.overflow})")
        self._on_outcome(self, victim, outcome)
        return outcome

    # -- handing out -------------------------------------------------------------------------------------------------

    def start(self, tasks: TaskGroup) -> None:
        for lane in self._lanes:
            tasks.start_soon(self._pump, lane, name=f"eventcore pump {self.name}")

    def stop(self) -> None:
        """End the pumps. What is buffered or being handled is reported as cancelled.

        Called by its own handler, it lets that one finish.
        """
        self._stopped = True
        caller = current_context(self._bus)
        own = caller is not None and caller.actor == self.actor
        for scope in () if own else self._scopes:
            scope.cancel()
        for lane in self._lanes:
            while lane.queue:
                self._cancelled(lane.queue.popleft())
            lane.wake()
        self._make_room()

    def _cancelled(self, event: Event) -> None:
        self._on_outcome(self, event, Outcome(self.name, "cancelled", error="unsubscribed"))

    @property
    def idle(self) -> bool:
        """Whether nothing is buffered and no handler runs."""
        return not any(lane.queue or lane.busy for lane in self._lanes)

    async def _pump(self, lane: Lane) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            while not self._stopped:
                if not lane.queue:
                    await lane.wait()
                    continue
                lane.busy = True
                event = lane.queue.popleft()
                self._make_room()
                try:
                    outcome = await self._deliver(event)
                except anyio.get_cancelled_exc_class():
                    if scope.cancel_called:
                        self._cancelled(event)
                    raise
                self._on_outcome(self, event, outcome)

    async def _deliver(self, event: Event) -> Outcome:
        """Run the handler on one event. Whatever it does, an outcome comes back and the pump goes on."""
        context = CallContext(event.tenant, self.actor, self._roles, cause=event.cause(hop=self.name))
        began = self._clock.monotonic()
        try:
            with serving(self._bus, context), anyio.move_on_after(self.timeout) as limit:
                value = await self._handler(event)
        except Exception as error:
            log.warning("%s failed on %s %s", self.name, event.type, event.id, exc_info=error)
            return Outcome(self.name, "error", self._clock.monotonic() - began, error=describe(error))
        seconds = self._clock.monotonic() - began
        if limit.cancelled_caught:
            return Outcome(self.name, "timeout", seconds, error=f"ran over its {self.timeout:g} s")
        return Outcome(self.name, "ok", seconds, value)
