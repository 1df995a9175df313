"""Settings of plugins."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.json import decode
from eventcore.kernel.names import did_you_mean


async def show(engine: Engine, name: str, key: str | None = None) -> dict[str, Any]:
    """A plugin's settings, or one of them, each with the layer that it comes from. Secrets are masked."""
    record = engine.plugins.get(name)
    record.described()
    found = [one.as_dict() for one in engine.plugins.configuring.show(record)]
    if key is not None:
        keys = [one["key"] for one in found]
        if key not in keys:
            raise NotFound(f"{record.slug} has no setting {key!r}{did_you_mean(key, keys)}")
        found = [one for one in found if one["key"] == key]
    return {"plugin": record.slug, "settings": found}


async def change(
    engine: Engine, name: str, key: str, value: Any = None, text: str | None = None, unset: bool = False
) -> dict[str, Any]:
    """Set one setting, to JSON (`value`) or to what `text` means for its type; or forget what was set (`unset`)."""
    if text is not None and (value is not None or unset):
        raise InvalidInput("give one of value, text and unset")
    record = engine.plugins.get(name)
    record.described()
    verbs, context = engine.plugins.configuring, engine.bus.context()
    if unset:
        setting = await verbs.unset(record, key, context)
    else:
        given = value if text is None else _read(text)
        setting = await verbs.set(record, key, given, context)
    return {"plugin": record.slug, "state": record.state, "setting": setting.as_dict() if setting else None}


def _read(text: str) -> Any:
    """Text as it is, but for the one form that names a secret: `{"secret": "NAME"}`."""
    return decode(text, what="the value") if text.lstrip().startswith('{"secret"') else text
