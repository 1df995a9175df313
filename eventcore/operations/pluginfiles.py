"""Files of plugins, read beneath the folders that they were granted."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput

#: What fits into one answer of the control socket, in base64. Bytes.
MAX_SHOWN = 10 * 1024 * 1024


async def read(engine: Engine, name: str, path: str) -> dict[str, Any]:
    """A file in a plugin's folders, as it is now; its content in base64."""
    record = engine.plugins.get(name)
    raw = await engine.plugins.files.content(record, path)
    if len(raw) > MAX_SHOWN:
        raise InvalidInput(
            f"{path} is {len(raw):,} bytes large; at most {MAX_SHOWN:,} are printed",
            hint=f"it lies in the plugin's folder of data, .eventcore/data/{record.slug}",
        )
    return {
        "plugin": record.slug,
        "path": path,
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "content": base64.b64encode(raw).decode(),
    }
