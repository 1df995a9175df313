"""What plugin code may ask of the host, and the checks that stand before each answer.

The services themselves are modules of `plugins/services/`; here are what they share: the call they serve, what it
has staged, and the checks. Permissions are looked up in the host's own record of the plugin, never in what a message
says. Changes are staged: they go into the commit that records the call's success, and an error drops them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any, TypeAlias

from eventcore.bus.acks import DeliveryContext
from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, PermissionDenied
from eventcore.kernel.ports import Clock, Ids, Metrics, Store, WorkflowStarter
from eventcore.kernel.records import Batch, Guard
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.refusals import Refusals
from eventcore.plugins.registry import PluginRecord

_MAX_STAGED = 1000
#: What these may come to: they are kept in memory until the call has ended. Bytes.
MAX_STAGED_BYTES = 16 << 20


class HostServices:
    """The services of one engine that plugin code can reach; makes one `CallApi` a call.

    Args:
        table: each service by the name that a plugin's worker sends.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        store: Store,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        starter: WorkflowStarter,
        table: Mapping[str, Service],
    ) -> None:
        self.bus, self.store, self.clock, self.ids = bus, store, clock, ids
        self.metrics, self.starter, self.table = metrics, starter, dict(table)
        self.refusals = Refusals(bus, ids, clock, metrics)

    def for_call(
        self,
        record: PluginRecord,
        context: CallContext,
        *,
        effects: bool = True,
        delivery: DeliveryContext | None = None,
    ) -> CallApi:
        """The API of one call.

        Args:
            effects: False for a gate or filter, which may only look.
            delivery: the durable delivery or replay that the call serves.
        """
        return CallApi(self, record, context, effects, delivery)


class CallApi:
    """Answers the requests of one call; `await api(method, params)` is the port `HostApi`."""

    def __init__(
        self,
        services: HostServices,
        record: PluginRecord,
        context: CallContext,
        effects: bool,
        delivery: DeliveryContext | None,
    ) -> None:
        self.services, self.record, self.delivery = services, record, delivery
        self._effects, self._caller = effects, context
        self.staged = Batch()
        self._seen, self._bytes = (0, 0), 0
        self.guards: list[Guard] = []

    @cached_property
    def context(self) -> CallContext:
        """What the plugin does by itself, it does as itself, for the caller it serves. Most calls ask for nothing."""
        return self._caller.acting_as(f"plugin:{self.record.slug}")

    async def __call__(self, method: str, params: dict[str, Any]) -> Any:
        service = self.services.table.get(method)
        if service is None:
            raise InvalidInput(f"the host has no service {method!r}")
        return await service(self, params)

    # -- checks ------------------------------------------------------------------------------------------------------

    async def need(self, permission: PluginPermission, what: str) -> None:
        """Refuse `what` ("emit order.made"), recorded, if the plugin was not granted `permission`."""
        if permission not in self.record.granted:
            await self.refuse(
                f"{self.record.slug} may not {what}: it was not granted {permission}", permission=str(permission)
            )

    async def may_change(self, what: str) -> None:
        """Refuse `what` if the call may only look, or has staged as much as one call may."""
        if not self._effects:
            await self.refuse(f"{self.record.slug} may not {what} in a gate or filter, which only look")
        if len(self.staged.log) + len(self.staged.memory) >= _MAX_STAGED:
            raise InvalidInput(f"one call may stage at most {_MAX_STAGED} changes")
        if self._staged_bytes() > MAX_STAGED_BYTES:
            raise InvalidInput(f"the changes that one call stages may come to {MAX_STAGED_BYTES >> 20} MiB")

    def _staged_bytes(self) -> int:
        """The size of what is staged. What has been looked at before is not looked at again."""
        rows = [*self.staged.log[self._seen[0] :], *self.staged.memory[self._seen[1] :]]
        self._seen = len(self.staged.log), len(self.staged.memory)
        self._bytes += sum(map(_size, rows))
        return self._bytes

    async def refuse(self, message: str, **details: Any) -> None:
        """Record `permission_denied` with `details`, and raise it.

        Raises:
            PermissionDenied: always.
        """
        await self.services.refusals.note(self.record.slug, message, self.context, **details)
        raise PermissionDenied(message, hint=f"eventcore plugins permissions {self.record.slug}")


def _size(row: Any) -> int:
    values = (getattr(row, one.name) for one in fields(row))
    return sum(len(value) for value in values if isinstance(value, bytes | str))


#: One service: given the call it serves and the parameters that plugin code sent, which may be anything JSON holds.
Service: TypeAlias = Callable[[CallApi, dict[str, Any]], Awaitable[Any]]


def number(params: dict[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A number that plugin code sent, brought within bounds.

    Raises:
        InvalidInput: it is not a number.
    """
    value = params.get(name, default)
    if not isinstance(value, int | float):
        raise InvalidInput(f"{name} is a number, not {type(value).__name__}")
    return max(least, min(value, most))
