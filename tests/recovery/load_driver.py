"""The program that the crash tests kill under load: a thousand emits a second, five durable subscribers, some runs.

`python load_driver.py HOME LOG SECONDS` emits for so long; with 0 seconds it emits only what the last life may have
left behind, and ends when everything is dealt with. `EVENTCORE_FAULT=point:hit` says where it dies.

The log has a line for each thing that happened outside the engine: `life NUMBER`, `emitted N POSITION`, `started N`,
`begun NAME POSITION`, `handled NAME POSITION`. They are not fsync'd: what dies is a process, and what it has written to
the page cache stays. An fsync a line would keep the load far below what is to be proved.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.kernel.event import Event

RATE = 1000
KEYS = 20
#: One of so many numbers is a run of two steps, started by an event or by hand, in turn.
MARK = 50
#: Numbers of one life begin here times the number of that life.
LIFE = 100_000
#: So many emits of the last life, on both sides of the last one that was acknowledged, are made again.
AGAIN = 60

WORKFLOW = """
slug: count_up
triggers:
  - event: mark
    with: {start: "{{ event.data.n }}"}
steps:
  - {id: first, plugin: add_one, with: {n: "{{ inputs.start }}"}}
  - {id: second, plugin: add_one, with: {n: "{{ steps.first.output.n }}"}}
outputs: {n: "{{ steps.second.output.n }}"}
"""


@dataclass(frozen=True)
class How:
    """What a subscriber is like.

    Attributes:
        pause: how long its handler takes, in seconds.
        fails: its first attempt at each event whose number this divides fails, after it staged its effect.
        stages: it emits an event for each event whose number this divides.
    """

    concurrency: int = 1
    pause: float = 0.0
    fails: int = 0
    stages: int = 0


SUBSCRIBERS = {
    "plain": How(),
    "slow": How(concurrency=2, pause=0.002),
    "flaky": How(fails=29, stages=7),
    "keyed": How(concurrency=4, stages=5),
    "mixed": How(concurrency=8, fails=31, stages=11),
}


class Log:
    def __init__(self, path: Path) -> None:
        self.old = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def left_behind(self) -> list[int]:
        """Numbers of the last life of which nobody knows whether they are stored, and some that are."""
        numbers = [int(words[1]) for words in self.old if words[0] == "emitted"]
        if not numbers:
            return []
        last = max(numbers)
        return list(range(max(last - AGAIN, last // LIFE * LIFE), last + AGAIN))


def subscribe(core: EventCore, log: Log, name: str, how: How) -> None:
    async def handle(event: Event) -> None:
        assert core.bus.delivery is not None
        number = event.data["n"]
        log.write("begun", name, event.position)
        if how.pause:
            await anyio.sleep(how.pause)
        if how.stages and number % how.stages == 0:
            await core.bus.emit("effect", {"n": number, "by": name}, source=f"/{name}")
        if how.fails and number % how.fails == 0 and core.bus.delivery.attempt == 1:
            raise ConnectionError("not yet")
        log.write("handled", name, event.position)

    durable = Durable("all", backoff=(0.02,))
    core.bus.subscribe("job", handle, name=name, concurrency=how.concurrency, durable=durable)


def kind(number: int) -> str:
    """What a number stands for: a job, an event that starts a run, or a run."""
    if number % MARK:
        return "job"
    return "run" if number // MARK % 2 else "mark"


async def put_in(core: EventCore, log: Log, number: int) -> None:
    name, idempotency_key = kind(number), f"job-{number}"
    if name == "run":
        await core.workflows.start("count_up", {"start": number}, idempotency_key=idempotency_key)
        log.write("started", number)
        return
    receipt = await core.bus.emit(
        name, {"n": number}, key=f"k{number % KEYS}", source="/driver", idempotency_key=idempotency_key
    )
    log.write("emitted", number, receipt.position)


async def emit_on(core: EventCore, log: Log, life: int, seconds: float) -> None:
    """As many as are due by the clock, each by a task of its own; fewer if the engine does not keep up."""
    begun, made, waiting = anyio.current_time(), 0, 0

    async def one(number: int) -> None:
        nonlocal waiting
        await put_in(core, log, number)
        waiting -= 1

    async with anyio.create_task_group() as tasks:
        while (passed := anyio.current_time() - begun) < seconds:
            while made < passed * RATE and waiting < RATE // 4:
                waiting += 1
                tasks.start_soon(one, life * LIFE + made)
                made += 1
            await anyio.sleep(0.005)


async def settled(core: EventCore) -> None:
    """Return when every subscriber has dealt with every job, and every run has ended."""
    jobs = [event.position async for event in core.history.query(type="job", newest_first=True, limit=1)]
    last = max(jobs, default=0)
    with anyio.fail_after(200):
        for name in SUBSCRIBERS:
            while (cursor := await core.engine.store.cursor("default", name)) is None or cursor.position < last:
                await anyio.sleep(0.02)
        await core.drain(200)


async def work(home: Path, log_path: Path, seconds: float) -> None:
    log = Log(log_path)
    life = 1 + sum(words[0] == "life" for words in log.old)
    log.write("life", life)
    async with EventCore(home) as core:

        @core.intent("add_one")
        async def add_one(params: dict[str, Any]) -> dict[str, Any]:
            return {"n": params["n"] + 1}

        for name, how in SUBSCRIBERS.items():
            subscribe(core, log, name, how)
        print("go", flush=True)
        async with anyio.create_task_group() as tasks:
            for number in log.left_behind():
                tasks.start_soon(put_in, core, log, number)
        if seconds:
            await emit_on(core, log, life, seconds)
        else:
            await settled(core)


if __name__ == "__main__":
    anyio.run(work, Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
