"""Events: emit, find, list, show, tail; and requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from eventcore.bus.outcome import Receipt
from eventcore.engine import Engine
from eventcore.kernel.cloudevents import to_cloudevent
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.operations.shapes import tree
from eventcore.operations.times import when

_MAX_PAGE = 10_000
_FORMATS: dict[str, Callable[[Event], dict[str, Any]]] = {"events": Event.as_dict, "cloudevents": to_cloudevent}


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
    return _receipt(receipt)


async def emit_cloudevent(engine: Engine, body: Any) -> dict[str, Any]:
    """Record a CloudEvent from outside, or each of a batch of them; return the receipt, or the receipts."""
    if isinstance(body, list):
        receipts = await engine.bus.emit_cloudevents(body)
        return {"receipts": [_receipt(one) for one in receipts]}
    return _receipt(await engine.bus.emit_cloudevent(body))


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {"id": receipt.id, "position": receipt.position, "duplicate": receipt.duplicate}


async def emit_many(engine: Engine, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Record facts in one commit, all or none; return their receipts."""
    return [_receipt(receipt) for receipt in await engine.bus.emit_many(entries)]


async def request(
    engine: Engine, target: str, params: dict[str, Any] | None = None, timeout: float = 10.0
) -> dict[str, Any]:
    """Ask a plugin or an intent over the bus; return its answer."""
    return {"answer": await engine.bus.request(target, params, timeout=timeout)}


async def find(
    engine: Engine, pattern: str, where: dict[str, Any] | None = None, past: float = 5.0, future: float = 5.0
) -> dict[str, Any] | None:
    """The oldest event that matches, of the last `past` or else of the next `future` seconds; or None."""
    event = await engine.bus.find(pattern, where=where, past=past, future=future)
    return None if event is None else event.as_dict()


async def emit_line(
    engine: Engine,
    type: str | None = None,
    data: Any = None,
    subject: str | None = None,
    key: str | None = None,
    source: str = "/cli",
    cloudevents: list[Any] | None = None,
) -> dict[str, Any]:
    """One line of a file: CloudEvents, or a fact as for `events.emit`."""
    if cloudevents is not None:
        return await emit_cloudevent(engine, cloudevents)
    if type is None:
        raise InvalidInput("a line has a type, or holds CloudEvents")
    return await emit(engine, type, data, subject, key, source)


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
    where: dict[str, Any] | None = None,
    after: int | None = None,
    before: int | None = None,
    limit: int = 50,
    newest: bool = True,
    format: str = "events",
) -> list[dict[str, Any]]:
    """Recorded events that satisfy all conditions: the newest `limit` of them, oldest first.

    With `newest=False` (or `after`), the oldest `limit` of them. `format` is `events` or `cloudevents`.
    """
    if format not in _FORMATS:
        raise InvalidInput(f"format is {' or '.join(_FORMATS)}, not {format!r:.40}")
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
        since=when(since, "since"),
        until=when(until, "until"),
        text=text,
        where=where,
        after=after,
        before=before,
        newest_first=backwards,
        limit=limit,
    )
    found = [_FORMATS[format](event) async for event in query]
    return found[::-1] if backwards else found


async def show(engine: Engine, id: str) -> dict[str, Any]:
    """One event, and the tree of everything that belongs to the same outside act."""
    event = await engine.history.get(id)
    found = await engine.history.tree(id)
    return {"event": event.as_dict(), "tree": [tree(root) for root in found.roots], "truncated": found.truncated}


async def payload(engine: Engine, id: str) -> Any:
    """What an event carries, also where that is too large for the log."""
    return await engine.bus.payload(await engine.history.get(id))


async def tail(
    engine: Engine,
    send: Callable[[Any], Awaitable[None]],
    pattern: str = "**",
    past: int = 0,
    after: int | None = None,
) -> dict[str, Any]:
    """Send events as they are committed, until the caller goes away.

    Args:
        past: first the newest so many recorded ones.
        after: first all recorded ones after this position: goes on where an earlier call ended, without a gap.
    """
    if past and after is not None:
        raise InvalidInput("give past or after, not both")
    last = 0
    if after is not None:
        # Most of it before listening begins: the stream's buffer holds emits back when it is full.
        last = await _send_past(engine, send, pattern, after)
    async with engine.bus.stream(pattern) as events:
        if after is not None:
            last = await _send_past(engine, send, pattern, last)
        elif past:
            for event in await list_events(engine, type=pattern, limit=past):
                last = event["position"]
                await send(event)
        async for new in events:
            if new.position > last or not new.position:
                await send(new.as_dict())
    return {}


async def _send_past(engine: Engine, send: Callable[[Any], Awaitable[None]], pattern: str, after: int) -> int:
    """Send everything recorded after a position; return the last one sent."""
    async for event in engine.history.query(type=pattern, after=after):
        if not event.imported:
            await send(event.as_dict())
        after = event.position
    return after


async def summary(engine: Engine, after: int = 0) -> dict[str, Any]:
    """Counts by event type of everything recorded after a position."""
    counts = {str(row.value): row.count for row in await engine.history.count("type", after=after)}
    return {"events": sum(counts.values()), "by_type": dict(sorted(counts.items())), "after": after}
