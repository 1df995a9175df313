"""What the store keeps about plugins: plain rows, as in `records`, which has them too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PluginState:
    """What the operator and the lifecycle decided about a plugin, over restarts.

    Attributes:
        state: a word of the lifecycle (`enabled`, `disabled`, `failed`, ...).
        content_hash: hash of the code that `raw_registered` was read from.
        raw_registered: what loading it registered (hooks, events, metadata), as JSON.
    """

    tenant: str
    plugin: str
    state: str
    reason: str | None
    at: float
    content_hash: str | None = None
    raw_registered: bytes | None = None


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


@dataclass(frozen=True, slots=True)
class Memory:
    """One remembered result.

    Attributes:
        model: which model was asked what it means; empty for none yet.
        vector: what that model said: little-endian 32-bit floats of length 1 together; None if it could not say.
    """

    id: str
    tenant: str
    owner: str
    query: str
    raw_result: bytes
    at: float
    model: str = ""
    vector: bytes | None = None


@dataclass(frozen=True, slots=True)
class PluginHook:
    """The operator wants a plugin's function to be called for an event type or pattern, durably."""

    tenant: str
    plugin: str
    event: str
    function: str
