"""How fast the SQLite store commits. Prints JSON lines.

    python tests/benchmarks/bench_store.py [--turns 100] [--rounds 5] [--committers 100]

`concurrent`: batches a second of 100 committers, each batch a run's move with its guard and two journal entries.
`lone`: the median time of one commit after the other, against an insert and a commit through bare aiosqlite with the
same durability, measured in turns within one process; the limit is twice as long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiosqlite

from eventcore.kernel.clock import SystemClock
from eventcore.kernel.event import Event
from eventcore.kernel.ids import UUID7, SystemRandomness
from eventcore.kernel.records import Batch, JournalEntry, Run, RunAt, RunMove
from eventcore.storage.sqlite import SqliteStore

PAYLOAD = b'{"step":"classify","attempt":1,"input":{"text":"where is my order?"}}'
LONE = 100

ids = UUID7(SystemClock(), SystemRandomness())


def journal(run: str) -> JournalEntry:
    event = Event(ids.new(), "step_started", "/workflows/triage", 1e9, PAYLOAD, run=run, subject="classify")
    return JournalEntry(event, 1)


async def concurrent(store: SqliteStore, committers: int, turns: int) -> float:
    """Batches a second of all committers together. The records are made beforehand: the store is what is measured."""
    runs = [ids.new() for _ in range(committers)]
    await store.commit(
        Batch(runs=[Run(id_, "default", "triage", "d", "running", b"{}", "u", (), 1, 1) for id_ in runs])
    )
    work = [[(move(run, version), (RunAt(run, version),)) for version in range(1, turns + 1)] for run in runs]

    async def committer(todo: list[tuple[Batch, tuple[RunAt]]]) -> None:
        for batch, guards in todo:
            await store.commit(batch, guards)

    started = time.perf_counter()
    await asyncio.gather(*map(committer, work))
    return committers * turns / (time.perf_counter() - started)


def move(run: str, version: int) -> Batch:
    return Batch(log=[journal(run), journal(run)], moves=[RunMove(run, "running", version + 1, 2.0)])


async def lone(store: SqliteStore) -> float:
    """Median seconds of a commit with one event."""
    times = []
    for _ in range(LONE):
        event = Event(ids.new(), "tick", "/host", 1e9, PAYLOAD)
        started = time.perf_counter()
        await store.commit(Batch(log=[event]))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


async def bare(connection: aiosqlite.Connection) -> float:
    """Median seconds of an insert and a commit of the same data."""
    times = []
    for _ in range(LONE):
        row = (ids.new(), "tick", "/host", 1e9, PAYLOAD)
        started = time.perf_counter()
        await connection.execute("INSERT INTO events (id, type, source, at, raw) VALUES (?, ?, ?, ?, ?)", row)
        await connection.commit()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


async def open_bare(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path)
    for statement in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT, type TEXT, source TEXT, at REAL, raw BLOB)",
    ):
        await connection.execute(statement)
    return connection


async def main(options: argparse.Namespace) -> int:
    rates, alone, plain = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            store = SqliteStore(Path(folder) / "store.db")
            await store.start(stack)
            connection = await open_bare(Path(folder) / "bare.db")
            stack.push_async_callback(connection.close)
            for _ in range(options.rounds):
                rates.append(await concurrent(store, options.committers, options.turns))
                alone.append(await lone(store))
                plain.append(await bare(connection))
    rate, ratio = statistics.median(rates), statistics.median(a / b for a, b in zip(alone, plain, strict=True))
    print(
        json.dumps({"bench": "store.concurrent", "batches_per_s": round(rate), "limit": 12_000, "ok": rate >= 12_000})
    )
    medians = {"us": round(statistics.median(alone) * 1e6), "bare_us": round(statistics.median(plain) * 1e6)}
    print(json.dumps({"bench": "store.lone", **medians, "ratio": round(ratio, 2), "limit": 2.0, "ok": ratio <= 2}))
    return 0 if rate >= 12_000 and ratio <= 2 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=100, help="commits of each committer in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--committers", type=int, default=100)
    sys.exit(asyncio.run(main(parser.parse_args())))
