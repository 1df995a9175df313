"""Looking for plugins again while an engine runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError
from eventcore.plugins.lifecycle import Lifecycle
from eventcore.plugins.registry import PluginRecord, PluginRegistry, hash_folder


@dataclass(slots=True)
class Changes:
    """What looking again found, as slugs.

    Attributes:
        added: plugins that are new.
        removed: plugins whose folder is gone; those in use were disabled first.
        changed: plugins in use whose manifest or code is another than before; they run the new one.
        failed: of these, the ones that could not be enabled again.
    """

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def rescan(
    registry: PluginRegistry,
    lifecycle: Lifecycle,
    find: Callable[[PluginRegistry], None],
    context: CallContext,
) -> Changes:
    """Bring the registry up to what the folders hold now.

    What is not in use is read anew; its state stays, but for a failure of a manifest that is well again. A plugin in
    use that changed is disabled and enabled with the grants that it has; where that fails it is left `failed`.
    """
    fresh, changes = PluginRegistry(), Changes()
    find(fresh)
    for slug, old in list(registry.records.items()):
        new = fresh.records.get(slug)
        if new is None or _elsewhere(old, new):
            if old.enabled:
                await lifecycle.disable(old, context, "its folder is gone")
            del registry.records[slug]
            changes.removed.append(slug)
        elif old.enabled and _differs(old):
            await _renew(old, new, lifecycle, context, changes)
        elif not old.enabled:
            _read_anew(old, new)
    for slug, new in fresh.records.items():
        if slug not in registry.records:
            registry.records[slug] = new
            changes.added.append(slug)
    return changes


def _elsewhere(old: PluginRecord, new: PluginRecord) -> bool:
    return os.path.realpath(new.folder) != os.path.realpath(old.folder)


def _differs(record: PluginRecord) -> bool:
    try:
        return hash_folder(record.path) != record.content_hash
    except (EventCoreError, OSError):
        return True


async def _renew(
    old: PluginRecord, new: PluginRecord, lifecycle: Lifecycle, context: CallContext, changes: Changes
) -> None:
    changes.changed.append(old.slug)
    grants = [str(permission) for permission in old.granted]
    await lifecycle.disable(old, context, "its files changed")
    _read_anew(old, new)
    try:
        await lifecycle.enable(old, context, grants)
    except EventCoreError:
        changes.failed.append(old.slug)


def _read_anew(old: PluginRecord, new: PluginRecord) -> None:
    old.manifest, old.problems, old.origin = new.manifest, new.problems, new.origin
    if old.manifest is None:
        old.state, old.reason = new.state, new.reason
    elif old.state == "failed" and not old.since:
        old.state, old.reason = "discovered", None  # only its manifest was wrong
