"""The program that the crash tests of workflows kill: many runs of sixteen shapes at once.

`python shapes_driver.py HOME LOG RUNS EVERY` starts what is not there yet, does what runs need of the world (events,
signals, decisions, a pause, a cancel), waits for every end, and closes. It keeps a snapshot of a run every EVERY
journal entries. `EVENTCORE_FAULT=point:hit` says where it dies.

The log has a line for each thing outside the engine: `effect RUN PATH KEY`, `started N RUN`, `told N` (an event or a
signal was acknowledged), `result N STATUS OUTPUT`. It is not fsync'd: what dies is a process, and what it has written
to the page cache stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio

from eventcore import EventCore
from eventcore.kernel.errors import Conflict, EventCoreError, NotFound
from eventcore.kernel.faults import FaultPlan
from eventcore.workflows.saving import Saver
from tests.recovery.shapes import SHAPES

NAMES = [*SHAPES]
_PATIENCE = 120.0


def shape_of(number: int) -> str:
    """What kind of run this number is."""
    return NAMES[number % len(NAMES)]


class Log:
    """Lines of words; what earlier lives have told the runs is known from it."""

    def __init__(self, path: Path) -> None:
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        self.told = {int(words[1]) for words in lines if words[0] == "told"}
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: Any) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def register(core: EventCore, log: Log) -> None:
    """The one intent that all shapes call."""

    @core.intent("mark")
    async def mark(params: dict[str, Any]) -> dict[str, Any]:
        about = params["metadata"]
        log.write("effect", about["run"], about["step"], about["idempotency_key"])
        await anyio.sleep(0.001 * (params["n"] % 3))
        if params.get("boom") or about["attempt"] < params.get("shaky", 0):
            raise BrokenPipeError("boom")
        return {"n": params["n"] + 1}


async def help_along(core: EventCore, log: Log, number: int, run: Any) -> None:
    """What a run needs of the world, once."""
    what = SHAPES[shape_of(number)].helped_by
    if what in ("event", "signal") and number not in log.told:
        if what == "event":
            key = f"parcel-{number}"
            await core.bus.emit("parcel_arrived", {"n": number}, source="/driver", idempotency_key=key)
        else:
            await core.workflows.signal(run.id, "go", {"n": number})
        log.write("told", number)
    elif what in ("cancel", "pause"):
        await _ask(core, what, run)


async def _ask(core: EventCore, what: str, run: Any) -> None:
    """Cancel a run that waits for its child; pause one and let it go on."""
    try:
        if what == "cancel":
            while not await _has_child(core, run):
                await anyio.sleep(0.02)
            await core.workflows.cancel(run.id)
            return
        if await run.status() != "paused":  # an earlier life may have come so far
            await core.workflows.pause(run.id)
            await anyio.sleep(0.01)
        await core.workflows.resume(run.id)
    except Conflict:
        if not await run.over(_PATIENCE):
            raise


async def _has_child(core: EventCore, run: Any) -> bool:
    children = await core.workflows.runs(slug="sleepy_child", limit=1000)
    return any(child.parent == f"{run.id}/c" for child in children)


async def one(core: EventCore, log: Log, number: int) -> None:
    shape = shape_of(number)
    run = await core.workflows.start(shape, {"n": number}, idempotency_key=f"run-{number}")
    log.write("started", number, run.id)
    try:
        await help_along(core, log, number, run)
    except Conflict:
        assert await run.over(0), "refused although the run goes on"
    if not await run.over(_PATIENCE):
        row = await run.row()
        raise TimeoutError(f"{shape} {number}, run {run.id}, is {row.status} after {_PATIENCE:g} s: {row.raw_error!r}")
    row = await run.row()
    output = None if row.raw_output is None else json.loads(row.raw_output)
    log.write("result", number, row.status, json.dumps(output))


async def decide(core: EventCore) -> None:
    """Say yes to every approval, some of them twice."""
    while True:
        for asked in await core.workflows.verbs.approvals():
            with contextlib.suppress(NotFound):
                await core.workflows.verbs.decide(asked["run"], asked["step"], approved=True)
        await anyio.sleep(0.01)


async def work(home: Path, log_path: Path, runs: int, faults: FaultPlan | None = None) -> None:
    log = Log(log_path)
    async with EventCore(home, faults=faults) as core:
        register(core, log)
        print("go", flush=True)
        async with anyio.create_task_group() as deciding:
            deciding.start_soon(decide, core)
            async with anyio.create_task_group() as tasks:
                for number in range(runs):
                    tasks.start_soon(one, core, log, number)
            deciding.cancel_scope.cancel()
        if not await core.drain(_PATIENCE):
            raise EventCoreError("the engine is not idle although every run has ended")


if __name__ == "__main__":
    Saver.every = int(sys.argv[4])
    anyio.run(work, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
