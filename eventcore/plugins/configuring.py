"""Setting and forgetting settings of plugins at run time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import NotFound
from eventcore.kernel.json import encode
from eventcore.kernel.ports import Clock, Ids
from eventcore.kernel.records import Audit, Batch, PluginSetting
from eventcore.plugins.calls import Calls
from eventcore.plugins.configuration import Setting
from eventcore.plugins.registry import PluginRecord


class Configuring:
    """What `eventcore plugins config` does.

    Args:
        commit: stores a batch.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        commit: Callable[[Batch], Awaitable[Any]],
        clock: Clock,
        ids: Ids,
        tenant: str,
    ) -> None:
        self._calls, self._commit, self._clock, self._ids, self._tenant = calls, commit, clock, ids, tenant
        self._lock = anyio.Lock()

    def show(self, record: PluginRecord) -> list[Setting]:
        """Every setting, with its value and the layer that it comes from."""
        return self._calls.configuration.shown(record)

    async def set(self, record: PluginRecord, key: str, value: Any, context: CallContext) -> Setting | None:
        """Set one setting; an enabled plugin's next call sees it.

        Raises:
            InvalidInput: there is no such setting, the value does not fit the schema, or it is a secret in plain text.
        """
        configuration = self._calls.configuration
        accepted = configuration.accept(record, key, value)
        row = PluginSetting(self._tenant, record.slug, key, encode(accepted), self._clock.now())
        async with self._lock:
            await self._store(Batch(plugin_settings=[row]), record, key, context)
            configuration.put(record, key, accepted)
        return self._changed(record, key)

    async def unset(self, record: PluginRecord, key: str, context: CallContext) -> Setting | None:
        """Forget what was set at run time: the layer beneath it counts again. None if none has such a setting.

        Raises:
            NotFound: it was not set at run time.
        """
        configuration = self._calls.configuration
        if key not in configuration.stored(record.slug):
            raise NotFound(
                f"{key} of {record.slug} was not set at run time", hint=f"eventcore plugins config {record.slug}"
            )
        async with self._lock:
            await self._store(Batch(plugin_settings_done=[(self._tenant, record.slug, key)]), record, key, context)
            configuration.drop(record.slug, key)
        return self._changed(record, key)

    def _changed(self, record: PluginRecord, key: str) -> Setting | None:
        self._calls.forget(record)  # a worker that was started with other settings is replaced at the next call
        return next((one for one in self.show(record) if one.key == key), None)

    async def _store(self, batch: Batch, record: PluginRecord, key: str, context: CallContext) -> None:
        """The setting and the audit entry, in one commit. Secrets are in neither: they are stored by name."""
        old = self._calls.configuration.stored(record.slug).get(key)
        raw = batch.plugin_settings[0].raw if batch.plugin_settings else None
        batch.audit.append(
            Audit(
                self._ids.new(),
                self._tenant,
                self._clock.now(),
                context.actor,
                "plugin_configured",
                f"{record.slug}.{key}",
                None if old is None else encode(old),
                raw,
            )
        )
        with anyio.CancelScope(shield=True):
            await self._commit(batch)
