"""A home with one plugin, for the tests of what plugins reach outside of their sandbox."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from eventcore import EventCore
from eventcore.kernel.settings import Settings


@asynccontextmanager
async def opened(
    folder: Path,
    scope: dict[str, Any],
    secrets: dict[str, str] | None = None,
    *,
    code: str,
    expect: str | None = "enabled",
    **more: Any,
) -> AsyncIterator[EventCore]:
    """A home with the plugin `asker`, granted what it asks for, and in the state `expect` (None: any)."""
    place = folder / "plugins" / "asker"
    place.mkdir(parents=True, exist_ok=True)
    manifest = {"name": "asker", "version": "1.0.0", "module": "handler", "permissions": ["network_access"]}
    manifest |= more.pop("manifest", {})
    (place / "plugin_manifest.json").write_text(json.dumps(manifest))
    (place / "handler.py").write_text(code)
    (folder / "eventcore.toml").write_text("")
    plugins = {
        "enabled": ["asker"],
        "grants": {"asker": more.pop("grants", manifest["permissions"])},
        "scopes": {"asker": scope},
    }
    settings = Settings.model_validate({"plugins": plugins, **more})
    async with EventCore(folder, store="memory:", settings=settings, secrets=_Secrets(secrets or {})) as core:
        assert expect in (None, core.plugins.get("asker").state), core.plugins.get("asker").reason
        yield core


class _Secrets(dict[str, str]):
    """Secrets of a test."""


async def refusals(core: EventCore) -> list[dict[str, Any]]:
    return [event.data async for event in core.history.query(type="permission_denied")]
