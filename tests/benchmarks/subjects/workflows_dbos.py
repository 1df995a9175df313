"""What `workflows.py` measures, by DBOS on SQLite as it comes: python workflows_dbos.py FOLDER. Needs no EventCore."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from dbos import DBOS

STEPS, RUNS, ALONE = 10, 100, 20

DBOS(
    config={
        "name": "bench",
        "system_database_url": f"sqlite:///{sys.argv[1]}/dbos.db",
        "log_level": "ERROR",
        "run_admin_server": False,
    }
)


@DBOS.step()
async def add_one(n: int) -> int:
    return n + 1


@DBOS.workflow()
async def ten_steps(n: int) -> int:
    for _ in range(STEPS):
        n = await add_one(n)
    return n


async def by_handle() -> float:
    began = time.perf_counter()
    handle = await DBOS.start_workflow_async(ten_steps, 0)
    output = await handle.get_result()
    assert output == STEPS, output
    return time.perf_counter() - began


async def called() -> float:
    began = time.perf_counter()
    output = await ten_steps(0)
    assert output == STEPS, output
    return time.perf_counter() - began


async def burst(one: Callable[[], Awaitable[float]]) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(RUNS)))
    return time.perf_counter() - began


async def alone(one: Callable[[], Awaitable[float]]) -> float:
    return statistics.median([await one() for _ in range(ALONE)])


async def main() -> None:
    loop = asyncio.get_running_loop()
    await called()
    fastest = {}
    for name, measure in (("burst", burst), ("alone", alone)):
        taken = {one: await measure(one) for one in (called, by_handle)}
        fastest[name] = min(taken, key=lambda one: taken[one])
    print(json.dumps({"ready": True}), flush=True)
    while what := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        measure = {"burst": burst, "alone": alone}[what]
        print(json.dumps({"seconds": await measure(fastest[what])}), flush=True)


DBOS.launch()
asyncio.run(main())
DBOS.destroy()
