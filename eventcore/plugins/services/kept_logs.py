"""Log lines of plugins are kept in the logbook, too."""

from __future__ import annotations

import logging
from typing import Any

from eventcore.plugins.host_api import CallApi, Service
from eventcore.plugins.logbook import Line, Logbook

_MAX_LINE = 4096
_MAX_LOGGER = 128


def table(logbook: Logbook, write: Service) -> dict[str, Service]:
    """The service `log`: what `write` does, and the line is kept.

    Args:
        write: the service that logs a line to the host's log.
    """

    async def keep(call: CallApi, params: dict[str, Any]) -> None:
        """Write one line, cut at 4,096 characters."""
        await write(call, params)
        level = logging.getLevelNamesMapping().get(str(params.get("level", "info")).upper(), logging.INFO)
        logger, message = str(params.get("logger", ""))[:_MAX_LOGGER], str(params.get("message", ""))[:_MAX_LINE]
        context, at = call.context, call.services.clock.now()
        where = {"call": context.cause.event, "run": context.cause.run}
        logbook.add(
            Line(call.record.slug, at, logging.getLevelName(level).lower(), logger, message, context.tenant, **where)
        )

    return {"log": keep}
