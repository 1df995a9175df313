"""What is written down when somebody may not do what they tried: an event, an audit entry, a count."""

from __future__ import annotations

import logging
from typing import Any

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.json import encode
from eventcore.kernel.ports import Clock, Ids, Metrics
from eventcore.kernel.records import Audit, Batch

log = logging.getLogger("eventcore.plugins")

#: Refusals of one plugin that are written down in a second; twice as many at once. The rest are only counted, or code
#: that tries in a loop could fill the store, and the audit log knows no retention.
RATE = 50.0


class Refusals:
    """Records refusals as `permission_denied` and in the audit log, in one commit."""

    def __init__(self, bus: Bus, ids: Ids, clock: Clock, metrics: Metrics) -> None:
        self._bus, self._ids, self._clock, self._metrics = bus, ids, clock, metrics
        # Plugin -> how many more may be written down, and since when that holds.
        self._room: dict[str, tuple[float, float]] = {}

    async def note(
        self, plugin: str, message: str, context: CallContext, *, subject: str | None = None, **details: Any
    ) -> None:
        """Write down that `context.actor` may not do something.

        Args:
            plugin: the plugin that tried, or that was to be called.
            message: who may not do what, and why.
            subject: what it was about (an intent, a hook).
            details: of the event's data: `permission`, or `intent` and `roles`.
        """
        self._metrics.count("permission_denied_total", plugin=plugin)
        if not self._has_room(plugin):
            log.warning("%s (one of very many, not recorded)", message)
            return
        data = {"plugin": plugin, "message": message, **details}
        event = self._bus.build("permission_denied", data, context, source="/plugins", subject=subject)
        target = subject or plugin
        entry = Audit(
            event.id, context.tenant, self._clock.now(), context.actor, "permission_denied", target, None, encode(data)
        )
        await self._bus.commit(Batch(log=[event], audit=[entry]))

    def _has_room(self, plugin: str) -> bool:
        now = self._clock.monotonic()
        left, since = self._room.get(plugin, (2 * RATE, now))
        left = min(2 * RATE, left + (now - since) * RATE)
        self._room[plugin] = (left - 1 if left >= 1 else left, now)
        return left >= 1
