"""What programs ask of plugins through the plugin classes: which intents there are, and calls with a user's context."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.context import CallContext, caller


async def intents(engine: Engine) -> list[str]:
    """Every intent that `plugins.call` can reach."""
    return engine.plugins.reachable()


async def rescan(engine: Engine) -> dict[str, list[str]]:
    """Look for plugins again, and bring those that changed up to date."""
    return asdict(await engine.plugins.rescan())


async def call(
    engine: Engine,
    name: str,
    params: dict[str, Any] | None = None,
    user: str | None = None,
    roles: list[str] | None = None,
    tenant: str | None = None,
    timeout: float | None = None,
    remember: bool = False,
) -> dict[str, Any]:
    """Call a plugin by intent or name, enabling it if it was only discovered and needs nothing that it is not granted.

    With `user` or `roles`, as that caller, who has the roles given and no others; else as the operator. With
    `remember` the result goes into memory, if the settings say so.
    """
    await engine.plugins.ready(name)
    context: CallContext = engine.bus.context()
    if user is not None or roles is not None:
        context = caller(f"user:{user or 'anonymous'}", roles or (), tenant or engine.tenant)
    began = time.perf_counter()
    done = await engine.plugins.calls.run(name, params or {}, context, timeout=timeout, remember=remember)
    seconds = round(time.perf_counter() - began, 6)
    return {
        "result": done.result,
        "plugin": done.provider,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "seconds": seconds,
    }
