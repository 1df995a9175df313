"""Who answers for a plugin that cannot: the intent that its manifest names as `fallback`.

One that stands in is not replaced in turn, so that a failure is never handed on in a circle.
"""

from __future__ import annotations

from eventcore.plugins.registry import HostIntent, PluginRecord, PluginRegistry


def stand_in(registry: PluginRegistry, target: HostIntent | PluginRecord | None) -> HostIntent | PluginRecord | None:
    """Who answers in the place of a plugin; None: its manifest names nobody, or nobody who is there."""
    if not isinstance(target, PluginRecord) or target.manifest is None or target.manifest.fallback is None:
        return None
    other = registry.answering(target.manifest.fallback)
    return None if other is target else other


def instead_of(registry: PluginRegistry, intent: str, provider: str) -> str | None:
    """Whose place `provider` took when it answered an intent; None: nobody's."""
    if intent in registry.host:
        return None
    if (own := registry.find(intent)) is not None and own.slug == provider:
        return None  # asked on each call: all manifests are searched only when somebody else has answered
    owner = registry.declared(intent)
    if owner is None or owner.slug == provider or owner.manifest is None or owner.manifest.fallback is None:
        return None
    return owner.slug
