"""`PluginRecord`: one plugin, as programs see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventcore.app.plugin_api.hosting import Link
from eventcore.kernel import documents

_FORMATS = {".json": "json", ".yaml": "yaml", ".toml": "toml"}


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin.

    Attributes:
        manifest: every key of its manifest as written, and the checked value of each key that was left out. `intent` is
            always there.
        handler: `await handler(params)` calls the plugin as the operator, in its sandbox, and returns its result.
        module_name: the module that holds its code, as the manifest names it.
        ui: its `ui.py`; None, until there is a page that shows it.
        dir_path: its folder.
        state: as `plugins list` shows it.
    """

    manifest: dict[str, Any]
    handler: Callable[[dict[str, Any]], Awaitable[Any]] = field(compare=False)
    module_name: str
    ui: Callable[..., Any] | None
    dir_path: Path
    state: str


def make_record(found: Mapping[str, Any], link: Link) -> PluginRecord:
    """The record of what the operation `plugins.info` says."""
    slug = found["slug"]

    async def handler(params: dict[str, Any]) -> Any:
        return (await link.acall("plugins.call", {"name": slug, "params": params}))["result"]

    checked = found["manifest"] or {}
    manifest = manifest_dict(checked)
    module = str(manifest.get("module") or manifest.get("main") or checked.get("entry_file") or "")
    return PluginRecord(manifest, handler, module, None, Path(found["path"]), found["state"])


def manifest_dict(checked: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the words of its author, and what the host made of the rest."""
    intents = list(checked.get("intents") or ())
    left_out = {"intent": intents[0] if len(intents) == 1 else intents}
    plain = {key: value for key, value in checked.items() if key not in ("intents", "warnings", "extra")}
    return {**plain, **left_out, **_written(checked.get("path"))}


def _written(path: str | None) -> dict[str, Any]:
    """The document itself; the table `[plugin]` of a TOML manifest stands at its top."""
    if not path:
        return {}
    file = Path(path)
    try:
        value = documents.parse(file.read_bytes(), path, _FORMATS[file.suffix]).value  # type: ignore[arg-type]
    except (OSError, KeyError):
        return {}  # it went away since it was read
    inner = value.get("plugin")
    return {**value, **inner} if isinstance(inner, dict) else dict(value)
