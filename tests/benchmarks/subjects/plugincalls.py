"""Warm calls of a trivial plain function in a sandboxed worker: python plugincalls.py FOLDER.

A round measures, call by call in turns: the bare channel (the worker's own round trip, nothing before or after it), an
invocation (router, roles, both schemas, worker, metrics), and a recorded call (`core.plugins.run` on the memory store).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from eventcore import EventCore
from eventcore.kernel.context import caller

CALLS = 400
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
MANIFEST = {"name": "add-one", "version": "1.0.0", "module": "handler", "plugin_api_version": "1.0", "license": "MIT"}
MANIFEST |= {"required_roles": ["user"], "input_schema": SCHEMA, "output_schema": SCHEMA}
HANDLER = 'def run(params):\n    return {"n": params["n"] + 1}\n'


def plant(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "plugin_manifest.json").write_text(json.dumps(MANIFEST))
    (folder / "handler.py").write_text(HANDLER)
    return folder


async def measured(subjects: dict[str, Callable[[int], Awaitable[Any]]]) -> dict[str, float]:
    """The median of each in seconds; they take turns, so that what else the machine does meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(CALLS):
        for name, once in subjects.items():
            began = time.perf_counter()
            await once(number)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


async def main(folder: Path) -> None:
    place = plant(folder / "add-one")
    async with EventCore() as core:
        core.plugins.registry.discover(str(place), str(place / "plugin_manifest.json"), None, "home", None)
        await core.plugins.enable("add-one")
        calls, who = core.plugins.calls, caller("user:ada", ["user"])
        metadata = {
            "call_id": "1",
            "idempotency_key": "1",
            "run": None,
            "step": None,
            "attempt": 1,
            "tenant": "default",
        }
        await calls.invoke("add-one", {"n": 1}, who, metadata)
        slot = calls._supervisor._slots["default", "add-one"]
        assert slot.worker is not None
        worker = slot.worker
        subjects: dict[str, Callable[[int], Awaitable[Any]]] = {
            "bare": lambda n: worker.call("run", {"params": {"n": n}}, timeout=30),
            "invoked": lambda n: calls.invoke("add-one", {"n": n}, who, metadata),
            "recorded": lambda n: core.plugins.run("add-one", {"n": n}, context=who),
        }
        print(json.dumps({"ready": True}), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await measured(subjects)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
