"""Enabling and disabling, and the state that survives a restart."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from eventcore.bus.bus import Bus
from eventcore.hooks.breaker import Change
from eventcore.hooks.caller import Hooks
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError, InvalidInput, PluginFailed, Problem
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.ports import Clock, Ids, Metrics, Store
from eventcore.kernel.records import Audit, Batch, PluginState
from eventcore.plugins.calls import Calls
from eventcore.plugins.connections import Connections
from eventcore.plugins.dependencies import Requirements, is_lacking
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.manifest import PluginManifest
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord, PluginRegistry, hash_folder
from eventcore.plugins.sandbox.supervisor import Supervisor

log = logging.getLogger("eventcore.plugins")

#: States in which a plugin stays until somebody enables it.
_AT_REST = frozenset({"disabled", "installed"})


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
        requirements: Requirements,
        stop_timeout: float,
        changed: Callable[[], None],
    ) -> None:
        self._registry, self._supervisor, self._calls, self._services = registry, supervisor, calls, services
        self._hooks, self._bus, self._store, self._clock, self._ids = hooks, bus, store, clock, ids
        self._metrics, self._tenant, self._grants, self._changed = metrics, tenant, grants, changed
        self._requirements, self._stop_timeout = requirements, stop_timeout
        self._connections = Connections(registry, supervisor, calls, services, hooks, bus)
        hooks.room.owners.append(self._health_changed)
        self._locks: dict[str, anyio.Lock] = {}

    # -- opening -----------------------------------------------------------------------------------------------------

    async def restore(self, enabled: Iterable[str], *, quiet: bool = False) -> None:
        """Bring every plugin into the state it was left in; those never seen before, into the one settings name.

        A plugin that cannot be enabled is left `failed` with the reason; it never keeps the engine from opening.

        Args:
            quiet: the engine only looks: plugins that start with the host are not started, and nothing is recorded of
                how those fare that were enabled before.
        """
        states = {row.plugin: row for row in await self._store.plugin_states(self._tenant)}
        wanted = set(enabled)
        for slug in sorted(wanted - self._registry.records.keys()):
            log.warning(
                "eventcore.toml enables %s, which is not there%s", slug, did_you_mean(slug, self._registry.records)
            )
        for record in list(self._registry):
            row = states.get(record.slug)
            if row is not None and row.state == "uninstalled":
                row = None  # it was put there anew, by hand
            if row is not None and record.manifest is not None:
                record.state, record.reason, record.since = row.state, row.reason, row.at
                record.granted = _granted(row, record)
            if (row or record.slug in wanted) and record.state not in _AT_REST and record.manifest is not None:
                await self._restore_one(record, row, quiet)
        self._note_missing(states)

    def _note_missing(self, states: Mapping[str, PluginState]) -> None:
        """A plugin that was in use and whose folder is gone is shown as failed; its row stays as it is."""
        for slug, row in states.items():
            if slug not in self._registry.records and row.state not in ("uninstalled", "discovered"):
                reason = f"its folder is gone; it was {row.state}"
                problems = (Problem(slug, None, "", reason),)
                record = PluginRecord(slug, "", "missing", problems=problems, state="failed", reason=reason)
                self._registry.records[slug] = record

    async def _restore_one(self, record: PluginRecord, row: PluginState | None, quiet: bool) -> None:
        context = CallContext(tenant=self._tenant, actor="system")
        try:
            if row is None:
                await self.enable(record, context)
                return
            record.content_hash = hash_folder(record.folder)
            if row.content_hash == record.content_hash and row.raw_registered:
                record.registered = decode(row.raw_registered)["registered"]
            self._requirements.check(record.described())
            await self._register(record, start=not quiet)
            await self._resume(record, row, context, quiet)
        except EventCoreError as error:
            log.warning("%s is not enabled: %s", record.slug, error)
            if row is None:
                return  # `enable` has said so
            record.reason = str(error)
            await self._move(record, "failed", context, quiet=quiet, error=error.as_dict())

    async def _resume(self, record: PluginRecord, row: PluginState, context: CallContext, quiet: bool) -> None:
        """A plugin whose code was loaded before and is fine: on with it, in the state that it is in now."""
        lacking = self._requirements.lacking(record.described())
        if lacking is not None:
            record.reason = lacking
            await self._move(record, "degraded", context, quiet=quiet)
        elif row.state == "degraded" and not is_lacking(row.reason):
            # Still degraded, and tried again after the usual time: a restart does not mend a plugin.
            self._hooks.room.breaker.trip(record.slug, self._clock.monotonic())
        else:
            record.reason = None
            await self._move(record, "enabled", context, quiet=quiet)

    async def _move(self, record: PluginRecord, state: str, context: CallContext, *, quiet: bool, **more: Any) -> None:
        """Bring a plugin into a state while the engine opens; that it came from another one is recorded."""
        before, record.state = record.state, state
        if before != state and not quiet:
            record.since = self._clock.now()
            await self._note(record, f"plugin_{state}", before, context, **more)

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
        await self._check_settings(record, before, context)
        try:
            self._requirements.check(record.described())
            found = hash_folder(record.folder)
            if found != record.content_hash:
                record.content_hash, record.registered = found, None  # other code registers other things
            await self._register(record)
        except EventCoreError as error:
            record.state, record.reason, record.since = "failed", str(error), self._clock.now()
            await self._note(record, "plugin_failed", before, context, error=error.as_dict())
            raise
        record.state, record.reason, record.since = "enabled", None, self._clock.now()
        await self._note(record, "plugin_enabled", before, context)
        await self._degrade_if_lacking(record, context)
        self._changed()

    async def _degrade_if_lacking(self, record: PluginRecord, context: CallContext) -> None:
        """A plugin whose services the settings do not explain runs all the same, as degraded."""
        if (lacking := self._requirements.lacking(record.described())) is not None:
            record.state, record.reason = "degraded", lacking
            await self._note(record, "plugin_degraded", "enabled", context)

    async def _check_settings(self, record: PluginRecord, before: str, context: CallContext) -> None:
        """A plugin whose settings are not complete stays disabled: nothing is wrong with it, and the error says what
        to do."""
        try:
            self._calls.configuration.values(record)
        except EventCoreError as error:
            record.state, record.reason, record.since = "disabled", str(error), self._clock.now()
            await self._note(record, "plugin_disabled", before, context, error=error.as_dict())
            raise

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
            await self._stop(record)
            record.state, record.reason, record.since = "disabled", reason, self._clock.now()
            await self._note(record, "plugin_disabled", before, context)
            self._changed()

    async def _mend(self, record: PluginRecord, context: CallContext) -> None:
        """The operator says that a degraded plugin is well again."""
        self._hooks.room.breaker.forget(record.slug)
        record.state, record.reason, record.since = "enabled", None, self._clock.now()
        await self._note(record, "plugin_enabled", "degraded", context)
        await self._degrade_if_lacking(record, context)

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
        granted = self.permissions(manifest, grants) | record.granted
        missing = sorted(str(permission) for permission in manifest.permissions if permission not in granted)
        if missing:
            flags = " ".join(f"--grant {permission}" for permission in missing)
            raise InvalidInput(
                f"{record.slug} needs {', '.join(missing)}, which it was not granted",
                hint=f"eventcore plugins enable {record.slug} {flags}",
            )
        return granted & {*manifest.permissions, *manifest.optional_permissions}

    def permissions(self, manifest: PluginManifest, grants: Iterable[str]) -> frozenset[PluginPermission]:
        """What the settings and `grants` together grant to a plugin, as far as it asks for it.

        Raises:
            InvalidInput: one of the words is no permission.
        """
        words = {str(word) for word in (*self._grants.get(manifest.slug, ()), *grants)}
        unknown = sorted(words - {str(permission) for permission in PluginPermission})
        if unknown:
            near = did_you_mean(unknown[0], [str(permission) for permission in PluginPermission])
            raise InvalidInput(f"{unknown[0]!r} is no permission{near}")
        wanted = {*manifest.permissions, *manifest.optional_permissions}
        return frozenset(PluginPermission(word) for word in words) & wanted

    def running(self, record: PluginRecord) -> bool:
        """Whether a worker of the plugin is warm."""
        return self._supervisor.alive(record.slug, self._tenant)

    # -- leaving -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def stopped(self, record: PluginRecord) -> AsyncIterator[None]:
        """Hold a plugin still: nothing calls it, its worker has ended after `cleanup`, and nobody changes its state."""
        async with self._lock(record):
            self._unregister(record)
            await self._stop(record)
            yield

    async def purge(self, record: PluginRecord) -> Batch:
        """What to commit so that nothing of a plugin is kept but its history: its settings."""
        rows = await self._store.plugin_settings(self._tenant)
        done = [(row.tenant, row.plugin, row.key) for row in rows if row.plugin == record.slug]
        return Batch(plugin_settings_done=done)

    def dropped(self, record: PluginRecord, *, purge: bool) -> None:
        """A plugin has been uninstalled: forget it."""
        self._registry.records.pop(record.slug, None)
        self._calls.forget(record)
        if purge:
            self._calls.configuration.drop(record.slug)
        self._changed()

    # -- registering -------------------------------------------------------------------------------------------------

    async def _register(self, record: PluginRecord, *, start: bool = True) -> None:
        """Claim intents, load the code if it was not loaded in this version, and connect hooks, events and commands."""
        manifest = record.described()
        self._calls.forget(record)
        self._calls.spec(record, self._tenant)  # its settings have to be right before anything else is
        self._registry.claim(record)
        try:
            if record.registered is None:
                record.registered = await self._load(record)
            self._connections.connect(record)
            if manifest.class_name and start:
                await self._load(record)  # a plugin with a class starts with the host; `initialize` has work to do
        except BaseException:
            self._unregister(record)
            raise

    def _unregister(self, record: PluginRecord) -> None:
        self._registry.give_up(record)
        self._connections.cut(record)
        self._hooks.room.breaker.forget(record.slug)

    async def _stop(self, record: PluginRecord) -> None:
        """End the plugin's worker after its `cleanup`; one that takes too long is killed."""
        await self._supervisor.stop(record.slug, tenant=self._tenant, grace=self._stop_timeout)

    async def _load(self, record: PluginRecord) -> dict[str, Any]:
        try:
            return await self._supervisor.registered(
                self._calls.spec(record, self._tenant), timeout=self._calls.limits.load
            )
        except PluginFailed as error:
            module = record.described().entry_file
            self._metrics.count("plugin_import_error_total", plugin=record.slug, module=module, error=error.kind)
            await self._stop(record)
            raise

    # -- recording ---------------------------------------------------------------------------------------------------

    async def _note(self, record: PluginRecord, type: str, before: str, context: CallContext, **more: Any) -> None:
        """One commit: the state, the event, and the audit entry."""
        data = {"plugin": record.slug, "version": record.described().version, "reason": record.reason, **more}
        with anyio.CancelScope(shield=True):
            await self._bus.commit(self.noted(record, type, context, data, before))

    def noted(
        self, record: PluginRecord, type: str, context: CallContext, data: dict[str, Any], before: str = "discovered"
    ) -> Batch:
        """What to commit when a plugin has come into another state: the state, the events, and the audit entry."""
        batch = Batch(plugin_states=[self._row(record)])
        types = {"plugin_enabled": ("plugin_loaded", type), "plugin_uninstalled": (type, "plugin_unloaded")}
        for name in types.get(type, (type,)):
            batch.log.append(self._bus.build(name, data, context, source="/plugins", subject=record.slug))
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
        return batch

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
