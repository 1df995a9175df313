"""The program that the tests of durable subscriptions kill: emits, and two subscribers that stage an effect each.

`python durable_driver.py HOME LOG`; `EVENTCORE_FAULT=point:hit` says where it dies. It may be run again on the same
home and then only finishes what is missing. The log is fsync'd line by line, so it tells the truth after a SIGKILL.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.kernel.event import Event
from eventcore.kernel.faults import FaultPlan

JOBS = 40
KEYS = 4
SUBSCRIBERS = {"billing": 1, "mailing": 3}


class Log:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, kind: str, **body: object) -> None:
        os.write(self._file, (json.dumps({"kind": kind, **body}) + "\n").encode())
        os.fsync(self._file)


def subscribe(core: EventCore, log: Log, name: str, concurrency: int) -> None:
    async def handle(event: Event) -> None:
        assert core.bus.delivery is not None
        number = event.data["n"]
        if number % 5 == 0 and core.bus.delivery.attempt == 1:
            raise ConnectionError("not yet")
        await core.bus.emit(f"{name}_done", {"n": number}, source=f"/{name}")
        log.write("handled", by=name, n=number, key=event.key)

    durable = Durable("all", backoff=(0.005,), max_ack_pending=20)
    core.bus.subscribe("job", handle, name=name, concurrency=concurrency, durable=durable)


async def work(home: Path, log_path: Path, faults: FaultPlan | None = None) -> None:
    log = Log(log_path)
    async with EventCore(home, faults=faults) as core:
        for name, concurrency in SUBSCRIBERS.items():
            subscribe(core, log, name, concurrency)
        print("go", flush=True)
        for number in range(JOBS):
            receipt = await core.bus.emit(
                "job", {"n": number}, key=f"k{number % KEYS}", source="/driver", idempotency_key=f"job-{number}"
            )
            log.write("receipt", n=number, position=receipt.position)
        with anyio.fail_after(120):
            for name in SUBSCRIBERS:
                while await done(core, name) < JOBS:
                    await anyio.sleep(0.005)
        await core.drain(120)


async def done(core: EventCore, name: str) -> int:
    return len([event async for event in core.history.query(type=f"{name}_done")])


if __name__ == "__main__":
    anyio.run(work, Path(sys.argv[1]), Path(sys.argv[2]))
