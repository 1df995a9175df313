"""What plugins need of the host and of other plugins."""

from __future__ import annotations

from collections.abc import Collection

from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.manifest import PluginManifest
from eventcore.plugins.registry import PluginRegistry
from eventcore.plugins.versions import fits, unsuitable


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


_LACKS = "not set up: "


class Requirements:
    """Whether this host is one that a plugin can run in.

    Args:
        version: EventCore's.
        services, apis: what the tables `[services]` and `[apis]` of the settings name.
    """

    def __init__(
        self, registry: PluginRegistry, version: str, services: Collection[str] = (), apis: Collection[str] = ()
    ) -> None:
        self._registry, self._version, self._services, self._apis = registry, version, services, apis

    def check(self, manifest: PluginManifest) -> None:
        """Refuse a plugin that cannot run here.

        Raises:
            InvalidInput: it needs another version of Python or EventCore, another system, or an absent plugin.
        """
        reasons = unsuitable(manifest, self._version) if manifest.compatibility or manifest.marketplace else []
        if reasons:
            raise InvalidInput(f"{manifest.slug} {manifest.version} cannot run here: {'; '.join(reasons)}")
        if manifest.plugin_dependencies and (absent := missing(manifest, self._registry)):
            raise InvalidInput(f"{manifest.slug} {manifest.version} cannot run: {'; '.join(absent)}")

    def lacking(self, manifest: PluginManifest) -> str | None:
        """Which services and APIs the settings do not explain, with the keys to set; None if nothing is lacking."""
        keys = [f"[services.{name}]" for name in manifest.system_services if name not in self._services]
        keys += [f"[apis.{name}]" for name in manifest.external_services if name not in self._apis]
        return f"{_LACKS}{', '.join(keys)} in eventcore.toml" if keys else None


def is_lacking(reason: str | None) -> bool:
    """Whether a stored reason is one of `Requirements.lacking`."""
    return (reason or "").startswith(_LACKS)
