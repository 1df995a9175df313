"""What a plugin asks for, what it was granted, and changing that."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.plugins.grants import asked_for
from eventcore.plugins.permissions import ENFORCED_BY, MEANING, PluginPermission
from eventcore.plugins.registry import PluginRecord


async def permissions(
    engine: Engine, name: str, grant: list[str] | None = None, revoke: list[str] | None = None
) -> dict[str, Any]:
    """A plugin's permissions; changed first, where `grant` or `revoke` name any."""
    if grant or revoke:
        record = await engine.plugins.permit(name, grant=grant or (), revoke=revoke or ())
    else:
        record = engine.plugins.get(name)
    manifest = record.described()
    return {
        "plugin": record.slug,
        "state": record.state,
        "reason": record.reason,
        "permissions": [_row(record, permission) for permission in sorted(asked_for(manifest), key=str)],
        "declared": [
            {"word": one.word, "permissions": list(map(str, one.permissions)), "optional": one.optional}
            for one in manifest.declared_permissions
        ],
    }


def _row(record: PluginRecord, permission: PluginPermission) -> dict[str, Any]:
    granted, denied = permission in record.granted, permission in record.denied
    return {
        "permission": str(permission),
        "required": permission in record.described().permissions,
        "granted": granted,
        "status": "granted" if granted else "denied" if denied else "not granted",
        "means": MEANING[permission],
        "enforced_by": ENFORCED_BY[permission],
    }
