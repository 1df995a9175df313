"""Recorded emits of 100 publishers against a bare group-commit writer: python recorded.py FOLDER.

`ours`: each publisher waits for its commit before it emits the next event; one durable subscriber acknowledges them
all. The time ends when its cursor stands at the last event. Then the round's events are asked for by every axis.
`bare`: as many publishers, as many rows, each publisher waiting for its commit; one thread writes whatever is queued in
one transaction. `flood`: the same writer, its publishers not waiting at all.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.kernel.event import Event
from eventcore.storage.sqlite.rows import event_row

PUBLISHERS, EACH = 100, 100
EVENTS = PUBLISHERS * EACH
_COLUMNS = 21
_SCHEMA = """
pragma journal_mode=wal;
pragma synchronous=full;
create table log (position integer primary key, id text, type text, source text, at real, raw blob, tenant text,
  actor text, subject text, key text, run text, correlation text, causation text, hops integer, traceparent text,
  idempotency text, version integer, path text, ce_type text, extensions blob, blob text);
create index log_type on log (tenant, type);
create index log_id on log (id);
"""
_INSERT = f"insert into log values ({', '.join('?' * _COLUMNS)})"


class Bare:
    """One thread that writes everything that waits in one transaction, and then tells whoever waits."""

    def __init__(self, path: Path) -> None:
        self._path, self._loop = path, asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Any, asyncio.Future[None] | None]] = queue.SimpleQueue()
        self.position = 0
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, row: Any, done: asyncio.Future[None] | None) -> None:
        self._queue.put((row, done))

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.executescript(_SCHEMA)
        while True:
            taken = [self._queue.get()]
            while not self._queue.empty():
                taken.append(self._queue.get())
            connection.execute("begin immediate")
            connection.executemany(_INSERT, [(self.position + at, *row) for at, (row, _) in enumerate(taken, 1)])
            connection.execute("commit")
            self.position += len(taken)
            if waiting := [done for _, done in taken if done is not None]:
                self._loop.call_soon_threadsafe(_tell, waiting)


def _tell(waiting: list[asyncio.Future[None]]) -> None:
    for done in waiting:
        done.set_result(None)


async def bare(writer: Bare, rows: list[Any], *, wait: bool) -> float:
    loop, before = asyncio.get_running_loop(), writer.position

    async def publisher(mine: list[Any]) -> None:
        for row in mine:
            done = loop.create_future() if wait else None
            writer.put(row, done)
            if done is not None:
                await done

    began = time.perf_counter()
    await asyncio.gather(*(publisher(rows[at::PUBLISHERS]) for at in range(PUBLISHERS)))
    while writer.position - before < len(rows):
        await asyncio.sleep(0.0005)
    return len(rows) / (time.perf_counter() - began)


async def ours(core: EventCore, name: str) -> float:
    store, got = core.engine.store, 0

    async def count(event: Event) -> None:
        nonlocal got
        got += 1

    subscription = core.bus.subscribe("order_created", count, name="counter", durable=Durable())
    while not subscription.idle:
        await asyncio.sleep(0.001)
    first, since = await store.last_position(), time.time()

    async def publisher(number: int) -> None:
        for at in range(EACH):
            await core.bus.emit("order_created", {"order": at, "by": number}, subject=f"{name}-{number}")

    began = time.perf_counter()
    await asyncio.gather(*map(publisher, range(PUBLISHERS)))
    while got < EVENTS or not subscription.idle:
        await asyncio.sleep(0.0005)
    taken = time.perf_counter() - began
    await check(core, name, first, since)
    core.bus.unsubscribe(subscription)
    return EVENTS / taken


async def check(core: EventCore, name: str, first: int, since: float) -> None:
    """The round's events are found by every axis, and the subscriber's place is stored."""
    store, history = core.engine.store, core.history
    last = await store.last_position()
    cursor = await store.cursor("default", "counter")
    assert cursor is not None
    assert cursor.position == last == first + EVENTS, (cursor, first, last)
    [sample] = [event async for event in history.query(subject=f"{name}-7", limit=1)]
    axes: list[tuple[int, dict[str, Any]]] = [
        (EVENTS, {"type": "order_created"}),
        (EVENTS, {"type": "order_*"}),
        (EVENTS, {"source": "/host"}),
        (EVENTS, {"actor": "operator"}),
        (EVENTS, {"since": since}),
        (EACH, {"subject": f"{name}-7"}),
        (1, {"correlation": sample.correlation_id}),
        (PUBLISHERS, {"where": {"data.order": 3}}),
        (EACH, {"text": f"{name}-7", "where": {"data.by": 7}}),
        (0, {"run": "none"}),
    ]
    for wanted, conditions in axes:
        found = sum(row.count for row in await history.count(after=first, **conditions))
        assert found == wanted, f"{conditions}: {found}, not {wanted}"


async def main(folder: Path) -> None:
    writer = Bare(folder / "bare.db")
    async with EventCore(store=f"sqlite:///{folder / 'ours.db'}") as core:
        made = [core.bus.build("order_created", {"order": n, "by": n}, core.bus.context()) for n in range(EVENTS)]
        rows = [event_row(event, 0)[1:] for event in made]
        await bare(writer, rows[:1000], wait=True)
        print(json.dumps({"ready": True}), flush=True)
        number = 0
        while text := (await asyncio.to_thread(sys.stdin.readline)).strip():
            number += 1
            rate = await (ours(core, f"round{number}") if text == "ours" else bare(writer, rows, wait=text == "bare"))
            print(json.dumps({"rate": rate}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
