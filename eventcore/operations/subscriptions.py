"""Durable subscriptions: list their places, drop one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eventcore.engine import Engine


async def list_places(engine: Engine) -> list[dict[str, Any]]:
    """Where every durable subscription stands, by name."""
    return [asdict(place) for place in await engine.bus.places.list()]


async def drop(engine: Engine, name: str) -> dict[str, Any]:
    """Give up a durable subscription that nobody consumes."""
    await engine.bus.places.drop(name)
    return {"name": name, "dropped": True}
