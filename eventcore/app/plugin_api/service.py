"""`PluginService`: the whole life of a plugin, from its archive to its end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from eventcore.app.plugin_api.router import PluginRouter
from eventcore.kernel.errors import InvalidInput, PluginFailed

_IN_USE = "enabled,degraded"
_NOT_IN_USE = "discovered,disabled,failed"


class PluginService:
    """Installs, switches, calls and removes plugins of a home. A plugin's id is its slug.

    Args:
        router: where the plugins are; default those of the current home.

    Raises:
        HomeError: there is no current home.
    """

    def __init__(self, router: PluginRouter | None = None) -> None:
        self.router = router if router is not None else PluginRouter()

    async def install_plugin(self, plugin_path: str | Path | None = None, plugin_url: str | None = None) -> str:
        """Install a plugin from a .tar.gz, a .zip or a folder, wholly or not at all; returns its id.

        Args:
            plugin_path: the archive or folder.
            plugin_url: where to fetch it from, instead.

        Raises:
            InvalidInput: both or neither were given, or the archive is refused; says which entry and why.
        """
        if (plugin_path is None) == (plugin_url is None):
            raise InvalidInput("give plugin_path or plugin_url, one of the two")
        target = os.path.abspath(plugin_path) if plugin_path is not None else plugin_url  # noqa: ASYNC240 - no I/O
        row = await self.router.link.acall("plugins.install", {"target": target})
        return str(row["slug"])

    async def uninstall_plugin(self, plugin_id: str) -> None:
        """Remove a plugin's code and registration; its data stays."""
        await self.router.link.acall("plugins.uninstall", {"name": plugin_id})

    async def enable_plugin(self, plugin_id: str) -> None:
        """Enable a plugin.

        Raises:
            InvalidInput: it needs a permission that it was not granted, or its settings are not right.
            PluginFailed: its code cannot be loaded; it is left `failed`.
        """
        await self.router.link.acall("plugins.enable", {"name": plugin_id})

    async def disable_plugin(self, plugin_id: str) -> None:
        """Disable a plugin: nothing calls it any more."""
        await self.router.link.acall("plugins.disable", {"name": plugin_id})

    async def execute_plugin(self, plugin_id: str, context: dict[str, Any]) -> dict[str, Any]:
        """Call a plugin as the operator; `context` is its parameters. What it raises becomes the answer.

        Returns:
            `success`: False if it raised, or answered `{"success": False}`. `result`: what it answered, where it did.
            `error`: what went wrong, where something did. `execution_time`: seconds.

        Raises:
            UnknownIntent: there is no such plugin, or it is not in use.
            InvalidPayload: the context is not what its `input_schema` asks for.
        """
        began = time.perf_counter()
        try:
            done = await self.router.link.acall("plugins.call", {"name": plugin_id, "params": context})
        except PluginFailed as error:
            return {"success": False, "error": error.message, "execution_time": time.perf_counter() - began}
        result = done["result"]
        answer = {"success": True, "result": result, "execution_time": done["seconds"]}
        if isinstance(result, dict) and result.get("success") is False:
            answer |= {"success": False, "error": str(result.get("error") or result.get("message") or "it failed")}
        return answer

    async def list_plugins(self, status: str = "all") -> list[dict[str, Any]]:
        """Plugins, each with `id`, `name`, `version`, `status`, `author`, `description`.

        Args:
            status: `enabled`, `disabled` (whatever is not in use) or `all`.

        Raises:
            InvalidInput: it is none of these.
        """
        states = {"enabled": _IN_USE, "disabled": _NOT_IN_USE, "all": "all"}.get(status)
        if states is None:
            raise InvalidInput(f"status is enabled, disabled or all, not {status!r:.40}")
        rows = await self.router.link.acall("plugins.list", {"status": states})
        return [_named(row) for row in rows]

    async def get_plugin_info(self, plugin_id: str) -> dict[str, Any]:
        """Everything known of a plugin; `status` is its state.

        Raises:
            NotFound: there is none.
        """
        return _named(await self.router.link.acall("plugins.info", {"name": plugin_id}))


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the names that programs of this class know."""
    author = row.get("author") or (row.get("manifest") or {}).get("author") or ""
    return {**row, "id": row["slug"], "plugin_id": row["slug"], "status": row["state"], "author": author}
