"""The history as a whole: counts, explanations, retention, export, import, backup."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import anyio

from eventcore.bus.subscription import Subscription
from eventcore.engine import Engine
from eventcore.kernel.cloudevents import to_cloudevent
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event, joined
from eventcore.kernel.names import pattern as compile_pattern
from eventcore.kernel.upkeep import CountBy
from eventcore.operations.auditing import audit
from eventcore.operations.shapes import instant
from eventcore.operations.times import span, when

_MOST = 1000


async def count(
    engine: Engine, by: str = "type", every: str | float | None = None, **conditions: Any
) -> list[dict[str, Any]]:
    """How many events satisfy the conditions of `events.list`, by a field and stretches of time."""
    for name in ("since", "until"):
        conditions[name] = when(conditions.get(name), name)
    seconds = None if every is None else span(every, "every")
    found = await engine.history.count(cast("CountBy", by), every=seconds, **conditions)
    return [
        {by: row.value, "count": row.count}
        | ({} if row.since is None else {"since": instant(row.since) or "1970-01-01T00:00:00Z"})
        | ({} if seconds is None else {"per_second": round(row.count / seconds, 6)})
        for row in found
    ]


async def explain(engine: Engine, id: str) -> dict[str, Any]:
    """Why an event did, or did not, start something: triggers, subscriptions, and what came of them."""
    event = await engine.history.get(id)
    return {
        "event": event.as_dict(),
        "imported": event.imported,
        "triggers": await _triggers(engine, event),
        "subscriptions": [await _subscription(engine, one, event) for one in _listeners(engine, event)],
        "failures": await _about(engine, event, "plugin_error"),
        "dead_letters": [
            {"id": row.id, "subscription": row.subscription, "reason": row.reason, "attempts": row.attempts}
            for row in await engine.store.dead_letters(event.tenant, _MOST)
            if row.position == event.position
        ],
    }


async def _triggers(engine: Engine, event: Event) -> list[dict[str, Any]]:
    runs: dict[tuple[str, str], str] = {}
    correlation = event.correlation_id or event.id
    async for started in engine.history.query(type="workflow_started", correlation=correlation, after=event.position):
        if started.causation_id == event.id and started.data.get("trigger"):
            runs[started.data["slug"], started.data["trigger"]] = started.id
    failed = {(one["slug"], one["trigger"]): one["message"] for one in await _about(engine, event, "trigger_failed")}
    found = engine.workflows.explain(event)
    for one in found:
        name = one["slug"], one["trigger"]
        one["run"] = runs.get(name)
        one["error"] = failed.get(name, one["error"])
    return found


async def _about(engine: Engine, event: Event, type: str) -> list[dict[str, Any]]:
    """The data of host events that name this one."""
    query = engine.history.query(type=type, where={"data.event": event.id}, after=event.position, limit=_MOST)
    return [one.data async for one in query]


def _listeners(engine: Engine, event: Event) -> list[Subscription]:
    return [
        one
        for one in engine.bus.subscriptions()
        if one.tenant in (None, event.tenant) and compile_pattern(one.pattern).fullmatch(event.type)
    ]


async def _subscription(engine: Engine, one: Subscription, event: Event) -> dict[str, Any]:
    """Whether a subscription of now takes the event, and for a durable one how far it is with it."""
    row: dict[str, Any] = {"name": one.name, "pattern": one.pattern, "wants": True, "error": None, "state": None}
    try:
        row["wants"] = one.wants(event)
    except Exception as error:  # noqa: BLE001 - a filter of somebody else's, whatever it raises
        row |= {"wants": False, "error": f"its filter failed: {type(error).__name__}: {error}"}
    stored = getattr(one, "stored", None)
    if stored is not None:
        row["state"] = await _state(engine, event, stored)
    return row


async def _state(engine: Engine, event: Event, stored: str) -> str:
    for row in await engine.store.deliveries(event.tenant, stored, 10_000):
        if row.position == event.position:
            return f"{row.state}, {row.attempt} attempts failed" if row.attempt else row.state
    cursor = await engine.store.cursor(event.tenant, stored)
    return "settled" if cursor is not None and cursor.position >= event.position else "not yet delivered"


async def prune(
    engine: Engine, older_than: str | float, type: str | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Remove old events; step events leave the history but stay in the journal of their run."""
    age = span(older_than, "older_than")
    gone = await engine.archive.prune(older_than=age, tenant=engine.tenant, pattern=type, dry_run=dry_run)
    if not dry_run:
        await audit(engine, "prune", f"{type or 'all'} older than {age:g} s")
    return {"events": gone.events, "steps": gone.steps, "dry_run": dry_run}


async def export(
    engine: Engine,
    send: Callable[[Any], Awaitable[None]],
    type: str | None = None,
    since: str | float | None = None,
    until: str | float | None = None,
    after: int | None = None,
) -> dict[str, Any]:
    """Send events as CloudEvents, oldest first."""
    number = 0
    query = engine.history.query(type=type, since=when(since, "since"), until=when(until, "until"), after=after)
    async for event in query:
        await send(to_cloudevent(await _whole(engine, event)))
        number += 1
    return {"events": number}


async def _whole(engine: Engine, event: Event) -> Event:
    """With its payload in the event, as another home has no blobs of ours."""
    raw = None if event.blob is None else await engine.store.blob(event.tenant, event.blob)
    return event if raw is None else joined(event, raw)


async def import_events(engine: Engine, events: list[Any]) -> dict[str, Any]:
    """Store CloudEvents, given as [line, body] pairs, as history: no delivery, no trigger, marked `imported`."""
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in events):
        raise InvalidInput("events is a list of [line, CloudEvent] pairs")
    done = await engine.archive.add(((line, body) for line, body in events), engine.tenant)
    return {"imported": done.imported, "duplicates": done.duplicates, "errors": done.errors}


async def backup(engine: Engine, path: str) -> dict[str, Any]:
    """Copy the store to a new file, as it is at one moment, while work goes on."""
    target = Path(path)
    if not target.is_absolute():
        raise InvalidInput(f"{path} is a relative path", hint="the engine has a current folder of its own")
    await engine.store.backup(target)
    await audit(engine, "backup", path)
    size = (await anyio.Path(target).stat()).st_size
    return {"path": path, "bytes": size, "position": await engine.store.last_position()}
