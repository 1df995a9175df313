"""The plugin classes: names and signatures that programs written for other plugin systems know.

`PluginRouter`, `PluginManager`, `PluginService`, `PluginRecord`, `MemoryManager`, `PluginDebugger`. They need no `async
with` and no running server: at their first use they open the current home, or talk to the engine that has it open.
"""

from eventcore.app.plugin_api.debugger import PluginDebugger
from eventcore.app.plugin_api.manager import PluginManager
from eventcore.app.plugin_api.memory import MemoryManager
from eventcore.app.plugin_api.records import PluginRecord
from eventcore.app.plugin_api.router import PLUGIN_ROOT, PluginRouter
from eventcore.app.plugin_api.service import PluginService

__all__ = [
    "PLUGIN_ROOT",
    "MemoryManager",
    "PluginDebugger",
    "PluginManager",
    "PluginRecord",
    "PluginRouter",
    "PluginService",
]
