"""`PluginDebugger`: one call of a plugin, watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventcore.app.plugin_api.router import PluginRouter
from eventcore.plugins.debugging import DebugReport


class PluginDebugger:
    """Runs calls under the debugger.

    Args:
        router: where the plugins are; default those of the current home.

    Raises:
        HomeError: there is no current home.
    """

    def __init__(self, router: PluginRouter | None = None) -> None:
        self.router = router if router is not None else PluginRouter()

    async def debug_plugin(
        self,
        name: str,
        params: dict[str, Any] | None = None,
        breakpoints: Sequence[str] = (),
        trace: bool = False,
        roles: Sequence[str] | None = None,
    ) -> DebugReport:
        """Call a plugin in a sandboxed worker of its own, and report what its code did.

        Permissions, schemas and limits are those of a real call; what the call would have committed is counted and
        dropped.

        Args:
            name: an intent, or a plugin's name.
            breakpoints: `FILE:LINE`, the file relative to the plugin's folder, as in `handler.py:25`. The report
                has the local variables at each arrival there.
            trace: whether the report lists the lines that ran.
            roles: of the caller; default the operator's.

        Raises:
            UnknownIntent, AccessDenied: as a real call.
            PluginFailed: a breakpoint names no line, or the call ran over a limit. What the plugin itself raises is in
                the report.
        """
        asked = {
            "name": name,
            "params": params or {},
            "breakpoints": list(breakpoints),
            "trace": trace,
            "roles": list(roles) if roles is not None else None,
        }
        return DebugReport.of(await self.router.link.acall("plugins.debug", asked))
