"""What `workflows.py` measures, by DBOS on SQLite as it comes: python workflows_dbos.py FOLDER. Needs no EventCore."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

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


async def one() -> float:
    began = time.perf_counter()
    handle = await DBOS.start_workflow_async(ten_steps, 0)
    output = await handle.get_result()
    assert output == STEPS, output
    return time.perf_counter() - began


async def called() -> float:
    """The workflow awaited as a function: its faster way for one run, since nothing polls for the result."""
    began = time.perf_counter()
    output = await ten_steps(0)
    assert output == STEPS, output
    return time.perf_counter() - began


async def burst() -> float:
    began = time.perf_counter()
    await asyncio.gather(*(called() for _ in range(RUNS)))
    return time.perf_counter() - began


async def main() -> None:
    loop = asyncio.get_running_loop()
    await burst()
    print(json.dumps({"ready": True}), flush=True)
    while what := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        seconds = await burst() if what == "burst" else statistics.median([await called() for _ in range(ALONE)])
        print(json.dumps({"seconds": seconds}), flush=True)


DBOS.launch()
asyncio.run(main())
DBOS.destroy()
