"""`PluginService`: the whole life of a plugin, from its archive to its end."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from anyio import to_thread

from eventcore.app.plugin_api.router import PluginRouter
from eventcore.kernel.errors import EventCoreError, InvalidInput, PluginFailed

_IN_USE = "enabled,degraded"
_NOT_IN_USE = "installed,discovered,disabled,failed"
#: Whatever lies in the home's plugin folder; the catalogue's are only discovered.
_ALL = "installed,enabled,degraded,disabled,failed"


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
            plugin_url: where to fetch it from, instead. Nothing is fetched yet: this is refused.

        Raises:
            InvalidInput: both or neither were given, an address was given, or the archive is refused; says which entry
                and why.
        """
        if (plugin_path is None) == (plugin_url is None):
            raise InvalidInput("give plugin_path or plugin_url, one of the two")
        target = os.path.abspath(plugin_path) if plugin_path is not None else plugin_url  # noqa: ASYNC240 - no I/O
        row = await self.router.link.acall("plugins.install", {"target": target})
        return str(row["slug"])

    async def update_plugin(self, plugin_id: str, plugin_path: str | Path) -> None:
        """Replace an installed plugin by what an archive or folder holds; data, settings and what it remembers stay.

        Where the new one cannot be installed or, if the old one was in use, enabled, the old one is put back.

        Raises:
            InvalidInput: the archive holds another plugin, or is refused.
            PluginFailed: the new code cannot be loaded; the old one is back.
        """
        link, target = self.router.link, os.path.abspath(plugin_path)  # noqa: ASYNC240 - no I/O
        old = await link.acall("plugins.info", {"name": plugin_id})
        await link.acall("plugins.inspect", {"target": target, "replacing": old["slug"]})
        with TemporaryDirectory(prefix="eventcore-update-") as scratch:
            kept = os.path.join(scratch, os.path.basename(old["path"]))
            await to_thread.run_sync(shutil.copytree, old["path"], kept)
            await self._exchange(old, target, kept)

    async def _exchange(self, old: dict[str, Any], target: str, kept: str) -> None:
        slug, in_use = old["slug"], old["state"] in _IN_USE.split(",")
        grants = list(old.get("granted") or ())
        await self._remove(slug)
        try:
            await self._bring(slug, target, grants, in_use)
        except EventCoreError:
            with anyio.CancelScope(shield=True):
                if any(row["slug"] == slug for row in await self.router.link.acall("plugins.list", {"status": _ALL})):
                    await self._remove(slug)
                await self._put_back(old, kept, grants, in_use)
            raise

    async def _put_back(self, old: dict[str, Any], kept: str, grants: list[str], in_use: bool) -> None:
        """From where it came from, if that has not changed, so that its record stays true; else from the copy."""
        package = old["package"]
        try:
            await self._bring(old["slug"], package["source"], grants, in_use, package["digest"])
        except EventCoreError:
            await self._bring(old["slug"], kept, grants, in_use)

    async def _bring(self, slug: str, target: str, grants: list[str], in_use: bool, digest: str | None = None) -> None:
        wanted = {"target": target, "grants": grants, "sha256": digest}
        await self.router.link.acall("plugins.install", wanted)
        if in_use:
            await self.router.link.acall("plugins.enable", {"name": slug, "grants": grants})

    async def _remove(self, slug: str) -> None:
        """Take it away for another of its name: others may need it all the while."""
        await self.router.link.acall("plugins.uninstall", {"name": slug, "force": True})

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
