"""Log lines of plugins go to the host's log, under the plugin's name; what the kernel refused them, into the record."""

from __future__ import annotations

import logging
from typing import Any

from eventcore.plugins.host_api import CallApi, Service
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.sandbox.worker.watch import LOGGER

_LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
_MAX_LINE = 4096


def table() -> dict[str, Service]:
    """The service `log`."""
    return {"log": write}


async def write(call: CallApi, params: dict[str, Any]) -> None:
    """Write one line, cut at 4,096 characters."""
    if params.get("logger") == LOGGER:
        await _denied(call, str(params.get("message", "")))
        return
    level = _LEVELS.get(str(params.get("level", "info")).lower(), logging.INFO)
    log = logging.getLogger(f"eventcore.plugins.{call.record.slug}")
    log.log(level, "%s", str(params.get("message", ""))[:_MAX_LINE])


async def _denied(call: CallApi, message: str) -> None:
    """Record what the plugin's worker says that the kernel refuses. It is only the worker's word, about itself."""
    word, _, what = message.partition(" ")
    if word not in {str(permission) for permission in PluginPermission}:
        return
    text = f"{call.record.slug} may not {what[:256]}: the sandbox refuses it"
    await call.services.refusals.note(call.record.slug, text, call.context, permission=word, by="sandbox")
