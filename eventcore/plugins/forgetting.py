"""Forgetting all that the host keeps for a plugin in a tenant: memories, plans, databases of its own, hooks."""

from __future__ import annotations

from eventcore.kernel.context import CallContext
from eventcore.plugins.databases import Databases
from eventcore.plugins.hooking import Hooking
from eventcore.plugins.memory.memories import Memories
from eventcore.plugins.plans import Plans


class Forgetting:
    """Forgets; for an uninstall that leaves nothing behind."""

    def __init__(self, memories: Memories, plans: Plans, databases: Databases, hooking: Hooking) -> None:
        self._memories, self._plans, self._databases, self._hooking = memories, plans, databases, hooking

    async def forget(self, context: CallContext, plugin: str) -> dict[str, int]:
        """Remove what the plugin has in the context's tenant; return how much that was, by kind."""
        return {
            "memories": await self._memories.purge(context, owner=plugin),
            "plans": await self._plans.forget(context.tenant, plugin),
            "databases": await self._databases.remove(context.tenant, plugin),
            "hooks": await self._hooking.forget(plugin, context),
        }
