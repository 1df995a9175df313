"""Runs of ten trivial steps on SQLite: python workflows.py FOLDER [--plugin].

`burst`: 100 runs at once, until the last has its result. `alone`: the median of runs one after the other. After each
round the store is asked whether every event of every run is there.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from eventcore import EventCore

STEPS, RUNS, ALONE = 10, 100, 20

MANIFEST = {"name": "add-one", "version": "1.0.0", "module": "handler", "plugin_api_version": "1.0"}
MANIFEST |= {"intent": "add_one", "license": "MIT"}
HANDLER = 'def run(params):\n    return {"n": params["n"] + 1}\n'


def definition() -> dict[str, Any]:
    """Each step adds one to what the step before made."""
    sources = ["inputs.n", *(f"steps.s{number}.output.n" for number in range(1, STEPS))]
    steps = [
        {"id": f"s{number}", "plugin": "add_one", "with": {"n": "{{ " + source + " }}"}}
        for number, source in enumerate(sources, 1)
    ]
    return {"slug": "ten_steps", "steps": steps, "outputs": {"n": "{{ steps.s10.output.n }}"}}


def home(folder: Path) -> Path:
    """A home with one plugin that does what the in-process intent does."""
    root = folder / "home"
    plugin = root / "plugins" / "add-one"
    plugin.mkdir(parents=True)
    (root / "eventcore.toml").write_text('[plugins]\nenabled = ["add-one"]\n')
    (plugin / "plugin_manifest.json").write_text(json.dumps(MANIFEST))
    (plugin / "handler.py").write_text(HANDLER)
    return root


async def one(core: EventCore) -> float:
    began = time.perf_counter()
    run = await core.workflows.start("ten_steps", {"n": 0})
    output = await run.result()
    assert output == {"n": STEPS}, output
    return time.perf_counter() - began


async def burst(core: EventCore) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(one(core) for _ in range(RUNS)))
    return time.perf_counter() - began


async def check(core: EventCore, after: int, runs: int) -> None:
    """Every event of every run is in the history, in an order that a chain of steps allows."""
    seen: dict[str, list[str]] = {}
    async for event in core.history.query(after=after):
        if event.run:
            seen.setdefault(event.run, []).append(event.type)
    wanted = ["workflow_started", *["step_started", "step_completed"] * STEPS, "workflow_completed"]
    assert len(seen) == runs, f"{len(seen)} runs are in the history, not {runs}"
    for run, types in seen.items():
        kept = [name for name in types if name in wanted]
        assert kept == wanted, f"run {run} left {kept}"


async def serve(core: EventCore) -> None:
    loop = asyncio.get_running_loop()
    await burst(core)
    print(json.dumps({"ready": True}), flush=True)
    while what := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        before = await core.engine.store.last_position()
        if what == "burst":
            seconds, runs = await burst(core), RUNS
        else:
            seconds, runs = statistics.median([await one(core) for _ in range(ALONE)]), ALONE
        await check(core, before, runs)
        print(json.dumps({"seconds": seconds}), flush=True)


async def main(folder: Path, *, plugin: bool) -> None:
    core = EventCore(home(folder)) if plugin else EventCore(store=f"sqlite:///{folder.absolute()}/ours.db")
    async with core:
        if not plugin:

            @core.intent("add_one")
            async def add_one(params: dict[str, Any]) -> dict[str, int]:
                return {"n": params["n"] + 1}

        core.workflows.define(definition())
        await serve(core)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), plugin="--plugin" in sys.argv))
