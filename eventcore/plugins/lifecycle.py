"""Enabling and disabling, and the state that survives a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import anyio

from eventcore.bus.bus import Bus
from eventcore.hooks.breaker import Change
from eventcore.hooks.caller import Hooks
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError, InvalidInput, PluginFailed
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.ports import Clock, Ids, Metrics, Store
from eventcore.kernel.records import Audit, Batch, PluginState
from eventcore.plugins.calls import Calls
from eventcore.plugins.connections import Connections
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord, PluginRegistry, hash_folder
from eventcore.plugins.sandbox.supervisor import Supervisor

log = logging.getLogger("eventcore.plugins")

_LOAD_TIMEOUT = 30.0


class Lifecycle:
    """Moves plugins between their states."""

    def __init__(
        self,
        *,
        registry: PluginRegistry,
        supervisor: Supervisor,
        calls: Calls,
        services: HostServices,
        hooks: Hooks,
        bus: Bus,
        store: Store,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        tenant: str,
        grants: Mapping[str, Sequence[str]],
        changed: Callable[[], None],
    ) -> None:
        self._registry, self._supervisor, self._calls, self._services = registry, supervisor, calls, services
        self._hooks, self._bus, self._store, self._clock, self._ids = hooks, bus, store, clock, ids
        self._metrics, self._tenant, self._grants, self._changed = metrics, tenant, grants, changed
        self._connections = Connections(registry, supervisor, calls, services, hooks, bus)
        hooks.room.owners.append(self._health_changed)
        self._locks: dict[str, anyio.Lock] = {}

    @property
    def connections(self) -> Connections:
        """What enabled plugins' code is connected to."""
        return self._connections

    async def functions(self, record: PluginRecord) -> list[str]:
        """The functions that a plugin's code has; starts its worker where none is warm.

        Raises:
            InvalidManifest, InvalidInput, PluginFailed: its code cannot be loaded.
        """
        found = await self._load(record)
        return [name for name in found.get("functions", ()) if isinstance(name, str)]

    # -- opening -----------------------------------------------------------------------------------------------------

    async def restore(self, enabled: Iterable[str]) -> None:
        """Bring every plugin into the state it was left in; those never seen before, into the one settings name.

        A plugin that cannot be enabled is left `failed` with the reason; it never keeps the engine from opening.
        """
        states = {row.plugin: row for row in await self._store.plugin_states(self._tenant)}
        wanted = set(enabled)
        for slug in sorted(wanted - self._registry.records.keys()):
            log.warning(
                "eventcore.toml enables %s, which is not there%s", slug, did_you_mean(slug, self._registry.records)
            )
        for record in list(self._registry):
            row = states.get(record.slug)
            if row is not None and record.manifest is not None:
                record.state, record.reason, record.since = row.state, row.reason, row.at
                record.granted = _granted(row, record)
            if record.manifest is not None and (record.state != "disabled") and (row or record.slug in wanted):
                await self._restore_one(record, row)

    async def _restore_one(self, record: PluginRecord, row: PluginState | None) -> None:
        try:
            if row is None:
                await self.enable(record, CallContext(tenant=self._tenant, actor="system"))
                return
            record.content_hash = hash_folder(record.path)
            if row.content_hash == record.content_hash and row.raw_registered:
                record.registered = decode(row.raw_registered)["registered"]
            await self._register(record)
            if row.state == "degraded":
                # Still degraded, and tried again after the usual time: a restart does not mend a plugin.
                self._hooks.room.breaker.trip(record.slug, self._clock.monotonic())
                return
            record.state, record.reason = "enabled", None
        except EventCoreError as error:
            record.state, record.reason = "failed", str(error)
            log.warning("%s is not enabled: %s", record.slug, error)

    # -- verbs -------------------------------------------------------------------------------------------------------

    async def enable(self, record: PluginRecord, context: CallContext, grants: Iterable[str] = ()) -> None:
        """Enable a plugin: check its grants, load it once, register what it offers, and store that.

        Raises:
            InvalidManifest: its manifest has errors.
            InvalidInput: a required permission is not granted, or another plugin has its intent or command.
            PluginFailed: its code could not be loaded; it is left `failed`, with the reason.
        """
        record.described()
        async with self._lock(record):
            if record.state == "degraded":
                await self._mend(record, context)
            elif not record.enabled:
                await self._enable(record, context, self._grant(record, grants))

    async def _enable(self, record: PluginRecord, context: CallContext, granted: frozenset[PluginPermission]) -> None:
        before = record.state
        record.granted = granted
        try:
            found = hash_folder(record.path)
            if found != record.content_hash:
                record.content_hash, record.registered = found, None  # other code registers other things
            await self._register(record)
        except EventCoreError as error:
            record.state, record.reason, record.since = "failed", str(error), self._clock.now()
            await self._note(record, "plugin_failed", before, context, error=error.as_dict())
            raise
        record.state, record.reason, record.since = "enabled", None, self._clock.now()
        await self._note(record, "plugin_enabled", before, context)
        self._changed()

    def _lock(self, record: PluginRecord) -> anyio.Lock:
        """One change of a plugin's state at a time: two that enable it would register everything twice."""
        return self._locks.setdefault(record.slug, anyio.Lock())

    async def disable(self, record: PluginRecord, context: CallContext, reason: str | None = None) -> None:
        """Disable a plugin: nothing calls it any more, and its worker ends after `cleanup`."""
        async with self._lock(record):
            if record.state == "disabled":
                return
            before = record.state
            self._unregister(record)
            await self._supervisor.stop(record.slug, tenant=self._tenant)
            record.state, record.reason, record.since = "disabled", reason, self._clock.now()
            await self._note(record, "plugin_disabled", before, context)
            self._changed()

    async def _mend(self, record: PluginRecord, context: CallContext) -> None:
        """The operator says that a degraded plugin is well again."""
        self._hooks.room.breaker.forget(record.slug)
        record.state, record.reason, record.since = "enabled", None, self._clock.now()
        await self._note(record, "plugin_enabled", "degraded", context)

    def _health_changed(self, owner: str, change: Change, reason: str) -> Batch | None:
        """The hooks stopped asking a plugin, or ask it again: the row to store with the event that says so."""
        record = self._registry.records.get(owner)
        if record is None or not record.enabled:
            return None
        record.state, record.since = "degraded" if change == "degraded" else "enabled", self._clock.now()
        record.reason = reason if change == "degraded" else None
        return Batch(plugin_states=[self._row(record)])

    def _grant(self, record: PluginRecord, grants: Iterable[str]) -> frozenset[PluginPermission]:
        manifest = record.described()
        words = {str(word) for word in (*self._grants.get(record.slug, ()), *grants)}
        unknown = sorted(words - {str(permission) for permission in PluginPermission})
        if unknown:
            near = did_you_mean(unknown[0], [str(permission) for permission in PluginPermission])
            raise InvalidInput(f"{unknown[0]!r} is no permission{near}")
        granted = frozenset(PluginPermission(word) for word in words)
        missing = sorted(str(permission) for permission in manifest.permissions if permission not in granted)
        if missing:
            flags = " ".join(f"--grant {permission}" for permission in missing)
            raise InvalidInput(
                f"{record.slug} needs {', '.join(missing)}, which it was not granted",
                hint=f"eventcore plugins enable {record.slug} {flags}",
            )
        return granted & {*manifest.permissions, *manifest.optional_permissions}

    # -- registering -------------------------------------------------------------------------------------------------

    async def _register(self, record: PluginRecord) -> None:
        """Claim intents, load the code if it was not loaded in this version, and connect hooks, events and commands."""
        manifest = record.described()
        self._calls.forget(record)
        self._calls.spec(record, self._tenant)  # its settings have to be right before anything else is
        self._registry.claim(record)
        try:
            if record.registered is None:
                record.registered = await self._load(record)
            self._connections.connect(record)
            if manifest.class_name:
                await self._load(record)  # a plugin with a class starts with the host; `initialize` has work to do
        except BaseException:
            self._unregister(record)
            raise

    def _unregister(self, record: PluginRecord) -> None:
        self._registry.give_up(record)
        self._connections.cut(record)
        self._hooks.room.breaker.forget(record.slug)

    async def _load(self, record: PluginRecord) -> dict[str, Any]:
        try:
            return await self._supervisor.registered(self._calls.spec(record, self._tenant), timeout=_LOAD_TIMEOUT)
        except PluginFailed as error:
            module = record.described().entry_file
            self._metrics.count("plugin_import_error_total", plugin=record.slug, module=module, error=error.kind)
            await self._supervisor.stop(record.slug, tenant=self._tenant)
            raise

    # -- recording ---------------------------------------------------------------------------------------------------

    async def _note(self, record: PluginRecord, type: str, before: str, context: CallContext, **more: Any) -> None:
        """One commit: the state, the event, and the audit entry."""
        manifest, row = record.described(), self._row(record)
        data = {"plugin": record.slug, "version": manifest.version, "reason": record.reason, **more}
        batch = Batch(plugin_states=[row])
        if type == "plugin_enabled":
            batch.log.append(self._bus.build("plugin_loaded", data, context, source="/plugins", subject=record.slug))
        batch.log.append(self._bus.build(type, data, context, source="/plugins", subject=record.slug))
        batch.audit.append(
            Audit(
                self._ids.new(),
                self._tenant,
                record.since,
                context.actor,
                type,
                record.slug,
                encode({"state": before}),
                encode({"state": record.state, "granted": sorted(map(str, record.granted))}),
            )
        )
        with anyio.CancelScope(shield=True):
            await self._bus.commit(batch)

    def _row(self, record: PluginRecord) -> PluginState:
        raw = encode({"registered": record.registered, "granted": sorted(map(str, record.granted))})
        return PluginState(
            self._tenant, record.slug, record.state, record.reason, record.since, record.content_hash, raw
        )


def _granted(row: PluginState, record: PluginRecord) -> frozenset[PluginPermission]:
    stored = decode(row.raw_registered)["granted"] if row.raw_registered else []
    manifest = record.described()
    wanted = {*manifest.permissions, *manifest.optional_permissions}
    return frozenset(permission for permission in wanted if str(permission) in stored)
