"""Memories as programs read and write them, for any tenant: these are the operator's verbs."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.json import decode, encode
from eventcore.kernel.records import Batch, Memory
from eventcore.operations.shapes import instant

_MAX_RESULT = 256 * 1024
_MAX_QUERY = 4096


async def write(
    engine: Engine, query: str, result: Any = None, user: str | None = None, tenant: str | None = None
) -> None:
    """Remember a JSON result under its query."""
    raw = encode(result, limit=_MAX_RESULT, what="the result to remember")
    services = engine.plugins.calls.services
    owner = f"user:{user}" if user else "operator"
    row = Memory(services.ids.new(), tenant or engine.tenant, owner, query[:_MAX_QUERY], raw, services.clock.now())
    await engine.bus.commit(Batch(memory=[row]))


async def read(engine: Engine, query: str, limit: int = 5, tenant: str | None = None) -> list[dict[str, Any]]:
    """Memories that hold every word of the query, newest first."""
    if not 1 <= limit <= 100:
        raise InvalidInput("limit is between 1 and 100")
    rows = await engine.store.memories(tenant or engine.tenant, query, limit)
    return [{"query": row.query, "result": decode(row.raw_result), "time": instant(row.at)} for row in rows]
