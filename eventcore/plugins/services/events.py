"""Emitting: a plugin's own events and those that its manifest lists."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.names import event_type
from eventcore.plugins.host_api import CallApi, Service
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.plans import may_emit


def table() -> dict[str, Service]:
    """The service `emit`."""
    return {"emit": emit}


async def emit(call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
    """Stage an event, or commit it at once (`now`); returns its id, and its position if it has one already."""
    plugin = call.record.slug
    name = event_type(str(params.get("type", "")))
    await call.need(PluginPermission.PLUGIN_COMMUNICATION, f"emit {name}")
    await call.may_change(f"emit {name}")
    if not may_emit(call.record, name):
        await call.refuse(f"{plugin} may not emit {name}: its manifest lists no such event in events.emits")
    bus = call.services.bus
    data = bus.types.check(name, params.get("data"))
    event = bus.build(name, data, call.context, source=f"/plugins/{plugin}", key=params.get("key"))
    if params.get("now") or bus.types.is_transient(name):
        receipt = await bus.take_in(event)
        return {"id": receipt.id, "position": receipt.position}
    bus.check(event)
    call.staged.log.append(event)
    return {"id": event.id, "position": None}
