"""EventCore: an async event bus, a hook and plugin host, and a durable workflow engine in one process.

The public names are loaded at their first use, so that `import eventcore` costs next to nothing and
`eventcore.sdk` (what plugins import) stays within the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from eventcore.app import EventCore as EventCore
    from eventcore.app.plugin_api import MemoryManager as MemoryManager
    from eventcore.app.plugin_api import PluginDebugger as PluginDebugger
    from eventcore.app.plugin_api import PluginManager as PluginManager
    from eventcore.app.plugin_api import PluginRecord as PluginRecord
    from eventcore.app.plugin_api import PluginRouter as PluginRouter
    from eventcore.app.plugin_api import PluginService as PluginService
    from eventcore.plugins.manifest import PluginManifest as PluginManifest
    from eventcore.plugins.permissions import PluginPermission as PluginPermission

#: Public name -> the module it lives in.
_PUBLIC: dict[str, str] = {
    "EventCore": "eventcore.app",
    "CallContext": "eventcore.kernel.context",
    "Event": "eventcore.kernel.event",
    "EventCoreError": "eventcore.kernel.errors",
    "PluginRouter": "eventcore.app.plugin_api",
    "PluginManager": "eventcore.app.plugin_api",
    "PluginService": "eventcore.app.plugin_api",
    "PluginRecord": "eventcore.app.plugin_api",
    "PluginDebugger": "eventcore.app.plugin_api",
    "MemoryManager": "eventcore.app.plugin_api",
    "PluginManifest": "eventcore.plugins.manifest",
    "PluginPermission": "eventcore.plugins.permissions",
    "Deny": "eventcore.sdk",
    "Replace": "eventcore.sdk",
    "Stop": "eventcore.sdk",
    "gate": "eventcore.sdk",
    "filter": "eventcore.sdk",
    "observe": "eventcore.sdk",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'eventcore' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
