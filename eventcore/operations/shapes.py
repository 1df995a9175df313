"""Rows as JSON for people and programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from eventcore.bus.history import Node
from eventcore.kernel.json import decode
from eventcore.kernel.records import Run
from eventcore.plugins.registry import PluginRecord


def instant(at: float) -> str | None:
    """RFC 3339, UTC; None for 0."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z") if at else None


def maybe(raw: bytes | None) -> Any:
    return None if raw is None else decode(raw)


def run_row(run: Run) -> dict[str, Any]:
    """A run's head row."""
    return {
        "id": run.id,
        "slug": run.slug,
        "status": run.status,
        "created": instant(run.created),
        "updated": instant(run.updated),
        "seconds": round(run.updated - run.created, 6),
        "actor": run.actor,
        "trigger": run.trigger,
        "parent": run.parent,
        "correlation_id": run.correlation_id,
        "causation_id": run.causation_id,
        "inputs": decode(run.raw_inputs),
        "output": maybe(run.raw_output),
        "error": maybe(run.raw_error),
    }


def tree(node: Node) -> dict[str, Any]:
    """An event with its effects below it."""
    return {**node.event.as_dict(), "effects": [tree(effect) for effect in node.effects]}


def plugin_row(record: PluginRecord) -> dict[str, Any]:
    """A plugin in a list."""
    manifest = record.manifest
    return {
        "slug": record.slug,
        "name": manifest.name if manifest else record.slug,
        "version": manifest.version if manifest else None,
        "state": record.state,
        "reason": record.reason,
        "category": manifest.category if manifest else None,
        "type": manifest.plugin_type if manifest else None,
        "intents": list(manifest.intents) if manifest else [],
        "tags": [*manifest.tags, *manifest.keywords] if manifest else [],
        "description": manifest.description if manifest else "",
        "author": manifest.author if manifest else "",
        "origin": record.origin,
        "path": str(record.path),
    }
