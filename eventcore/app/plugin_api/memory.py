"""`MemoryManager`: what is remembered for one tenant, from plain code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventcore.app.plugin_api.router import PluginRouter
from eventcore.kernel.context import DEFAULT_TENANT


class MemoryManager:
    """Reads and writes the memories of a tenant; the same ones that its plugins see as `ctx.memory`.

    Its methods wait, for programs without an event loop and for short looks from others.

    Args:
        tenant_id: whose memories. No other tenant's are ever seen.
        router: which engine; default that of the current home.

    Raises:
        HomeError: there is no current home.
    """

    def __init__(self, tenant_id: str = DEFAULT_TENANT, router: PluginRouter | None = None) -> None:
        self.tenant_id = tenant_id
        self.router = router if router is not None else PluginRouter()

    def write(self, user_ctx: Mapping[str, Any], query: str, result: Any) -> None:
        """Remember a JSON result of at most 256 KiB under its query.

        Args:
            user_ctx: `user_id` is recorded as the one who did it.

        Raises:
            InvalidPayload: the result is not JSON, or too large.
        """
        asked = {"query": query, "result": result, "user": user_ctx.get("user_id"), "tenant": self.tenant_id}
        self.router.link.call("memory.write", asked)

    def read(self, user_ctx: Mapping[str, Any], query: str, limit: int = 5) -> list[dict[str, Any]]:
        """Memories that hold every word of `query` in their query or result, newest first; at most `limit` (1 to 100).

        Each has `query`, `result` and `time` (RFC 3339).
        """
        return list(self.router.link.call("memory.read", {"query": query, "limit": limit, "tenant": self.tenant_id}))
