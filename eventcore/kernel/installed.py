"""The store's rows about installed plugins and their settings. Part of `records`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """A plugin that was installed, or was until it was uninstalled; by tenant and plugin.

    Attributes:
        state: `installed`, or `removed`.
        operation: the id of what brought it into this state. Folders that are on their way in or out bear it in their
            name, so that after a crash it can be told whether their operation was committed.
        folder: where it lies, relative to the home's plugin folder.
        source: what it was installed from: a path.
        digest: SHA-256 (hex) of the archive, or of the folder's files.
        at: seconds since the epoch.
    """

    tenant: str
    plugin: str
    state: str
    operation: str
    version: str
    folder: str
    source: str
    digest: str
    at: float


@dataclass(frozen=True, slots=True)
class PluginSetting:
    """One setting of a plugin that was set at run time; by tenant, plugin and key. `raw` is its value as JSON."""

    tenant: str
    plugin: str
    key: str
    raw: bytes
    at: float
