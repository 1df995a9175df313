"""`PluginManager`: calls of plugins on behalf of users, with what they printed."""

from __future__ import annotations

from typing import Any

from eventcore.app.plugin_api.router import PluginRouter


class PluginManager:
    """Calls plugins on behalf of users.

    Args:
        router: where the plugins are; default those of the current home.

    Raises:
        HomeError: there is no current home.
    """

    def __init__(self, router: PluginRouter | None = None) -> None:
        self.router = router if router is not None else PluginRouter()

    async def run_plugin(self, name: str, params: dict[str, Any], user_ctx: dict[str, Any]) -> tuple[Any, str, str]:
        """Call a plugin and return `(result, stdout, stderr)`; the result is remembered, if the settings say so.

        Args:
            name: an intent, or a plugin's name.
            user_ctx: `user_id` and `roles` of the caller, who has no others, and optionally `tenant_id`.

        Raises:
            UnknownIntent, AccessDenied, PluginFailed: as `PluginRouter.dispatch`.
        """
        asked = {
            "name": name,
            "params": params,
            "user": str(user_ctx.get("user_id") or "anonymous"),
            "roles": list(user_ctx.get("roles") or ()),
            "tenant": user_ctx.get("tenant_id") or user_ctx.get("tenant"),
            "remember": True,
        }
        done = await self.router.link.acall("plugins.call", asked)
        return done["result"], done["stdout"], done["stderr"]
