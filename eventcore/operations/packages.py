"""Installing and uninstalling plugins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eventcore.engine import Engine
from eventcore.operations.shapes import plugin_row


async def inspect(engine: Engine, target: str, replacing: str | None = None) -> dict[str, Any]:
    """What installing a folder or archive, in the place of a plugin where one is named, would bring: manifest,
    permissions, SHA-256. Changes nothing."""
    return await engine.plugins.packages.inspect(target, replacing=replacing)


async def install(
    engine: Engine, target: str, grants: list[str] | None = None, sha256: str | None = None
) -> dict[str, Any]:
    """Install from a folder, a .tar.gz or a .zip, if its SHA-256 is `sha256` where that is given."""
    packages = engine.plugins.packages
    record = await packages.install(target, engine.bus.context(), grants=tuple(grants or ()), digest=sha256)
    package = packages.installed(record.slug)
    return {
        **plugin_row(record),
        "granted": sorted(map(str, record.granted)),
        "sha256": package.digest if package else None,
        "source": package.source if package else None,
    }


async def uninstall(engine: Engine, name: str, purge: bool = False, force: bool = False) -> dict[str, Any]:
    """Remove an installed plugin; with `purge` its data, settings and all that the host keeps for it too."""
    record = engine.plugins.get(name)
    forgotten = await engine.plugins.packages.uninstall(record, engine.bus.context(), purge=purge, force=force)
    return {**plugin_row(record), "purged": purge, "forgotten": forgotten}


async def absent(engine: Engine) -> list[dict[str, Any]]:
    """What `plugins/manifest.json` lists and is not there, each with the path it can be installed from."""
    packages = engine.plugins.packages
    return [{**asdict(one), "target": packages.find_source(one)} for one in packages.absent()]
