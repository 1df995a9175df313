"""The engine as a whole."""

from __future__ import annotations

import os
from typing import Any

import anyio

from eventcore.engine import Engine


async def status(engine: Engine) -> dict[str, Any]:
    """What is open, and what could not be loaded."""
    return {
        "home": engine.home,
        "tenant": engine.tenant,
        "pid": os.getpid(),
        "position": await engine.store.last_position(),
        "idle": engine.idle,
        "plugins": sum(record.enabled for record in engine.plugins.list()),
        "workflows": len(engine.workflows.definitions()),
        "problems": engine.problems,
    }


async def settle(engine: Engine, timeout: float = 60.0) -> dict[str, Any]:
    """Wait until nothing is being handled and no run is being driven, at most `timeout` seconds."""
    with anyio.move_on_after(timeout):
        while not engine.idle:  # noqa: ASYNC110 - neither pumps nor runs signal idleness, to stay cheap
            await anyio.sleep(0.002)
    return {"idle": engine.idle}
