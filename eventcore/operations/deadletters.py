"""Dead letters: list, show, redrive, drop."""

from __future__ import annotations

from typing import Any

from eventcore.bus.dead_letters import Letter
from eventcore.engine import Engine
from eventcore.operations.shapes import instant


def _row(letter: Letter) -> dict[str, Any]:
    event = letter.event
    return {
        "id": letter.id,
        "subscription": letter.subscription,
        "position": letter.position,
        "type": event.type if event else None,
        "event": event.id if event else None,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "time": instant(letter.at),
    }


def _full(letter: Letter) -> dict[str, Any]:
    return {**_row(letter), "event": letter.event.as_dict() if letter.event else None}


async def list_letters(
    engine: Engine, subscription: str | None = None, limit: int = 50, events: bool = False
) -> list[dict[str, Any]]:
    """Dead letters, newest first. With `events`, each with its event in full."""
    shape = _full if events else _row
    return [shape(letter) for letter in await engine.bus.dead_letters.list(subscription=subscription, limit=limit)]


async def show(engine: Engine, id: str) -> dict[str, Any]:
    """One dead letter, with its event (None if that is not in the history any more)."""
    return _full(await engine.bus.dead_letters.show(id))


async def redrive(engine: Engine, id: str) -> dict[str, Any]:
    """Deliver a dead letter's event again to the subscription that gave up on it."""
    return _row(await engine.bus.dead_letters.redrive(id))


async def drop(engine: Engine, id: str) -> dict[str, Any]:
    """Remove a dead letter for good."""
    return _row(await engine.bus.dead_letters.drop(id))
