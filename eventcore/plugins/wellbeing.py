"""Plugins that say that they are unwell are degraded, and mended when they say that they are well again.

Each plugin with a `health_check` and a warm worker is asked every `[plugins] health_interval` seconds, and whenever
somebody asks for its health. A plugin that does not answer in time is not judged: it may be busy.
"""

from __future__ import annotations

import logging

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.ports import Clock, Metrics
from eventcore.plugins.health import UNWELL, Health, Report
from eventcore.plugins.lifecycle import Lifecycle
from eventcore.plugins.registry import PluginRecord, PluginRegistry

log = logging.getLogger("eventcore.plugins")

#: Plugins that are asked at the same time.
_AT_ONCE = 8


class Wellbeing:
    """Looks after the plugins of one engine.

    Args:
        interval: seconds between two looks; 0: never by itself.
    """

    def __init__(
        self,
        *,
        registry: PluginRegistry,
        lifecycle: Lifecycle,
        health: Health,
        bus: Bus,
        clock: Clock,
        metrics: Metrics,
        interval: float,
        tenant: str,
    ) -> None:
        self._registry, self._lifecycle, self._health, self._bus = registry, lifecycle, health, bus
        self._clock, self._metrics, self._interval, self._tenant = clock, metrics, interval, tenant
        self._slots = anyio.CapacityLimiter(_AT_ONCE)
        health.told = self.tell

    def start(self, tasks: TaskGroup) -> None:
        """Begin to ask."""
        if self._interval > 0:
            tasks.start_soon(self._keep, name="eventcore health of plugins")

    async def look(self) -> list[Report]:
        """Ask each plugin that has a `health_check` and a warm worker; cold ones are not woken for it."""
        reports: list[Report] = []

        async def ask(record: PluginRecord) -> None:
            async with self._slots:
                try:
                    reports.append(await self._health.check(record, CallContext(tenant=self._tenant, actor="system")))
                except EventCoreError as error:
                    log.warning("%s could not be asked for its health: %s", record.slug, error)

        async with anyio.create_task_group() as tasks:
            for record in list(self._registry):
                if record.enabled and (record.registered or {}).get("health") and self._lifecycle.running(record):
                    tasks.start_soon(ask, record)
        return reports

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            await self.look()

    async def tell(self, record: PluginRecord, unwell: str | None, context: CallContext) -> None:
        """A plugin said how it is; store what that changes.

        Args:
            unwell: what is wrong; None: nothing.
        """
        self._metrics.gauge("eventcore_plugin_healthy", float(unwell is None), plugin=record.slug)
        async with self._lifecycle.lock(record):
            if unwell is not None and record.state == "enabled":
                await self._change(record, "degraded", f"{UNWELL}{unwell}", context)
            elif unwell is None and record.state == "degraded" and (record.reason or "").startswith(UNWELL):
                await self._change(record, "enabled", None, context)

    async def _change(self, record: PluginRecord, state: str, reason: str | None, context: CallContext) -> None:
        before, record.state = record.state, state
        record.reason, record.since = reason, self._clock.now()
        data = {"plugin": record.slug, "version": record.described().version, "reason": reason}
        with anyio.CancelScope(shield=True):
            await self._bus.commit(self._lifecycle.noted(record, f"plugin_{state}", context, data, before))
