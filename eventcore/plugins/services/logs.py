"""Log lines of plugins go to the host's log, under the plugin's name, and into the logbook; what the kernel refused
them, into the record."""

from __future__ import annotations

import logging
from typing import Any

from eventcore.plugins.host_api import CallApi, Service
from eventcore.plugins.logbook import Line, Logbook
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.sandbox.reports import clean
from eventcore.plugins.sandbox.worker.watch import LOGGER

_LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
_MAX_LINE = 4096
_MAX_LOGGER = 128


def table(logbook: Logbook) -> dict[str, Service]:
    """The service `log`."""

    async def write(call: CallApi, params: dict[str, Any]) -> None:
        """Write one line, if the manifest's `monitoring` lets it through: cut at 4,096 characters, control characters
        spelled out."""
        if params.get("logger") == LOGGER:
            await _denied(call, str(params.get("message", "")))
            return
        level = _LEVELS.get(str(params.get("level", "info")).lower(), logging.INFO)
        wanted = call.record.described().monitoring
        if not wanted.enable_logging or level < _LEVELS[wanted.log_level.lower()]:
            return
        slug, context = call.record.slug, call.context
        message = clean(str(params.get("message", "")), _MAX_LINE)
        logger = clean(str(params.get("logger", "")), _MAX_LOGGER)
        about = {"call": context.cause.event, "run": context.cause.run}
        log = logging.getLogger(f"eventcore.plugins.{slug}")
        # Which levels count is for the manifest to say, line by line; what handlers show is for the host.
        log.handle(log.makeRecord(log.name, level, "", 0, "%s", (message,), None, extra={"plugin": slug, **about}))
        shown = logging.getLevelName(level).lower()
        logbook.add(Line(slug, call.services.clock.now(), shown, logger, message, context.tenant, **about))

    return {"log": write}


async def _denied(call: CallApi, message: str) -> None:
    """Record what the plugin's worker says that the kernel refuses. It is only the worker's word, about itself."""
    word, _, what = message.partition(" ")
    if word not in {str(permission) for permission in PluginPermission}:
        return
    text = f"{call.record.slug} may not {what[:256]}: the sandbox refuses it"
    await call.services.refusals.note(call.record.slug, text, call.context, permission=word, by="sandbox")
