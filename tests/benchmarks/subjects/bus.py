"""The bus against bare blinker and bare aiosqlite: python bus.py FOLDER.

A round `1`, `10` or `100` hands transient events to so many async subscriptions (isolated, ordered, each with its time
limit) and sends as many through `blinker.Signal.send_async` to as many receivers. A round `lone` emits recorded
events one after the other, and inserts and commits like rows on a bare aiosqlite connection in between.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import aiosqlite
import blinker

from eventcore import EventCore
from eventcore.bus.bus import Bus

#: How many events a round sends, by the number of subscribers.
EVENTS = {1: 20_000, 10: 6_000, 100: 1_000}
LONE = 300
_SCHEMA = """
pragma journal_mode=wal;
pragma synchronous=full;
create table log (position integer primary key, id text, type text, at real, actor text, data blob);
create index log_type on log (type, position);
create index log_id on log (id);
"""


async def through_blinker(subscribers: int) -> float:
    signal, count, got = blinker.Signal(), EVENTS[subscribers], 0

    def receiver() -> Any:
        async def receive(sender: str, event: dict[str, int]) -> None:
            nonlocal got
            got += 1

        return receive

    kept = [signal.connect(receiver()) for _ in range(subscribers)]
    began = time.perf_counter()
    for number in range(count):
        await signal.send_async("default", event={"n": number})
    taken = time.perf_counter() - began
    assert got == count * len(kept)
    return count / taken


async def through_the_bus(bus: Bus, subscribers: int) -> float:
    count, got, tick = EVENTS[subscribers], 0, f"tick_{subscribers}"
    bus.declare(tick, transient=True)

    def receiver() -> Any:
        async def receive(event: Any) -> None:
            nonlocal got
            got += 1

        return receive

    kept = [bus.subscribe(tick, receiver()) for _ in range(subscribers)]
    began = time.perf_counter()
    for number in range(count):
        await bus.emit(tick, {"n": number})
    while got < count * subscribers:
        await asyncio.sleep(0)
    taken = time.perf_counter() - began
    for subscription in kept:
        bus.unsubscribe(subscription)
    return count / taken


async def lone(core: EventCore, bare: aiosqlite.Connection) -> dict[str, float]:
    ours, peers = [], []
    for number in range(LONE):
        began = time.perf_counter()
        await core.bus.emit("order_created", {"n": number})
        middle = time.perf_counter()
        row = (f"0190-{number}", "order_created", time.time(), "operator", b'{"n":1}')
        await bare.execute("insert into log (id, type, at, actor, data) values (?, ?, ?, ?, ?)", row)
        await bare.commit()
        ours.append(middle - began)
        peers.append(time.perf_counter() - middle)
    return {"ours": statistics.median(ours), "peer": statistics.median(peers)}


async def main(folder: Path) -> None:
    async with (
        aiosqlite.connect(folder / "bare.db") as bare,
        EventCore(store=f"sqlite:///{folder / 'ours.db'}") as core,
    ):
        await bare.executescript(_SCHEMA)
        print(json.dumps({"ready": True}), flush=True)
        while text := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if text == "lone":
                answer = await lone(core, bare)
            else:
                subscribers = int(text)
                peer = await through_blinker(subscribers)
                answer = {"ours": await through_the_bus(core.bus, subscribers), "peer": peer}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
