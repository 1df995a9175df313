"""Events: emit, list, show, tail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput
from eventcore.operations.shapes import tree
from eventcore.workflows.definition import seconds

_MAX_PAGE = 10_000


async def emit(
    engine: Engine,
    type: str,
    data: Any = None,
    subject: str | None = None,
    key: str | None = None,
    source: str = "/cli",
    idempotency_key: str | None = None,
) -> dict[str, Any]:
    """Record a fact; return its receipt."""
    receipt = await engine.bus.emit(
        type, data, subject=subject, key=key, source=source, idempotency_key=idempotency_key
    )
    return {"id": receipt.id, "position": receipt.position, "duplicate": receipt.duplicate}


def _when(text: str | float | None, name: str) -> datetime | timedelta | float | None:
    """A duration back from now (`2h`), an ISO instant, or seconds since the epoch."""
    if text is None or isinstance(text, int | float):
        return text
    try:
        return timedelta(seconds=seconds(text))
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidInput(f"{name} {text!r} is neither a duration like 2h nor an ISO time") from None


async def list_events(
    engine: Engine,
    type: str | None = None,
    source: str | None = None,
    subject: str | None = None,
    actor: str | None = None,
    run: str | None = None,
    correlation: str | None = None,
    since: str | float | None = None,
    until: str | float | None = None,
    text: str | None = None,
    after: int | None = None,
    before: int | None = None,
    limit: int = 50,
    newest: bool = True,
) -> list[dict[str, Any]]:
    """Recorded events that satisfy all conditions: the newest `limit` of them, oldest first.

    With `newest=False` (or `after`), the oldest `limit` of them.
    """
    if not 1 <= limit <= _MAX_PAGE:
        raise InvalidInput(f"limit is between 1 and {_MAX_PAGE:,}")
    backwards = newest and after is None
    query = engine.history.query(
        type=type,
        source=source,
        subject=subject,
        actor=actor,
        run=run,
        correlation=correlation,
        since=_when(since, "since"),
        until=_when(until, "until"),
        text=text,
        after=after,
        before=before,
        newest_first=backwards,
        limit=limit,
    )
    found = [event.as_dict() async for event in query]
    return found[::-1] if backwards else found


async def show(engine: Engine, id: str) -> dict[str, Any]:
    """One event, and the tree of everything that belongs to the same outside act."""
    event = await engine.history.get(id)
    found = await engine.history.tree(id)
    return {"event": event.as_dict(), "tree": [tree(root) for root in found.roots], "truncated": found.truncated}


async def tail(
    engine: Engine, send: Callable[[Any], Awaitable[None]], pattern: str = "**", past: int = 0
) -> dict[str, Any]:
    """Send events as they are committed, until the caller goes away; first the newest `past` recorded ones."""
    async with engine.bus.stream(pattern) as events:
        last = 0
        if past:
            wanted = None if pattern == "**" else pattern
            for event in await list_events(engine, type=wanted, limit=past):
                last = event["position"]
                await send(event)
        async for new in events:
            if new.position > last or not new.position:
                await send(new.as_dict())
    return {}


async def summary(engine: Engine, after: int = 0) -> dict[str, Any]:
    """Counts by event type of everything recorded after a position."""
    counts = Counter([event.type async for event in engine.history.query(after=after)])
    return {"events": sum(counts.values()), "by_type": dict(sorted(counts.items())), "after": after}
