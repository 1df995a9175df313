"""Hooking functions of plugins to events."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.plugins.registry import PluginRecord


async def hooks(engine: Engine, name: str) -> dict[str, Any]:
    """The events that the operator hooked a plugin's functions to."""
    return _answer(engine, engine.plugins.get(name))


async def hook(engine: Engine, name: str, events: list[str], callback: str) -> dict[str, Any]:
    """Call a plugin's function for events, from their next one on; durable, and kept over restarts."""
    record = engine.plugins.get(name)
    known = await engine.plugins.lifecycle.functions(record)
    await engine.plugins.hooking.add(record, events, callback, known, engine.bus.context())
    return _answer(engine, record)


async def unhook(
    engine: Engine, name: str, events: list[str] | None = None, callback: str | None = None
) -> dict[str, Any]:
    """Remove hooks of these events (all if none are named) and this function (any if none is named)."""
    record = engine.plugins.get(name)
    await engine.plugins.hooking.remove(record, events or (), callback, engine.bus.context())
    return _answer(engine, record)


def _answer(engine: Engine, record: PluginRecord) -> dict[str, Any]:
    found = engine.plugins.hooking.of(record.slug)
    return {
        "plugin": record.slug,
        "state": record.state,
        "hooks": [{"event": event, "callback": function} for event, function in found],
    }
