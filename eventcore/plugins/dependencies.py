"""Plugins that need other plugins."""

from __future__ import annotations

from eventcore.plugins.manifest import PluginManifest
from eventcore.plugins.registry import PluginRegistry
from eventcore.plugins.versions import fits


def missing(manifest: PluginManifest, registry: PluginRegistry) -> list[str]:
    """Which of the plugins that it cannot do without are not there in a version that fits, in words."""
    found = []
    for wanted in manifest.plugin_dependencies:
        other = registry.records.get(wanted.name)
        described = other.manifest if other is not None else None
        asked = f"{wanted.name} {wanted.version}".rstrip()
        if described is None and not wanted.optional:
            found.append(f"{manifest.slug} needs {asked}, which is not there")
        elif described is not None and not fits(described.version, wanted.version):
            found.append(f"{manifest.slug} needs {asked}, and {described.version} is there")
    return found


def needed_by(slug: str, registry: PluginRegistry) -> list[str]:
    """Which plugins in use cannot do without this one."""
    return [
        record.slug
        for record in registry
        if record.manifest is not None
        and record.slug != slug
        and record.enabled
        and any(one.name == slug and not one.optional for one in record.manifest.plugin_dependencies)
    ]
