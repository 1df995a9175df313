"""Calling other plugins, and keeping a long delivery alive."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.host_api import CallApi, Service, number
from eventcore.plugins.permissions import PluginPermission


def table() -> dict[str, Service]:
    """The services `request` and `in_progress`."""
    return {"request": request, "in_progress": in_progress}


async def request(call: CallApi, params: dict[str, Any]) -> Any:
    """The answer of whoever serves an intent."""
    intent = str(params.get("intent", ""))
    await call.need(PluginPermission.PLUGIN_COMMUNICATION, f"call {intent}")
    await call.may_change(f"call {intent}")
    timeout = number(params, "timeout", 10, 0.001, 3600)
    body = params.get("params") or {}
    if not isinstance(body, dict):
        raise InvalidInput(f"the parameters of {intent} are an object, not {type(body).__name__}")
    return await call.services.bus.request(intent, body, timeout=timeout, context=call.context)


async def in_progress(call: CallApi, params: dict[str, Any]) -> None:
    """Begin the delivery's time limit anew."""
    # The worker's own limit begins anew where this does not raise; see `ProcessWorker`.
    if call.delivery is None:
        raise InvalidInput("ctx.in_progress() is for handlers of durable subscriptions; this call is not one")
    call.delivery.in_progress()
