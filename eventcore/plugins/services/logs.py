"""Log lines of plugins go to the host's log, under the plugin's name."""

from __future__ import annotations

import logging
from typing import Any

from eventcore.plugins.host_api import CallApi, Service

_LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
_MAX_LINE = 4096


def table() -> dict[str, Service]:
    """The service `log`."""
    return {"log": write}


async def write(call: CallApi, params: dict[str, Any]) -> None:
    """Write one line, cut at 4,096 characters."""
    level = _LEVELS.get(str(params.get("level", "info")).lower(), logging.INFO)
    log = logging.getLogger(f"eventcore.plugins.{call.record.slug}")
    log.log(level, "%s", str(params.get("message", ""))[:_MAX_LINE])
