"""A live subscription: a bounded buffer in memory, drained by one pump a lane; see `eventcore.bus.pump`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, Literal

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from eventcore.bus.calling import AsyncHandler, as_async, describe, name_of, never_waits
from eventcore.bus.current import begin_delivery, current_context
from eventcore.bus.outcome import Outcome
from eventcore.bus.pump import SLICE, Lane, Watchdog
from eventcore.bus.spill import Page, Spill
from eventcore.kernel.context import OPERATOR_ROLES, CallContext
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock

log = logging.getLogger("eventcore.bus")

Overflow = Literal["block", "drop_oldest", "drop_newest", "error", "spill"]
OVERFLOWS: tuple[str, ...] = ("block", "drop_oldest", "drop_newest", "error", "spill")

#: Called with the outcome of each event that did not simply end well unobserved.
OnOutcome = Callable[["Subscription", Event, Outcome], None]

#: Called with each event that the full buffer could not take.
OnOverflow = Callable[["Subscription", Event], None]


class Subscription:
    """A pattern, a handler, and the events between them. Made by `Bus.subscribe`.

    Attributes:
        name: unique within the tenant; shown wherever the subscription is spoken of.
        label: what metrics call it: the name, or a word shared by all streams (their names are endless).
        pattern: what it listens to.
        owner: the plugin it belongs to, or None for the embedder's own.
        handler: what it calls, made async.
        at_once: whether that runs to its end in one step, so that no time limit can end it.
        handled: how many deliveries ended well.
        dropped: how many were dropped by the full buffer.
    """

    # There may be very many of them: slots make one four times smaller.
    __slots__ = (
        "_allow", "_bus", "_clock", "_expected", "_lanes", "_line", "_on_outcome", "_reserved", "_roles", "_stopped",
        "_watchdog", "_where", "actor", "at_once", "buffer", "dropped", "handled", "handler", "handler_name",
        "ignore_self", "label", "name", "on_overflow", "overflow", "overflowing", "owner", "pattern", "priority",
        "spill", "tenant", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        *,
        name: str,
        label: str,
        pattern: str,
        handler: Callable[..., Any],
        tenant: str,
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
        watchdog: Watchdog,
        read: Page,
        expected: Mapping[str, object],
        on_outcome: OnOutcome,
        on_overflow: OnOverflow,
    ) -> None:
        self.name, self.label, self.pattern, self.tenant, self.owner = name, label, pattern, tenant, owner
        self.priority, self.buffer, self.overflow, self.timeout = priority, buffer, overflow, timeout
        self.ignore_self = ignore_self
        self.handler_name = name_of(handler)
        self.overflowing = False
        self.handled = self.dropped = 0
        self.handler: AsyncHandler = as_async(handler)
        self.at_once = never_waits(self.handler)
        self._where, self._allow = where, allow
        self._clock, self._bus, self._on_outcome = clock, bus, on_outcome
        self.on_overflow = on_overflow
        self._watchdog, self._expected = watchdog, expected
        self._lanes = [Lane(timeout) for _ in range(concurrency)]
        # Who waits for room, in the order in which they came; None: nobody.
        self._line: deque[anyio.Event] | None = None
        self._reserved = 0
        self._stopped = False
        self.spill = Spill(self, read, clock) if overflow == "spill" else None
        self.actor = f"plugin:{owner}" if owner else f"subscription:{name}"
        # The embedder's own handlers act for the operator; a plugin's have no roles by themselves.
        self._roles = frozenset[str]() if owner else OPERATOR_ROLES

    # -- taking in ---------------------------------------------------------------------------------------------------

    @property
    def lane(self) -> Lane | None:
        """The one lane that takes every event of its pattern, if nothing but room decides; None: `offer` decides."""
        plain = len(self._lanes) == 1 and self._where is None and self._allow is None and self.spill is None
        return self._lanes[0] if plain else None

    def lane_for(self, event: Event) -> Lane:
        """Events of one key share a lane; others go where the least is waiting."""
        if len(self._lanes) == 1:
            return self._lanes[0]
        if event.key is not None:
            return self._lanes[hash(event.key) % len(self._lanes)]
        return min(self._lanes, key=lambda lane: len(lane.queue) + lane.busy)

    def wants(self, event: Event) -> bool:
        """Whether the event passes what is not in the pattern: self, grants, and the payload filter."""
        if event.raw_extensions is not None and event.imported:
            return False  # history of another home: nothing happens because of it
        if self.ignore_self and event.actor == self.actor:
            return False
        if self._allow is not None and not self._allow(event):
            return False
        return self._where is None or bool(self._where(event))

    @property
    def backlog(self) -> int:
        """How many events wait in the buffer."""
        if len(self._lanes) == 1:
            return len(self._lanes[0].queue)
        return sum(len(lane.queue) for lane in self._lanes)

    @property
    def full(self) -> bool:
        return self.backlog >= self.buffer

    @property
    def room(self) -> int:
        """How many more events the buffer can take, beyond those that a place was reserved for or that wait for one."""
        return 0 if self._line else self.buffer - self.backlog - self._reserved

    def reserve(self) -> bool:
        """Keep a place for an event that is about to be committed. False: there is none."""
        if self.room <= 0:
            return False
        self._reserved += 1
        return True

    def release(self) -> None:
        """Give a reserved place back: the event has taken it, or did not come."""
        self._reserved -= 1
        self._serve_line()

    def line_up(self) -> anyio.Event:
        """Ask for a place; the event is set when it is kept. Who waits longest gets the next one.

        Leave with `leave_line`, unless the event is set.
        """
        mine = anyio.Event()
        if self.reserve():
            mine.set()
        else:
            self._line = self._line or deque()
            self._line.append(mine)
        return mine

    def leave_line(self, mine: anyio.Event) -> None:
        """Wait no longer for a place that was not given."""
        if self._line is not None and mine in self._line:
            self._line.remove(mine)
            self._serve_line()

    def _serve_line(self) -> None:
        """Give places that have become free to those who wait."""
        line = self._line
        if line is None:
            return
        while line and (self._stopped or self.buffer - self.backlog - self._reserved > 0):
            self._reserved += 1
            line.popleft().set()
        if not line:
            self._line = None

    def put(self, event: Event) -> None:
        """Buffer the event, whether or not there is room."""
        self.lane_for(event).put(event)

    def offer(self, event: Event) -> None:
        """Buffer the event; where that is impossible, the overflow's rule decides."""
        if self.spill is not None and self.spill.takes(event):
            return
        if not self.full:
            self.overflowing = False
            self.put(event)
            return
        self.dropped += 1
        victim = event
        if self.overflow == "drop_oldest":
            lane = max(self._lanes, key=lambda one: len(one.queue))
            victim = lane.queue.popleft()
            self.put(event)
        self.skip(victim, f"buffer of {self.buffer} is full ({self.overflow})")

    def skip(self, event: Event, why: str) -> None:
        """Report that the event is not delivered, for want of room."""
        self.on_overflow(self, event)
        self._on_outcome(self, event, Outcome(self.name, "skipped", error=why))

    def filter_failed(self, event: Event, error: Exception) -> None:
        """A filter that raises is a failed delivery of this subscription alone."""
        self._on_outcome(self, event, Outcome(self.name, "error", error=f"its filter failed: {describe(error)}"))

    # -- handing out -------------------------------------------------------------------------------------------------

    def start(self, tasks: TaskGroup) -> None:
        """Deliver from now on. A pump begins with the first event of its lane: one that never comes costs no task."""
        # In the context of the subscriber, not in that of whoever happens to emit first.
        context = copy_context()
        for lane in self._lanes:
            lane.ring = partial(context.run, self._begin, tasks, lane)
            if lane.queue or self.spill is not None:
                lane.wake()

    def _begin(self, tasks: TaskGroup, lane: Lane) -> None:
        tasks.start_soon(self._pump, lane, name=f"eventcore pump {self.name}")

    def stop(self) -> None:
        """End the pumps. What is buffered or being handled is reported as cancelled.

        Called by its own handler, it lets that one finish.
        """
        self._stopped = True
        caller = current_context(self._bus)
        own = caller is not None and caller.actor == self.actor
        for lane in self._lanes:
            if lane.scope is not None and not own:
                lane.scope.cancel()
            while lane.queue:
                self._cancelled(lane.queue.popleft())
            if lane.begun:
                lane.wake()
            lane.ring = None
        self._serve_line()

    def _cancelled(self, event: Event) -> None:
        self._on_outcome(self, event, Outcome(self.name, "cancelled", error="unsubscribed"))

    @property
    def idle(self) -> bool:
        """Whether nothing is buffered or left behind in the store, and no handler runs."""
        behind = self.spill is not None and self.spill.behind and not self._stopped
        return not behind and not any(lane.queue or lane.busy for lane in self._lanes)

    @property
    def stopped(self) -> bool:
        return self._stopped

    def context_of(self, event: Event) -> CallContext:
        """On whose behalf, and because of what, the handler acts while it is at this event."""
        return CallContext(event.tenant, self.actor, self._roles, cause=event.cause(hop=self.name))

    async def _pump(self, lane: Lane) -> None:
        lane.begun = True
        try:
            while not self._stopped:
                if self.spill is not None and self.spill.due:
                    await self.spill.read_on()
                elif lane.queue:
                    await self._serve(lane)
                else:
                    self._watchdog.leave(lane)
                    await lane.wait()
        finally:
            lane.busy = False
            self._watchdog.leave(lane)

    async def _serve(self, lane: Lane) -> None:
        """One batch under one cancel scope: until the queue is empty, the time slice is over, or it is cut off."""
        lane.busy = True
        lane.began = self._clock.monotonic()
        with anyio.CancelScope() as scope:
            lane.scope, lane.overdue = scope, False
            self._watchdog.watch(lane)
            await self._deliver(lane)
        lane.scope = None
        if scope.cancelled_caught and lane.event is not None:
            self._cut_off(lane, lane.event)
        lane.event = None
        if lane.queue:
            await anyio.lowlevel.checkpoint()

    async def _deliver(self, lane: Lane) -> None:
        # Runs once an event and is written for speed; whatever a handler does, the pump goes on.
        queue, handler, monotonic, bus = lane.queue, self.handler, self._clock.monotonic, self._bus
        spill, expected, until = self.spill, self._expected, lane.began + SLICE
        while queue and not self._stopped:
            lane.event = event = queue.popleft()
            if self._line is not None:
                self._serve_line()
            begin_delivery((bus, self, event))
            try:
                value = await handler(event)
            except Exception as error:
                log.warning("%s failed on %s %s", self.name, event.type, event.id, exc_info=error)
                now = monotonic()
                self._on_outcome(self, event, Outcome(self.name, "error", now - lane.began, error=describe(error)))
            else:
                now = monotonic()
                self.handled += 1
                if expected and event.id in expected:
                    self._on_outcome(self, event, Outcome(self.name, "ok", now - lane.began, value))
            if now > until or lane.overdue or (spill is not None and spill.due):
                return
            lane.began = now

    def _cut_off(self, lane: Lane, event: Event) -> None:
        if lane.overdue:
            seconds = self._clock.monotonic() - lane.began
            why = f"ran over its {self.timeout:g} s"
            self._on_outcome(self, event, Outcome(self.name, "timeout", seconds, error=why))
        else:
            self._cancelled(event)
