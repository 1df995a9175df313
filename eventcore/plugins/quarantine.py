"""Quarantine: a plugin whose workers broke the rules of their channel three times is called no more, until somebody
enables it again or its code changes. A restart of the engine is neither, also between the strikes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.ports import Clock
from eventcore.kernel.records import Batch, PluginState
from eventcore.plugins.registry import PluginRecord, PluginRegistry, hash_folder
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.sandbox.supervisor import QUARANTINE

_log = logging.getLogger("eventcore.plugins")


def in_quarantine(row: PluginState, folder: str) -> bool:
    """Whether a stored state is quarantine, of the code that is in the folder now."""
    return row.state == "failed" and QUARANTINE in (row.reason or "") and row.content_hash == hash_folder(folder)


class Quarantine:
    """Puts plugins into the state `failed` when their supervisor gives them up.

    Args:
        stopped: holds a plugin still, out of use; `Lifecycle.stopped`.
        noted: what to commit about its new state; `Lifecycle.noted`.
        watchers: called when a plugin has come or gone.
        tenant: whose states are stored; another tenant's worker is refused by the supervisor alone.
    """

    def __init__(
        self,
        registry: PluginRegistry,
        bus: Bus,
        clock: Clock,
        tenant: str,
        *,
        stopped: Callable[[PluginRecord], AbstractAsyncContextManager[None]],
        noted: Callable[..., Batch],
        watchers: Iterable[Callable[[], None]],
    ) -> None:
        self._registry, self._bus, self._clock, self._tenant = registry, bus, clock, tenant
        self._stopped, self._noted, self._watchers = stopped, noted, watchers

    async def enter(self, spec: WorkerSpec, reason: str) -> None:
        """Take the plugin out of use, and store that with the event `plugin_failed`."""
        record = self._registry.records.get(spec.slug)
        if record is None or not record.enabled or spec.tenant != self._tenant:
            return
        _log.error("%s; nothing calls it until it is enabled again", reason)
        try:
            async with self._stopped(record):
                if record.enabled:
                    await self._fail(record, reason)
        except EventCoreError as error:  # such as an engine that is closing
            _log.warning("the quarantine of %s is not stored: %s", spec.slug, error)
        for watcher in self._watchers:
            watcher()

    def strikes_of(self, spec: WorkerSpec) -> int:
        """How many strikes a plugin has, those before the last restart included."""
        record = self._record(spec)
        return 0 if record is None else record.strikes

    async def struck(self, spec: WorkerSpec, strikes: int) -> None:
        """Store a strike."""
        record = self._record(spec)
        if record is None or not record.enabled or strikes <= record.strikes:
            return
        record.strikes = strikes
        try:
            with anyio.CancelScope(shield=True):  # an engine that closes just then would forget it
                await self._bus.commit(Batch(plugin_states=[record.as_row(self._tenant)]))
        except EventCoreError as error:
            _log.warning("a strike of %s is not stored: %s", spec.slug, error)

    def _record(self, spec: WorkerSpec) -> PluginRecord | None:
        """The plugin, if it is still the code that the spec was made for."""
        record = self._registry.records.get(spec.slug) if spec.tenant == self._tenant else None
        return record if record is not None and spec.version == (record.content_hash or "") else None

    async def _fail(self, record: PluginRecord, reason: str) -> None:
        before, record.state = record.state, "failed"
        record.reason, record.since = reason, self._clock.now()
        data: dict[str, Any] = {"plugin": record.slug, "version": record.described().version, "reason": reason}
        data["error"] = {"code": "plugin_failed", "kind": "Quarantined", "message": reason}
        context = CallContext(tenant=self._tenant, actor="system")
        await self._bus.commit(self._noted(record, "plugin_failed", context, data, before))
