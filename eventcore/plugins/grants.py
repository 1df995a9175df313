"""Grants: what a plugin asks for, what the operator gave or denied, and how that changes while it runs.

What the settings grant holds at first sight; what the operator says later (`plugins enable --grant`, `plugins
permissions`) is kept in the store and goes before it. A plugin never gets more than its manifest asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.json import decode
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.records import PluginState
from eventcore.plugins.manifest import PluginManifest
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord

#: What a worker is confined by: a change of one of these needs another worker.
KERNEL = frozenset(
    {
        PluginPermission.FILESYSTEM_READ,
        PluginPermission.FILESYSTEM_WRITE,
        PluginPermission.NETWORK_ACCESS,
        PluginPermission.SYSTEM_ACCESS,
    }
)

Permissions = frozenset[PluginPermission]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the operator decided: the granted permissions, and those that settings must not give back."""

    granted: Permissions
    denied: Permissions

    def apply(self, record: PluginRecord) -> None:
        """Let it hold for a plugin."""
        record.granted, record.denied = self.granted, self.denied


def permissions_of(words: Iterable[str]) -> Permissions:
    """The permissions that these words name.

    Raises:
        InvalidInput: one is no permission; names the nearest.
    """
    known = {str(permission): permission for permission in PluginPermission}
    found = set()
    for word in map(str, words):
        if word not in known:
            raise InvalidInput(f"{word!r} is no permission{did_you_mean(word, known)}", hint="see docs/permissions.md")
        found.add(known[word])
    return frozenset(found)


def asked_for(manifest: PluginManifest) -> Permissions:
    """What the manifest needs, and what it can do without."""
    return frozenset((*manifest.permissions, *manifest.optional_permissions))


def missing(record: PluginRecord, granted: Permissions) -> list[str]:
    """What the plugin needs and was not granted."""
    return sorted(str(permission) for permission in record.described().permissions if permission not in granted)


def at_enabling(record: PluginRecord, given: Iterable[str], settings: Mapping[str, Iterable[str]]) -> Decision:
    """What holds once the plugin is enabled: what was decided before, the settings, and what is given now.

    Raises:
        InvalidInput: a word is no permission, or something that the plugin needs is granted by nobody.
    """
    now = permissions_of(given)
    denied = record.denied - now
    first = permissions_of(settings.get(record.slug, ())) - denied
    granted = (record.granted | first | now) & asked_for(record.described())
    if lacking := missing(record, granted):
        flags = " ".join(f"--grant {permission}" for permission in lacking)
        raise InvalidInput(
            f"{record.slug} needs {', '.join(lacking)}, which it was not granted",
            hint=f"eventcore plugins enable {record.slug} {flags}",
        )
    return Decision(granted, denied)


def changed(record: PluginRecord, grant: Iterable[str], revoke: Iterable[str]) -> Decision:
    """What holds after the operator granted and revoked.

    Raises:
        InvalidInput: a word is no permission, stands on both sides, or is not asked for by the manifest.
    """
    given, taken = permissions_of(grant), permissions_of(revoke)
    if both := sorted(map(str, given & taken)):
        raise InvalidInput(f"{both[0]} is granted and revoked at once; say which")
    asked = asked_for(record.described())
    if extra := sorted(map(str, given - asked)):
        wants = ", ".join(sorted(map(str, asked))) or "nothing"
        raise InvalidInput(f"{record.slug} does not ask for {extra[0]}; its manifest asks for {wants}")
    return Decision((record.granted - taken) | given, (record.denied - given) | (taken & asked))


def stored(row: PluginState, record: PluginRecord) -> Decision:
    """What a stored state says, as far as the manifest still asks for it."""
    body = decode(row.raw_registered) if row.raw_registered else {}
    asked = {str(permission): permission for permission in asked_for(record.described())}
    granted, denied = (
        frozenset(asked[word] for word in body.get(key, ()) if word in asked) for key in ("granted", "denied")
    )
    return Decision(granted, denied)
