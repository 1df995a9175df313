"""Memory: results remembered for a tenant."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.json import decode
from eventcore.kernel.records import Memory
from eventcore.plugins.host_api import CallApi, Service, number
from eventcore.plugins.memory.memories import MAX_QUERY, Memories
from eventcore.plugins.permissions import PluginPermission


def table(memories: Memories) -> dict[str, Service]:
    """The services `memory.read` and `memory.write`."""

    async def read(call: CallApi, params: dict[str, Any]) -> list[dict[str, Any]]:
        """What the call has staged itself, then what is stored, best first."""
        await call.need(PluginPermission.MEMORY_READ, "read memory")
        text, limit = str(params.get("query", ""))[:MAX_QUERY], int(number(params, "limit", 5, 1, 100))
        words = text.casefold().split()
        own = [(row, None) for row in reversed(call.staged.memory) if _holds(row, words)]
        found = await memories.find(call.context.tenant, text, limit)
        return [shape(row, likeness) for row, likeness in [*own, *found][:limit]]

    async def write(call: CallApi, params: dict[str, Any]) -> None:
        """Stage a result of at most 256 KiB under its query."""
        await call.need(PluginPermission.MEMORY_WRITE, "write memory")
        await call.may_change("write memory")
        query, result = str(params.get("query", "")), params.get("result")
        call.staged.memory.append(memories.row(call.context.tenant, call.record.slug, query, result))

    return {"memory.read": read, "memory.write": write}


def shape(row: Memory, likeness: float | None = None) -> dict[str, Any]:
    """A memory as plugins get it."""
    found = {"query": row.query, "result": decode(row.raw_result), "time": row.at}
    return found if likeness is None else {**found, "likeness": round(likeness, 4)}


def _holds(row: Memory, words: list[str]) -> bool:
    text = f"{row.query} {row.raw_result.decode()}".casefold()
    return all(word in text for word in words)
