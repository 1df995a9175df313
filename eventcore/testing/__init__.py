"""What users test with: homes, clocks, stubs and recorded contexts for plugins; conformance checks of the ports.

The names here are loaded at their first use: pytest loads this package in every project that has EventCore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventcore.testing.aliases import seed_imports as seed_imports
    from eventcore.testing.clock import VirtualClock as VirtualClock
    from eventcore.testing.endpoint import StubEndpoint as StubEndpoint
    from eventcore.testing.endpoint import stub_endpoint as stub_endpoint
    from eventcore.testing.homes import HomeKit as HomeKit
    from eventcore.testing.homes import make_home as make_home
    from eventcore.testing.plugin_contexts import RecordedContext as RecordedContext
    from eventcore.testing.plugin_contexts import plugin_code as plugin_code
    from eventcore.testing.plugin_contexts import plugin_context as plugin_context

#: Name -> the module it lives in.
_PUBLIC: dict[str, str] = {
    "HomeKit": "homes",
    "RecordedContext": "plugin_contexts",
    "StubEndpoint": "endpoint",
    "VirtualClock": "clock",
    "make_home": "homes",
    "plugin_code": "plugin_contexts",
    "plugin_context": "plugin_contexts",
    "seed_imports": "aliases",
    "stub_endpoint": "endpoint",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'eventcore.testing' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"eventcore.testing.{module}"), name)
    globals()[name] = value
    return value
