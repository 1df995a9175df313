"""The program that the soak test starts: a process of its own, so that its memory is nobody else's.

`soak_driver.py soak FOLDER TRANSIENT RECORDED` sends that many events through 20 subscriptions, in four quarters, and
prints one line of JSON before the first and after each: what was handled, how large process and database are.

`soak_driver.py stuck FOLDER COUNT` records that many events while three subscriptions hold their first one, then lets
them go, and prints such a line after each of the two.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.kernel.event import Event

QUARTERS = 4
PUBLISHERS = 20
BOTH, FILTERED, KEYED, DURABLE = 10, 3, 3, 4


def peak_memory() -> int:
    """The most memory that this program ever had, in bytes. `ru_maxrss` also counts what forked it, before the exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class Counts:
    """How often each subscription's handler was called, and a digest of what it got: no event is kept."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.sums: dict[str, int] = {}

    def handler(self, name: str) -> Callable[[Event], Any]:
        self.calls[name] = self.sums[name] = 0

        async def count(event: Event) -> None:
            self.calls[name] += 1
            self.sums[name] += event.data["n"]

        return count


def subscribe(core: EventCore, counts: Counts) -> None:
    """Twenty subscriptions: plain ones, ones with a filter, with keys and several lanes, and durable ones."""
    subscribe = core.bus.subscribe
    for number in range(BOTH):
        subscribe("soak_*", counts.handler(f"both-{number}"), name=f"both-{number}")
    for number in range(FILTERED):
        name = f"filtered-{number}"
        subscribe("soak_*", counts.handler(name), name=name, where=lambda event: event.data["n"] % 2 == 0)
    for number in range(KEYED):
        subscribe("soak_*", counts.handler(f"keyed-{number}"), name=f"keyed-{number}", concurrency=4)
    for number in range(DURABLE):
        name = f"durable-{number}"
        subscribe("soak_note", counts.handler(name), name=name, durable=Durable(max_ack_pending=1000))


def memory() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def publish(core: EventCore, type: str, first: int, last: int) -> None:
    """Emit the numbers from `first` to before `last`, by several publishers, with a few keys among them."""

    async def one(offset: int) -> None:
        for number in range(first + offset, last, PUBLISHERS):
            await core.bus.emit(type, {"n": number}, key=str(number % 50) if number % 3 == 0 else None)

    async with anyio.create_task_group() as tasks:
        for offset in range(PUBLISHERS):
            tasks.start_soon(one, offset)


async def soak(folder: Path, transient: int, recorded: int) -> None:
    counts, began = Counts(), time.monotonic()
    async with EventCore(store=f"sqlite:///{folder}/soak.db") as core:
        core.bus.declare("soak_tick", transient=True)
        subscribe(core, counts)
        await core.drain()
        print(json.dumps({"quarter": 0, "database": await core.engine.store.size()}), flush=True)
        for quarter in range(QUARTERS):
            for kind, count in (("soak_tick", transient), ("soak_note", recorded)):
                await publish(core, kind, count * quarter // QUARTERS, count * (quarter + 1) // QUARTERS)
            drained = await core.drain(120)
            line = {
                "quarter": quarter + 1,
                "drained": drained,
                "seconds": round(time.monotonic() - began, 1),
                "memory": memory(),
                "database": await core.engine.store.size(),
                "calls": counts.calls,
                "sums": counts.sums,
                "dropped": sum(one.dropped for one in core.bus.subscriptions()),
                "peak": peak_memory(),
            }
            print(json.dumps(line), flush=True)


class Stuck:
    """A handler that holds its first event until told; then counts, and notes whether numbers came in order, once."""

    def __init__(self) -> None:
        self.go, self.began = anyio.Event(), anyio.Event()
        self.count, self.last, self.in_order = 0, -1, True

    async def __call__(self, event: Event) -> None:
        self.began.set()
        await self.go.wait()
        self.in_order &= event.data > self.last
        self.count, self.last = self.count + 1, event.data


async def stuck(folder: Path, count: int) -> None:
    began, batch = time.monotonic(), 1000
    handlers = {name: Stuck() for name in ("dropping", "spilling", "durable")}
    async with EventCore(store=f"sqlite:///{folder}/stuck.db") as core:
        subscribe = core.bus.subscribe
        subscribe("x", handlers["dropping"], name="dropping", buffer=1000, overflow="drop_oldest", timeout=3600)
        subscribe("x", handlers["spilling"], name="spilling", buffer=1000, overflow="spill", timeout=3600)
        subscribe("x", handlers["durable"], name="durable", durable=Durable(max_ack_pending=1000), timeout=3600)

        async def report(what: str) -> None:
            notices = [event.data async for event in core.history.query(type="bus_overflow")]
            line = {
                "when": what,
                "seconds": round(time.monotonic() - began, 1),
                "memory": memory(),
                "peak": peak_memory(),
                "overflows": sorted((notice["subscription"], notice["policy"]) for notice in notices),
                "dropped": {one.name: one.dropped for one in core.bus.subscriptions()},
                "handled": {name: one.count for name, one in handlers.items()},
                "in_order": all(one.in_order for one in handlers.values()),
            }
            print(json.dumps(line), flush=True)

        for first in range(0, count, batch):
            await core.bus.emit_many([("x", number) for number in range(first, first + batch)])
            if first == 10 * batch:
                await report("begun")  # what the first batches take is kept for the next ones
        await report("stuck")
        for handler in handlers.values():
            handler.go.set()
        await core.drain(600)
        await report("done")


if __name__ == "__main__":
    mode, place, *numbers = sys.argv[1:]
    anyio.run({"soak": soak, "stuck": stuck}[mode], Path(place), *map(int, numbers))
