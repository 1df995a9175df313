"""Memory: results remembered for a tenant."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.json import decode, encode
from eventcore.kernel.records import Memory
from eventcore.plugins.host_api import CallApi, Service, number
from eventcore.plugins.permissions import PluginPermission

_MAX_RESULT = 256 * 1024
_MAX_QUERY = 4096


def table() -> dict[str, Service]:
    """The services `memory.read` and `memory.write`."""
    return {"memory.read": read, "memory.write": write}


async def read(call: CallApi, params: dict[str, Any]) -> list[dict[str, Any]]:
    """What the call has staged itself, then what is stored, newest first."""
    await call.need(PluginPermission.MEMORY_READ, "read memory")
    text, limit = str(params.get("query", "")), int(number(params, "limit", 5, 1, 100))
    words = text.casefold().split()
    own = [row for row in reversed(call.staged.memory) if _holds(row, words)]
    rows = [*own, *await call.services.store.memories(call.context.tenant, text, limit)][:limit]
    return [{"query": row.query, "result": decode(row.raw_result), "time": row.at} for row in rows]


async def write(call: CallApi, params: dict[str, Any]) -> None:
    """Stage a result of at most 256 KiB under its query."""
    await call.need(PluginPermission.MEMORY_WRITE, "write memory")
    await call.may_change("write memory")
    services, plugin = call.services, call.record.slug
    raw = encode(params.get("result"), limit=_MAX_RESULT, what="the result to remember")
    query = str(params.get("query", ""))[:_MAX_QUERY]
    row = Memory(services.ids.new(), call.context.tenant, plugin, query, raw, services.clock.now())
    call.staged.memory.append(row)
    services.metrics.count("memory_writes_total", plugin=plugin)


def _holds(row: Memory, words: list[str]) -> bool:
    text = f"{row.query} {row.raw_result.decode()}".casefold()
    return all(word in text for word in words)
