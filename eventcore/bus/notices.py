"""What the bus records about itself: failed deliveries, overflow, loops. Nobody waits for these commits."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from anyio.abc import TaskGroup

from eventcore.bus.outcome import Outcome
from eventcore.bus.subscription import Subscription
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.event import Event

log = logging.getLogger("eventcore.bus")

#: How many notices may be on their way to the store. Handlers can fail faster than a store can write.
MAX_UNDER_WAY = 10_000

#: Records an event of the host.
Announce = Callable[[str, Any, CallContext], Awaitable[Any]]


class Notices:
    """Records notices in tasks of their own."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._tasks: TaskGroup | None = None
        self._under_way = self._left_out = 0

    def start(self, tasks: TaskGroup | None) -> None:
        """Begin to record; None: stop."""
        self._tasks = tasks

    @property
    def idle(self) -> bool:
        """Whether none is on its way to the store."""
        return not self._under_way

    def loop(self, data: dict[str, Any], context: CallContext) -> None:
        """An emit was refused by the loop guard."""
        self.soon("bus_loop_detected", data, context)

    def failed(self, subscription: Subscription, event: Event, outcome: Outcome) -> None:
        """A handler failed or ran over. One at `plugin_error` is not told, or it would feed itself."""
        if event.type == "plugin_error":
            return
        failure = {
            "plugin": subscription.owner,
            "subscription": subscription.name,
            "event": event.id,
            "type": event.type,
            "status": outcome.status,
            "error": outcome.error,
        }
        self.soon("plugin_error", failure, _because(event))

    def overflow(self, subscription: Subscription, event: Event) -> None:
        """Say once for each stretch of overflow that events find no room."""
        if subscription.overflowing or event.type.startswith("bus_"):
            return
        subscription.overflowing = True
        data = {
            "subscription": subscription.name,
            "buffer": subscription.buffer,
            "policy": subscription.overflow,
            "dropped": subscription.dropped,
            "type": event.type,
        }
        self.soon("bus_overflow", data, _because(event))

    def soon(self, type: str, data: dict[str, Any], context: CallContext) -> None:
        """Record an event of the host without waiting for it."""
        if self._under_way >= MAX_UNDER_WAY:
            self._left_out += 1
        elif self._tasks is not None:
            self._under_way += 1
            self._tasks.start_soon(self._quietly, type, data, context, name=f"eventcore {type}")

    async def _quietly(self, type: str, data: dict[str, Any], context: CallContext) -> None:
        try:
            await self._announce(type, data, context)
        except EventCoreError as error:
            # Nobody waits for this one, and an exception here would end every task of the engine.
            log.error("%s could not be recorded: %s", type, error)
        finally:
            self._under_way -= 1
            if self._left_out and not self._under_way:
                log.error("%s notices were not recorded: they came faster than the store writes", self._left_out)
                self._left_out = 0


def _because(event: Event) -> CallContext:
    return CallContext(tenant=event.tenant, actor="system", cause=event.cause())
