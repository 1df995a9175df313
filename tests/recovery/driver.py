"""The program that the recovery tests kill: opens a home, puts work into it, and writes down what it saw.

Whatever happens outside the engine (a step's effect, a receipt) is appended to a log as a line of JSON and fsync'd at
once, so that the log tells the truth after a SIGKILL. Every mode may be run again on the same home, and then only
finishes what is missing.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio

from eventcore import EventCore
from eventcore.kernel.faults import FaultPlan
from eventcore.workflows.saving import Saver

NOTES = 3
ORDERS = 5
RUNS = 20

STEPS = [f"s{number}" for number in range(1, 11)]


def ten_steps() -> str:
    """Ten steps in a row: eight calls, an emit and a short sleep; each call takes the number that the last one gave."""
    lines = ["slug: ten_steps", "steps:"]
    number = "{{ inputs.start }}"
    for step in STEPS:
        if step == "s5":
            lines.append(f"  - {{id: {step}, emit: halfway_reached, with: {{n: '{number}'}}}}")
        elif step == "s7":
            lines.append(f"  - {{id: {step}, sleep: 10ms}}")
        else:
            lines.append(f"  - {{id: {step}, plugin: add_one, with: {{n: '{number}'}}}}")
            number = "{{ steps." + step + ".output.n }}"
    return "\n".join([*lines, f"outputs: {{n: '{number}'}}", ""])


ORDER_WORKFLOW = """
slug: handle_order
triggers:
  - event: order_placed
    with: {start: "{{ event.data.n }}"}
steps:
  - {id: first, plugin: add_one, with: {n: "{{ inputs.start }}"}}
  - {id: second, plugin: add_one, with: {n: "{{ steps.first.output.n }}"}}
outputs: {n: "{{ steps.second.output.n }}"}
"""

# Branches that run beside each other, and a step that fails once and is tried again.
FORKED = """
slug: forked
steps:
  - {id: a, plugin: add_one, with: {n: "{{ inputs.start }}"}}
  - {id: b, needs: [a], plugin: add_one, with: {n: "{{ steps.a.output.n }}"}}
  - {id: c, needs: [a], plugin: fail_once, with: {n: "{{ steps.a.output.n }}"}, retry: {attempts: 9, initial: 1ms}}
  - {id: d, needs: [b, c], plugin: add_one, with: {n: "{{ steps.c.output.n }}"}}
outputs: {n: "{{ steps.d.output.n }}"}
"""

WORKFLOWS = {"ten_steps": ten_steps(), "handle_order": ORDER_WORKFLOW, "forked": FORKED}


class Log:
    """Lines of JSON that are on the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, kind: str, **body: Any) -> None:
        os.write(self._file, (json.dumps({"kind": kind, "pid": os.getpid(), **body}) + "\n").encode())
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def make_home(folder: Path) -> None:
    """A home with the workflows above."""
    (folder / "workflows").mkdir(parents=True)
    (folder / "eventcore.toml").write_text("", encoding="utf-8")
    for slug, text in WORKFLOWS.items():
        (folder / "workflows" / f"{slug}.yaml").write_text(text, encoding="utf-8")


def register(core: EventCore, log: Log) -> None:
    """The intents of the workflows; each call is an effect in the log."""

    def effect(params: dict[str, Any]) -> None:
        about = params["metadata"]
        names = ("run", "step", "attempt", "idempotency_key")
        log.write("effect", **{name: about[name] for name in names})

    @core.intent("add_one")
    async def add_one(params: dict[str, Any]) -> dict[str, Any]:
        effect(params)
        await anyio.sleep(0)
        return {"n": params["n"] + 1}

    @core.intent("fail_once")
    async def fail_once(params: dict[str, Any]) -> dict[str, Any]:
        effect(params)
        if params["metadata"]["attempt"] == 1:
            raise ConnectionError("not yet")
        await anyio.sleep(0.002)
        return {"n": params["n"] + 1}


async def _emit(core: EventCore, log: Log, type: str, number: int) -> None:
    receipt = await core.bus.emit(type, {"n": number}, source="/driver", idempotency_key=f"{type}-{number}")
    log.write("receipt", id=receipt.id, position=receipt.position, type=type, n=number)


async def ten(core: EventCore, log: Log) -> None:
    """Notes, one run of ten steps, more notes; all one after another, so that the fault points come in fixed order."""
    for number in range(NOTES):
        await _emit(core, log, "note_taken", number)
    run = await core.workflows.start("ten_steps", {"start": 0}, idempotency_key="the-run")
    log.write("started", run=run.id)
    log.write("result", run=run.id, output=await run.result(timeout=120))
    for number in range(NOTES, 2 * NOTES):
        await _emit(core, log, "note_taken", number)


async def orders(core: EventCore, log: Log) -> None:
    """Events, each of which starts a run in its own commit."""
    for number in range(ORDERS):
        await _emit(core, log, "order_placed", number)


async def many(core: EventCore, log: Log) -> None:
    """Runs and events at the same time; says when it begins, so that it can be killed at any moment after."""
    print("go", flush=True)

    async def one(number: int) -> None:
        await _emit(core, log, "note_taken", number)
        slug = "forked" if number % 2 else "ten_steps"
        run = await core.workflows.start(slug, {"start": number}, idempotency_key=f"run-{number}")
        log.write("started", run=run.id)
        log.write("result", run=run.id, output=await run.result(timeout=120))
        await _emit(core, log, "order_placed", number)

    async with anyio.create_task_group() as tasks:
        for number in range(RUNS):
            tasks.start_soon(one, number)


MODES = {"ten": ten, "orders": orders, "many": many}


async def work(mode: str, home: Path, log_path: Path, faults: FaultPlan | None = None) -> None:
    """Open the home, do what `mode` says (or what is missing of it), and close."""
    with closing(Log(log_path)) as log:
        async with EventCore(home, faults=faults) as core:
            register(core, log)
            await MODES[mode](core, log)
            await core.drain(120)


def main() -> None:
    """`python driver.py MODE HOME LOG`; `EVENTCORE_FAULT=point:hit` says where it dies."""
    mode, home, log = sys.argv[1:]
    anyio.run(work, mode, Path(home), Path(log))


if __name__ == "__main__":
    Saver.every = 3  # the ten steps go on from snapshots, whichever commit the process dies around
    main()
