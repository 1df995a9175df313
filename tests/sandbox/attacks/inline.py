"""A host that runs plugins in its own process: `inline.py FOLDER FILE FUNCTION TOLD FD`. For comparison only.

Writes what came of it to FD, as JSON: whether it ever gets there is a question of the attack.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

#: What a host has in memory.
KNOWN: dict[str, Any] = {name: value for name, value in os.environ.items() if name.startswith("EVENTCORE_")}


def main(folder: str, file: str, function: str, told: str, fd: str) -> None:
    write = os.fdopen(int(fd), "w")
    sys.path.insert(0, str(Path(folder).parent))
    try:
        module = importlib.import_module(f"{Path(folder).name}.{Path(file).stem}")
        value = getattr(module, function)(json.loads(told))
        if inspect.iscoroutine(value):
            value = asyncio.run(_resolved(value))
        said = {"value": value, "how": "answered"}
    except Exception as error:
        said = {"value": None, "how": f"{type(error).__name__}: {error}"}
    json.dump(said, write, default=repr)
    write.close()


async def _resolved(value: Any) -> Any:
    return await value


if __name__ == "__main__":
    main(*sys.argv[1:])
