"""`PluginRouter`: which intents there are, and who answers them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from eventcore.app.plugin_api import place
from eventcore.app.plugin_api.hosting import Link
from eventcore.app.plugin_api.records import PluginRecord, make_record
from eventcore.kernel.errors import NotFound

#: Stands for the plugin folder of the current home, wherever that is when a router is made.
PLUGIN_ROOT: Final = Path("plugins")


class PluginRouter:
    """Finds plugins and calls them by intent.

    Args:
        plugin_root: a folder of plugins. That of a home opens the home; any other is served by an engine in memory,
            with the catalogue beside it. Default: the current home's (EVENTCORE_HOME, else the nearest home at or above
            the current folder; EVENTCORE_PLUGIN_DIR and KARI_PLUGIN_DIR replace its folder of plugins).

    Raises:
        HomeError: there is no current home.
    """

    def __init__(self, plugin_root: Path = PLUGIN_ROOT) -> None:
        here = place.current() if plugin_root is PLUGIN_ROOT else place.of_folder(Path(plugin_root))
        self.link = Link(here)
        self._records: dict[str, PluginRecord] = {}

    def reload(self) -> None:
        """Look for plugins again: new and removed folders, changed manifests and code."""
        self._records.clear()
        self.link.call("plugins.rescan")

    def list_intents(self) -> list[str]:
        """Every intent that `dispatch` can reach, sorted: those of enabled plugins, and those of plugins that are there
        and were never switched off. The catalogue's count once they are enabled.
        """
        return list(self.link.call("plugins.intents"))

    def get_plugin(self, intent: str) -> PluginRecord | None:
        """The plugin that answers an intent, or has that name or slug; None if there is none."""
        try:
            found = self.link.call("plugins.info", {"name": self._name(intent)})
        except NotFound:
            return None
        known = self._records.get(found["slug"])
        if known is None or known.state != found["state"]:
            known = self._records[found["slug"]] = make_record(found, self.link)
        return known

    def get_handler(self, intent: str) -> Callable[[dict[str, Any]], Any] | None:
        """The record's `handler`: an async function that calls the plugin in its sandbox. None if there is none."""
        record = self.get_plugin(intent)
        return record.handler if record is not None else None

    async def dispatch(self, intent: str, params: dict[str, Any], roles: list[str] | None = None) -> Any:
        """Call an intent, or a plugin by name, and return its result.

        A plugin that was only discovered is enabled, if it requires no permission that it was not granted.

        Args:
            roles: the caller's; any one of the plugin's `required_roles` suffices. None means no roles.

        Raises:
            UnknownIntent: nobody answers it. AccessDenied: the roles do not suffice.
            PluginFailed: it raised, crashed, or ran over a limit.
        """
        asked = {"name": intent, "params": params, "roles": list(roles or ())}
        return (await self.link.acall("plugins.call", asked))["result"]

    def _name(self, intent: str) -> str:
        """The plugin of an intent that nobody answers yet: look-ups take an intent, then a plugin's name."""
        for row in self.link.call("plugins.list", {"intent": intent}):
            return str(row["slug"])
        return intent
