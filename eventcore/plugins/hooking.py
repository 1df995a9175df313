"""Functions of plugins that the operator hooked to events, beside those that their code subscribes by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.json import encode
from eventcore.kernel.names import CORE_EVENTS, canonical_pattern, did_you_mean, is_literal
from eventcore.kernel.ports import Clock, Ids, Store
from eventcore.kernel.records import Audit, Batch, EventQuery, PluginHook
from eventcore.plugins.registry import PluginRecord, PluginRegistry

#: Hooks of one plugin.
MAX_HOOKS = 200


class Hooking:
    """Keeps the hooks of one tenant's plugins, in memory as in the store.

    Args:
        tenant: whose plugins they are.
    """

    def __init__(
        self, *, registry: PluginRegistry, store: Store, bus: Bus, clock: Clock, ids: Ids, tenant: str
    ) -> None:
        self._registry, self._store, self._bus, self._clock, self._ids = registry, store, bus, clock, ids
        self._tenant = tenant
        self._hooks: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        #: Takes the hooks of an enabled plugin up anew; set by whoever connects plugins.
        self.reconnect: Callable[[PluginRecord], None] = lambda record: None

    async def restore(self) -> None:
        """Read what is stored."""
        for row in await self._store.plugin_hooks(self._tenant):
            self._hooks[row.plugin].add((row.event, row.function))

    def of(self, plugin: str) -> list[tuple[str, str]]:
        """(event, function) of each hook of a plugin, sorted."""
        return sorted(self._hooks.get(plugin, ()))

    async def add(
        self, record: PluginRecord, events: Iterable[str], function: str, known: Iterable[str], context: CallContext
    ) -> list[tuple[str, str]]:
        """Hook a function to events, from their next one on; durable, and kept over restarts.

        Args:
            events: types or patterns.
            known: the functions that the plugin's code has.

        Returns:
            The plugin's hooks.

        Raises:
            InvalidInput: there is no such function or event, or there are too many hooks. Nothing was hooked.
        """
        known = sorted(known)
        if function not in known:
            raise InvalidInput(f"{record.slug} has no function {function!r}{did_you_mean(function, known)}")
        wanted = {(await self._checked(name), function) for name in events}
        if len(self._hooks[record.slug] | wanted) > MAX_HOOKS:
            raise InvalidInput(f"{record.slug} has {MAX_HOOKS} hooks at most")
        rows = [PluginHook(self._tenant, record.slug, event, name) for event, name in sorted(wanted)]
        await self._commit(Batch(plugin_hooks=rows), record.slug, "plugin_hooked", wanted, context)
        self._hooks[record.slug] |= wanted
        self._took_up(record)
        return self.of(record.slug)

    async def remove(
        self, record: PluginRecord, events: Iterable[str], function: str | None, context: CallContext
    ) -> list[tuple[str, str]]:
        """Remove hooks: those of these events (all if none are named), of the function if one is named.

        Raises:
            NotFound: there is no such hook.
        """
        named = {canonical_pattern(name) for name in events}
        gone = {
            (event, name)
            for event, name in self._hooks[record.slug]
            if (not named or event in named) and function in (None, name)
        }
        if not gone:
            raise NotFound(f"{record.slug} has no such hook", hint=f"eventcore plugins hook {record.slug} --list")
        done = [(self._tenant, record.slug, event, name) for event, name in gone]
        await self._commit(Batch(plugin_hooks_done=done), record.slug, "plugin_unhooked", gone, context)
        self._hooks[record.slug] -= gone
        self._took_up(record)
        return self.of(record.slug)

    async def forget(self, plugin: str, context: CallContext) -> int:
        """Remove every hook of a plugin, which may be gone; return how many there were."""
        rows = await self._store.plugin_hooks(self._tenant)
        gone = {(row.event, row.function) for row in rows if row.plugin == plugin}
        if gone:
            done = [(self._tenant, plugin, event, function) for event, function in gone]
            await self._commit(Batch(plugin_hooks_done=done), plugin, "plugin_unhooked", gone, context)
        self._hooks.pop(plugin, None)
        return len(gone)

    def _took_up(self, record: PluginRecord) -> None:
        if record.enabled:
            self.reconnect(record)

    async def _commit(
        self, batch: Batch, plugin: str, what: str, hooks: Iterable[tuple[str, str]], context: CallContext
    ) -> None:
        raw: dict[str, Any] = {"hooks": [list(hook) for hook in sorted(hooks)]}
        batch.audit.append(
            Audit(self._ids.new(), self._tenant, self._clock.now(), context.actor, what, plugin, None, encode(raw))
        )
        await self._bus.commit(batch)

    async def _checked(self, name: str) -> str:
        """The event's canonical name, if anything may ever emit it: a typo would wait in silence for good."""
        event = canonical_pattern(name.strip())
        if not is_literal(event) or event in CORE_EVENTS or self._bus.types.get(event) is not None:
            return event
        listed = {one for record in self._registry if record.manifest for one in record.manifest.emits}
        if event in listed or ("." in event and self._registry.find(event.partition(".")[0]) is not None):
            return event
        if await self._store.events(EventQuery(tenant=self._tenant, types=(event,), limit=1)):
            return event
        raise InvalidInput(
            f"nothing emits the event {event!r}{did_you_mean(event, {*CORE_EVENTS, *listed})}",
            hint="list it under events.emits of the plugin that emits it, or declare it",
        )
