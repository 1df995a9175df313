"""What plugin code may ask of the host, and the checks that stand before each answer.

Permissions are looked up in the host's own record of the plugin, never in what the message says. Changes are staged:
they go into the commit that records the call's success, and an error drops them.
"""

from __future__ import annotations

import logging
from typing import Any

from eventcore.bus.acks import DeliveryContext
from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, PermissionDenied
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import CORE_EVENTS, event_type, is_hook_event
from eventcore.kernel.ports import Clock, Ids, Metrics, Store, WorkflowStarter
from eventcore.kernel.records import Batch, Guard, Memory
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord

_LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
_MAX_MEMORY = 256 * 1024
_MAX_STAGED = 1000


class HostServices:
    """The services of one engine that plugin code can reach; makes one `CallApi` a call."""

    def __init__(
        self,
        *,
        bus: Bus,
        store: Store,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        starter: WorkflowStarter,
    ) -> None:
        self.bus, self.store, self.clock, self.ids = bus, store, clock, ids
        self.metrics, self.starter = metrics, starter

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
        self._services, self._record, self._effects, self._delivery = services, record, effects, delivery
        # What the plugin does by itself, it does as itself, for the caller it serves.
        self._context = context.acting_as(f"plugin:{record.slug}")
        self._log = logging.getLogger(f"eventcore.plugins.{record.slug}")
        self.staged = Batch()
        self.guards: list[Guard] = []

    async def __call__(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "log":
                return self._write_log(params)
            case "emit":
                return await self._emit(params)
            case "memory.read":
                return await self._read_memory(params)
            case "memory.write":
                return await self._write_memory(params)
            case "workflows.start":
                return await self._start_workflow(params)
            case "request":
                return await self._request(params)
            case "in_progress":
                return self._in_progress()
            case _:
                raise InvalidInput(f"the host has no service {method!r}")

    # -- checks ------------------------------------------------------------------------------------------------------

    async def _need(self, permission: PluginPermission, what: str) -> None:
        if permission not in self._record.granted:
            await self._refuse(
                f"{self._record.slug} may not {what}: it was not granted {permission}", permission=str(permission)
            )

    async def _may_change(self, what: str) -> None:
        if not self._effects:
            await self._refuse(f"{self._record.slug} may not {what} in a gate or filter, which only look")
        if len(self.staged.log) + len(self.staged.memory) >= _MAX_STAGED:
            raise InvalidInput(f"one call may stage at most {_MAX_STAGED} changes")

    async def _refuse(self, message: str, **details: Any) -> None:
        data = {"plugin": self._record.slug, "message": message, **details}
        await self._services.bus.announce("permission_denied", data, self._context, source="/plugins")
        raise PermissionDenied(message, hint=f"eventcore plugins info {self._record.slug}")

    # -- services ----------------------------------------------------------------------------------------------------

    def _write_log(self, params: dict[str, Any]) -> None:
        level = _LEVELS.get(str(params.get("level", "info")).lower(), logging.INFO)
        self._log.log(level, "%s", str(params.get("message", ""))[:4096])

    async def _emit(self, params: dict[str, Any]) -> dict[str, Any]:
        name = event_type(str(params.get("type", "")))
        await self._need(PluginPermission.PLUGIN_COMMUNICATION, f"emit {name}")
        await self._may_change(f"emit {name}")
        own = name.startswith(f"{self._record.slug}.")
        listed = name in self._record.described().emits and "." not in name
        if name in CORE_EVENTS or is_hook_event(name) or not (own or listed):
            await self._refuse(
                f"{self._record.slug} may not emit {name}: its manifest lists no such event in events.emits"
            )
        bus = self._services.bus
        data = bus.types.check(name, params.get("data"))
        source = f"/plugins/{self._record.slug}"
        event = bus.build(name, data, self._context, source=source, key=params.get("key"))
        if params.get("now") or bus.types.is_transient(name):
            receipt = await bus.take_in(event)
            return {"id": receipt.id, "position": receipt.position}
        bus.check(event)
        self.staged.log.append(event)
        return {"id": event.id, "position": None}

    async def _read_memory(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        await self._need(PluginPermission.MEMORY_READ, "read memory")
        text, limit = str(params.get("query", "")), int(_number(params, "limit", 5, 1, 100))
        words = text.casefold().split()
        own = [
            row
            for row in reversed(self.staged.memory)
            if all(word in f"{row.query} {row.raw_result.decode()}".casefold() for word in words)
        ]
        rows = [*own, *await self._services.store.memories(self._context.tenant, text, limit)][:limit]
        return [{"query": row.query, "result": decode(row.raw_result), "time": row.at} for row in rows]

    async def _write_memory(self, params: dict[str, Any]) -> None:
        await self._need(PluginPermission.MEMORY_WRITE, "write memory")
        await self._may_change("write memory")
        services = self._services
        raw = encode(params.get("result"), limit=_MAX_MEMORY, what="the result to remember")
        query = str(params.get("query", ""))[:4096]
        row = Memory(services.ids.new(), self._context.tenant, self._record.slug, query, raw, services.clock.now())
        self.staged.memory.append(row)
        services.metrics.count("memory_writes_total", plugin=self._record.slug)

    async def _start_workflow(self, params: dict[str, Any]) -> dict[str, Any]:
        slug = str(params.get("slug", ""))
        if not self._record.described().enable_external_workflow:
            await self._refuse(
                f"{self._record.slug} may not start {slug}: its manifest does not set enable_external_workflow"
            )
        await self._may_change(f"start {slug}")
        inputs = params.get("inputs") or {}
        if not isinstance(inputs, dict):
            raise InvalidInput(f"the inputs of {slug} are an object, not {type(inputs).__name__}")
        batch, guards, run = self._services.starter.stage_start(slug, inputs, self._context)
        self.staged.add(batch)
        self.guards.extend(guards)
        return {"run": run, "slug": slug}

    async def _request(self, params: dict[str, Any]) -> Any:
        intent = str(params.get("intent", ""))
        await self._need(PluginPermission.PLUGIN_COMMUNICATION, f"call {intent}")
        await self._may_change(f"call {intent}")
        timeout = _number(params, "timeout", 10, 0.001, 3600)
        body = params.get("params") or {}
        if not isinstance(body, dict):
            raise InvalidInput(f"the parameters of {intent} are an object, not {type(body).__name__}")
        return await self._services.bus.request(intent, body, timeout=timeout, context=self._context)

    def _in_progress(self) -> None:
        # The worker's own limit begins anew where this does not raise; see `ProcessWorker`.
        if self._delivery is None:
            raise InvalidInput("ctx.in_progress() is for handlers of durable subscriptions; this call is not one")
        self._delivery.in_progress()


def _number(params: dict[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A number that plugin code sent, brought within bounds."""
    value = params.get(name, default)
    if not isinstance(value, int | float):
        raise InvalidInput(f"{name} is a number, not {type(value).__name__}")
    return max(least, min(value, most))
