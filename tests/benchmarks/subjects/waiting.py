"""Runs that wait, runs that are over, and schedules, on SQLite: python waiting.py MODE FOLDER [COUNT].

`live`: rounds `alone` (a run of ten steps, and ten bare commits), `first` (from an event to the first step that it
starts, and a plain recorded emit) and `waits` (an emit that COUNT runs wait for the like of, and one of another type).
`fill`: a home with COUNT waiting runs; says `ready`, and kills itself when it is told to.
`resume`: the seconds until that home is open, and the megabytes that are in use then.
`finished`: rounds of starting a run and of listing the last 50, among COUNT finished runs and in an empty store.
`long`: from a signal to the next step, of a run with COUNT journal entries that is loaded for it, of one with five
times as many, and of a short run.
`cron`: the CPU that COUNT schedules take while nothing is due, in milliseconds a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite

from eventcore import EventCore

STEPS, TAKES, IDLE = 10, 40, 35.0
WAIT = {"slug": "patient", "steps": [{"id": "w", "wait_for": {"event": "paid", "match": {"n": "{{ inputs.n }}"}}}]}
ONE = {"slug": "one", "triggers": [{"event": "go", "with": {}}], "steps": [{"id": "a", "plugin": "add_one"}]}
TEN = {
    "slug": "ten",
    "steps": [{"id": f"s{number}", "plugin": "add_one", "with": {"n": number}} for number in range(STEPS)],
}


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def resident() -> float:
    """Megabytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def median(take: Callable[[], Awaitable[Any]], count: int = TAKES) -> float:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        await take()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def heard() -> str:
    return (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).strip()


async def fill_with_waits(core: EventCore, count: int) -> None:
    core.workflows.define(WAIT)
    for first in range(0, count, 500):
        await asyncio.gather(*(core.workflows.start("patient", {"n": first + n}) for n in range(500)))
    await core.drain(60)


# -- live -------------------------------------------------------------------------------------------------------------


async def live(folder: Path, count: int) -> None:
    bare = await aiosqlite.connect(folder / "bare.db", isolation_level=None)
    await bare.execute("PRAGMA journal_mode=WAL")
    await bare.execute("PRAGMA synchronous=FULL")
    await bare.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, raw BLOB)")
    async with EventCore(store=f"sqlite:///{folder.absolute()}/live.db") as core:
        called = asyncio.Event()

        @core.intent("add_one")
        async def add_one(params: dict[str, Any]) -> dict[str, Any]:
            called.set()
            return params

        for definition in (ONE, TEN):
            core.workflows.define(definition)

        async def ten() -> None:
            await (await core.workflows.start("ten")).result()

        async def commits() -> None:
            for _ in range(STEPS):
                await bare.execute("BEGIN")
                await bare.executemany("INSERT INTO rows (raw) VALUES (?)", [(b"x" * 200,)] * 2)
                await bare.execute("COMMIT")

        async def first() -> None:
            called.clear()
            await core.bus.emit("go", {})
            await called.wait()

        async def plain() -> None:
            await core.bus.emit("nothing", {"n": -1})

        await ten()
        say(ready=True)
        while what := await heard():
            if what == "alone":
                say(ours=await median(ten), peer=await median(commits))
            elif what == "first":
                ours = await median(first)
                await core.drain(10)
                say(ours=ours, peer=await median(plain))
            else:
                if not await core.workflows.runs(slug="patient", limit=1):
                    await fill_with_waits(core, count)
                say(ours=await median(lambda: core.bus.emit("paid", {"n": -1})), peer=await median(plain))
    await bare.close()


# -- resume -----------------------------------------------------------------------------------------------------------


async def fill(folder: Path, count: int) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "eventcore.toml").touch()
    async with EventCore(folder / "home") as core:
        await fill_with_waits(core, count)
        say(ready=True)
        await heard()
        os.kill(os.getpid(), signal.SIGKILL)


async def resume(folder: Path) -> None:
    say(ready=True)
    await heard()
    before, began = resident(), time.perf_counter()
    async with EventCore(folder / "home") as core:
        core.workflows.define(WAIT)
        seconds, megabytes, tasks = time.perf_counter() - began, resident() - before, len(asyncio.all_tasks())
        run = (await core.workflows.runs(limit=1))[0]
        await core.bus.emit("paid", {"n": json.loads(run.raw_inputs)["n"]})
        await (await core.workflows.run(run.id)).result(20)
        say(seconds=seconds, megabytes=megabytes, tasks=tasks)


# -- finished ---------------------------------------------------------------------------------------------------------


def copy_run(path: Path, count: int) -> None:
    """Make the one finished run of a store into so many, with all its rows but the newest events."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        columns = [row[1] for row in db.execute("PRAGMA table_info(runs)")]
        [run] = db.execute("SELECT * FROM runs").fetchall()
        rows = (
            tuple(f"00{number:010d}-old" if name == "id" else value for name, value in zip(columns, run, strict=True))
            for number in range(count)
        )
        db.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * len(columns))})", rows)
        columns = [row[1] for row in db.execute("PRAGMA table_info(journal)")]
        entries = db.execute("SELECT * FROM journal").fetchall()
        top = db.execute(
            "SELECT max(p) FROM (SELECT max(position) p FROM journal UNION SELECT max(position) FROM events)"
        )
        [start] = top.fetchone()

        def copies() -> Any:
            position = start
            for number in range(count):
                for entry in entries:
                    position += 1
                    new = {"position": position, "id": f"00{position:010d}-j", "run": f"00{number:010d}-old"}
                    yield tuple(new.get(name, value) for name, value in zip(columns, entry, strict=True))

        db.executemany(f"INSERT INTO journal VALUES ({', '.join('?' * len(columns))})", copies())
        db.execute("COMMIT")


async def finished(folder: Path, count: int) -> None:
    stores = {"few": folder / "few.db", "many": folder / "many.db"}
    for name, path in stores.items():
        async with EventCore(store=f"sqlite:///{path.absolute()}") as core:
            await _furnish(core)
            await (await core.workflows.start("one")).result()
        if name == "many":
            copy_run(path, count)
    few, many = (EventCore(store=f"sqlite:///{path.absolute()}") for path in stores.values())
    async with few, many:
        for core in (few, many):
            await _furnish(core)
            for _ in range(60):
                await (await core.workflows.start("one")).result()
        say(ready=True)
        while what := await heard():
            take = _start if what == "start" else _list
            say(ours=await median(partial(take, many)), peer=await median(partial(take, few)))


async def _furnish(core: EventCore) -> None:
    async def add_one(params: dict[str, Any]) -> dict[str, Any]:
        return {}

    core.plugins.intent("add_one", add_one)
    core.workflows.define(ONE)


async def _start(core: EventCore) -> None:
    await (await core.workflows.start("one")).result()


async def _list(core: EventCore) -> None:
    assert len(await core.workflows.runs(limit=50)) == 50


# -- long -------------------------------------------------------------------------------------------------------------


async def long(folder: Path, count: int) -> None:
    waits = [
        step
        for number in range(10)
        for step in ({"id": f"w{number}", "wait_for": {"signal": "go"}}, {"id": f"e{number}", "emit": "moved"})
    ]
    each = {"foreach": "{{ inputs.items }}", "max_parallel": 100, "plugin": "add_one"}
    async with EventCore(store=f"sqlite:///{folder.absolute()}/long.db") as core:
        await _furnish(core)
        runs, moved = {}, asyncio.Event()
        for name, loops, items in (("ours", 1, count // 2), ("far", 5, count // 2), ("peer", 1, 1)):
            steps = [{**each, "id": f"all{number}"} for number in range(loops)]
            core.workflows.define({"slug": name, "steps": [*steps, *waits]})
            runs[name] = await core.workflows.start(name, {"items": [*range(items)]})
        core.bus.subscribe("moved", lambda event: moved.set())
        for run in runs.values():
            while await run.status() != "waiting":
                await asyncio.sleep(0.05)
        await core.drain(60)
        say(ready=True)
        while await heard():
            taken = {}
            for name, run in runs.items():
                moved.clear()
                began = time.perf_counter()
                await core.workflows.signal(run.id, "go")
                await moved.wait()
                taken[name] = time.perf_counter() - began
                await core.drain(60)
            say(**taken)


# -- cron -------------------------------------------------------------------------------------------------------------


async def cron(folder: Path, count: int) -> None:
    async with EventCore(store=f"sqlite:///{folder.absolute()}/cron.db") as core:
        triggers = [
            {"cron": f"{number % 60} {number % 24} 1 1 *", "id": f"t{number}", "with": {}} for number in range(100)
        ]
        for number in range(count // 100):
            core.workflows.define({**ONE, "slug": f"w{number}", "triggers": triggers})
        while len(await core.workflows.schedules.listed()) < count:  # type: ignore[union-attr]
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        say(ready=True)
        await heard()
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(IDLE)
        say(cpu=(time.process_time() - used) * 1e3 / (time.perf_counter() - began))


def main() -> None:
    mode, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    modes: dict[str, Callable[[], Any]] = {
        "live": lambda: live(folder, count),
        "fill": lambda: fill(folder, count),
        "resume": lambda: resume(folder),
        "finished": lambda: finished(folder, count),
        "long": lambda: long(folder, count),
        "cron": lambda: cron(folder, count),
    }
    asyncio.run(modes[mode]())


if __name__ == "__main__":
    main()
