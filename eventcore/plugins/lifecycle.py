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
from eventcore.kernel.errors import EventCoreError, PluginFailed
from eventcore.kernel.json import encode
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.ports import Clock, Ids, Metrics, Store
from eventcore.kernel.records import Audit, Batch, PluginState
from eventcore.plugins import grants
from eventcore.plugins.calls import Calls
from eventcore.plugins.companion import Companion
from eventcore.plugins.connections import Connections
from eventcore.plugins.dependencies import Requirements, is_lacking
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.manifest import PluginManifest
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.python_packages import hint_at_packages
from eventcore.plugins.quarantine import in_quarantine
from eventcore.plugins.registry import PluginRecord, PluginRegistry, hash_folder
from eventcore.plugins.sandbox.supervisor import Supervisor

log = logging.getLogger("eventcore.plugins")

#: Calls that run with a right the kernel gave them, and that was taken away, have so many seconds to end.
_REVOKE_GRACE = 1.0
_CHANGED = "plugin_permissions_changed"
#: States in which a plugin stays until somebody enables it.
_AT_REST = frozenset({"disabled", "installed"})


class Lifecycle:
    """Moves plugins between their states.

    Args:
        companions: what comes and goes with each plugin.
    """

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
        companions: Sequence[Companion] = (),
    ) -> None:
        self._registry, self._supervisor, self._calls, self._services = registry, supervisor, calls, services
        self._hooks, self._bus, self._store, self._clock, self._ids = hooks, bus, store, clock, ids
        self._metrics, self._tenant, self._grants = metrics, tenant, grants
        #: Called when a plugin comes or goes, or is granted other permissions.
        self.watchers: list[Callable[[], None]] = [changed]
        self._requirements, self._stop_timeout = requirements, stop_timeout
        self._connections = Connections(registry, supervisor, calls, services, hooks, bus)
        self._companions = tuple(companions)
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
                grants.stored(row, record).apply(record)
            rests = record.state in _AT_REST or (row is not None and in_quarantine(row, record.folder))
            if (row or record.slug in wanted) and not rests and record.manifest is not None:
                await self._restore_one(record, row, quiet)
        self._registry.note_missing(states)
        self._changed()

    async def _restore_one(self, record: PluginRecord, row: PluginState | None, quiet: bool) -> None:
        context = CallContext(tenant=self._tenant, actor="system")
        try:
            if row is None:
                await self.enable(record, context)
                return
            record.content_hash = hash_folder(record.folder)
            record.recall(row)
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

    async def enable(self, record: PluginRecord, context: CallContext, given: Iterable[str] = ()) -> None:
        """Enable a plugin: check its grants, load it once, register what it offers, and store that.

        Raises:
            InvalidManifest: its manifest has errors.
            InvalidInput: a required permission is not granted, or another plugin has its intent or command.
            PluginFailed: its code could not be loaded; it is left `failed`, with the reason.
        """
        record.described()
        async with self.lock(record):
            if record.state == "degraded":
                await self._mend(record, context)
            elif not record.enabled:
                await self._enable(record, context, grants.at_enabling(record, given, self._grants))

    async def _enable(self, record: PluginRecord, context: CallContext, decision: grants.Decision) -> None:
        before, record.strikes = record.state, 0
        decision.apply(record)
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

    def _changed(self) -> None:
        for watcher in self.watchers:
            watcher()

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

    def lock(self, record: PluginRecord) -> anyio.Lock:
        """One change of a plugin's state at a time: two that enable it would register everything twice."""
        return self._locks.setdefault(record.slug, anyio.Lock())

    async def disable(self, record: PluginRecord, context: CallContext, reason: str | None = None) -> None:
        """Disable a plugin: nothing calls it any more, and its worker ends after `cleanup`."""
        async with self.lock(record):
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
        return Batch(plugin_states=[record.as_row(self._tenant)])

    # -- grants ------------------------------------------------------------------------------------------------------

    async def permit(
        self, record: PluginRecord, context: CallContext, grant: Iterable[str] = (), revoke: Iterable[str] = ()
    ) -> None:
        """Change what a plugin may do, at once: calls that run now are refused what was taken away.

        A plugin that loses something it needs is disabled.

        Raises:
            InvalidManifest: its manifest has errors.
            InvalidInput: a word is no permission, or not one that its manifest asks for.
        """
        async with self.lock(record):
            decision, before = grants.changed(record, grant, revoke), record.granted
            if decision == grants.Decision(before, record.denied):
                return
            decision.apply(record)
            await self._note_grants(record, before, context)
            await self._regranted(record, before)
            self._changed()
        if record.enabled and (lacking := grants.missing(record, record.granted)):
            await self.disable(record, context, reason=f"it needs {', '.join(lacking)}, which was taken away")

    async def _regranted(self, record: PluginRecord, before: grants.Permissions) -> None:
        """Let what runs know: handlers that need a grant come or go, and so does the worker if the kernel confines it
        by what changed."""
        if not record.enabled:
            return
        self._connections.regranted(record)
        if grants.KERNEL & (before ^ record.granted):
            self._calls.forget(record)
            if before - record.granted:
                await self._supervisor.stop(record.slug, tenant=self._tenant, grace=_REVOKE_GRACE)

    async def _note_grants(self, record: PluginRecord, before: grants.Permissions, context: CallContext) -> None:
        old, new = sorted(map(str, before)), sorted(map(str, record.granted))
        data = {
            "plugin": record.slug,
            "version": record.described().version,
            "granted": sorted(set(new) - set(old)),
            "revoked": sorted(set(old) - set(new)),
            "permissions": new,
        }
        event = self._bus.build(_CHANGED, data, context, source="/plugins", subject=record.slug)
        entry = Audit(
            self._ids.new(),
            self._tenant,
            self._clock.now(),
            context.actor,
            _CHANGED,
            record.slug,
            encode({"granted": old}),
            encode({"granted": new, "denied": sorted(map(str, record.denied))}),
        )
        with anyio.CancelScope(shield=True):
            await self._bus.commit(Batch(log=[event], audit=[entry], plugin_states=[record.as_row(self._tenant)]))

    def permissions(self, manifest: PluginManifest, given: Iterable[str]) -> frozenset[PluginPermission]:
        """What the settings and `given` together grant to a plugin, as far as it asks for it.

        Raises:
            InvalidInput: one of the words is no permission.
        """
        words = (*self._grants.get(manifest.slug, ()), *given)
        return grants.permissions_of(words) & grants.asked_for(manifest)

    def running(self, record: PluginRecord) -> bool:
        """Whether a worker of the plugin is warm."""
        return self._supervisor.alive(record.slug, self._tenant)

    # -- leaving -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def stopped(self, record: PluginRecord) -> AsyncIterator[None]:
        """Hold a plugin still: nothing calls it, its worker has ended after `cleanup`, and nobody changes its state."""
        async with self.lock(record):
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
            await self._connections.drop_removed(record)
            for companion in self._companions:
                companion.arrive(record)
            if manifest.class_name and start:
                await self._load(record)  # a plugin with a class starts with the host; `initialize` has work to do
        except BaseException:
            self._unregister(record)
            raise

    def _unregister(self, record: PluginRecord) -> None:
        self._registry.give_up(record)
        self._connections.cut(record)
        for companion in self._companions:
            companion.leave(record)
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
            hint_at_packages(error, record.described())
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
        batch = Batch(plugin_states=[record.as_row(self._tenant)])
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
