"""What is remembered: search, list, forget."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.json import decode
from eventcore.kernel.records import Memory
from eventcore.operations.shapes import instant
from eventcore.operations.times import span

MAX_FOUND = 1000


async def search(engine: Engine, text: str, limit: int = 10, plugin: str | None = None) -> list[dict[str, Any]]:
    """Memories that fit a text: nearest first where a service measures them, else by words, newest first."""
    found = await engine.plugins.memories.find(engine.tenant, text, _limit(limit), plugin)
    return [_row(row) | {"likeness": None if likeness is None else round(likeness, 4)} for row, likeness in found]


async def list_memories(engine: Engine, limit: int = 50, plugin: str | None = None) -> dict[str, Any]:
    """The newest memories, and how many each plugin has."""
    rows = await engine.store.memories(engine.tenant, "", _limit(limit), owner=plugin)
    owners = await engine.store.memory_owners(engine.tenant)
    return {
        "memories": [_row(row) for row in rows],
        "plugins": [{"plugin": name, "memories": count, "last": instant(last)} for name, count, last in owners],
    }


async def purge(
    engine: Engine,
    text: str = "",
    plugin: str | None = None,
    older_than: str | float | None = None,
    everything: bool = False,
) -> dict[str, Any]:
    """Forget memories: those that hold every word of `text`, of one plugin, or older than a time."""
    if not (text.strip() or plugin or older_than is not None or everything):
        raise InvalidInput("say what to forget: a text, a plugin, an age, or everything")
    until = None if older_than is None else engine.clock.now() - span(older_than, "older_than")
    count = await engine.plugins.memories.purge(engine.bus.context(), text=text, owner=plugin, until=until)
    return {"forgotten": count}


def _limit(limit: int) -> int:
    if not 1 <= limit <= MAX_FOUND:
        raise InvalidInput(f"limit is 1 to {MAX_FOUND:,}, not {limit}")
    return limit


def _row(row: Memory) -> dict[str, Any]:
    return {
        "id": row.id,
        "time": instant(row.at),
        "plugin": row.owner,
        "query": row.query,
        "result": decode(row.raw_result),
    }
