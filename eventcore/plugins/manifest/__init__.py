"""Plugin manifests: one model, read from three dialects."""

from eventcore.plugins.manifest.folder import check_folder
from eventcore.plugins.manifest.model import (
    Capability,
    Command,
    DeclaredPermission,
    Limits,
    Monitoring,
    PluginDependency,
    PluginManifest,
    SandboxWish,
)
from eventcore.plugins.manifest.read import MANIFEST_NAMES, parse_manifest, read_manifest

__all__ = [
    "MANIFEST_NAMES",
    "Capability",
    "Command",
    "DeclaredPermission",
    "Limits",
    "Monitoring",
    "PluginDependency",
    "PluginManifest",
    "SandboxWish",
    "check_folder",
    "parse_manifest",
    "read_manifest",
]
