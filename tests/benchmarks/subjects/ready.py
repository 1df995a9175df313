"""Opens a home in which 500 plugins that only answer intents are enabled: python ready.py FOLDER.

They were enabled before: their code was loaded once then, and what it registered is in the store.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from eventcore import EventCore
from eventcore.kernel.json import encode
from eventcore.kernel.records import Batch, PluginState
from eventcore.plugins.registry import hash_folder

COUNT = 500


def write(root: Path) -> None:
    (root / "eventcore.toml").write_text("")
    for number in range(COUNT):
        folder = root / "plugins" / f"group-{number % 10}" / f"plugin-{number}"
        folder.mkdir(parents=True)
        body = {"name": folder.name, "version": "1.0.0", "module": "handler", "intent": f"intent_{number}"}
        (folder / "plugin_manifest.json").write_text(json.dumps(body))
        (folder / "handler.py").write_text(f"def run(params):\n    return {number}\n")


async def enable(root: Path) -> None:
    """Enable one, and store of the others what it left: to load 500 takes a while, and is not what is measured."""
    async with EventCore(root) as core:
        one = await core.plugins.enable("plugin-0")
        raw = encode({"registered": one.registered, "granted": []})
        rows = [
            PluginState(core.engine.tenant, record.slug, "enabled", None, 1.0, hash_folder(record.folder), raw)
            for record in core.plugins.list()
            if record.origin == "home"
        ]
        await core.engine.bus.commit(Batch(plugin_states=rows))


async def opened(root: Path) -> dict[str, float]:
    began = time.perf_counter()
    async with EventCore(root) as core:
        seconds = time.perf_counter() - began
        records = core.plugins.list()
        assert await core.plugins.run("intent_499") == 499
        return {
            "seconds": seconds,
            "enabled": sum(record.enabled for record in records),
            "workers": sum(core.plugins.lifecycle.running(record) for record in records) - 1,
        }


def main(root: Path) -> None:
    write(root)
    asyncio.run(enable(root))
    time.sleep(2.1)
    asyncio.run(opened(root))
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(asyncio.run(opened(root))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
