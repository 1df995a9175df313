"""Import names of other plugin systems, for code that was written against them. Opt-in, and only for a while."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

#: Module -> the public names of `eventcore` that it has.
ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "ai_karen_engine": (),
    "ai_karen_engine.plugins": ("PluginRouter", "PluginManager", "PluginRecord", "MemoryManager", "PluginDebugger"),
    "ai_karen_engine.plugins.router": ("PluginRouter", "PluginRecord", "PLUGIN_ROOT"),
    "ai_karen_engine.plugins.manager": ("PluginManager",),
    "ai_karen_engine.plugins.debug": ("PluginDebugger",),
    "src": (),
    "src.extensions": (),
    "src.extensions.plugins": ("PluginManager", "PluginRouter", "PluginRecord", "PluginManifest", "MemoryManager"),
    "src.extensions.plugins.core": ("PluginManager", "PluginRouter", "MemoryManager"),
    "src.extensions.plugins.core.manager": ("PluginManager",),
    "src.extensions.plugins.core.router": ("PluginRouter", "PluginRecord"),
    "src.extensions.plugins.core.memory_manager": ("MemoryManager",),
    "services": (),
    "services.plugin_service": ("PluginService", "PluginPermission"),
}


@contextmanager
def seed_imports() -> Iterator[None]:
    """Let `from ai_karen_engine.plugins.router import PluginRouter` and its like work inside the `with` block.

    Nothing is installed under these names, and nothing of them is left behind. A package of the caller's own that is
    loaded under one of the outer names (`src`, `services`) stays what it is, and gets the inner module for the while.

    Raises:
        ImportError: a module with code of its own is loaded under one of the inner names.
    """
    outer = {name for name in ALIASES if any(other.startswith(f"{name}.") for other in ALIASES)}
    made: list[tuple[ModuleType | None, str]] = []
    try:
        for name, public in ALIASES.items():
            if name in sys.modules:
                if name not in outer:
                    raise ImportError(f"a module {name!r} is loaded already, and it is not ours")
                continue
            made.append(_make(name, public))
        yield
    finally:
        for parent, name in reversed(made):
            sys.modules.pop(name, None)
            if parent is not None:
                vars(parent).pop(name.rpartition(".")[2], None)


def _make(name: str, public: tuple[str, ...]) -> tuple[ModuleType | None, str]:
    module = ModuleType(name, f"Names of EventCore under {name}.")
    module.__path__ = []
    for one in public:
        setattr(module, one, _public(one))
    sys.modules[name] = module
    above, _, last = name.rpartition(".")
    parent = sys.modules.get(above)
    if parent is not None:
        setattr(parent, last, module)
    return parent, name


def _public(name: str) -> object:
    home = "eventcore.app.plugin_api" if name == "PLUGIN_ROOT" else "eventcore"
    return getattr(importlib.import_module(home), name)
