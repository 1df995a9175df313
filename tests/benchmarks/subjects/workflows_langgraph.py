"""What `workflows.py` measures, by LangGraph: python workflows_langgraph.py FOLDER. Needs no EventCore.

`burst` checkpoints each step to SQLite before the next one begins (`durability="sync"`); `loose` keeps nothing at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from itertools import count
from typing import Any, TypedDict

os.environ.update(LANGCHAIN_TRACING_V2="false", LANGSMITH_TRACING="false")

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

STEPS, RUNS = 10, 100


class Numbers(TypedDict):
    n: int


async def add_one(state: Numbers) -> Numbers:
    return {"n": state["n"] + 1}


def chain(saver: Any) -> Any:
    graph = StateGraph(Numbers)
    names = [f"s{number}" for number in range(1, STEPS + 1)]
    for name, before in zip(names, [START, *names], strict=False):
        graph.add_node(name, add_one)
        graph.add_edge(before, name)
    graph.add_edge(names[-1], END)
    return graph.compile(checkpointer=saver)


async def burst(app: Any, threads: count[int], **options: Any) -> float:
    async def one() -> None:
        config = {"configurable": {"thread_id": f"run{next(threads)}"}}
        output = await app.ainvoke({"n": 0}, config, **options)
        assert output == {"n": STEPS}, output

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(RUNS)))
    return time.perf_counter() - began


async def main() -> None:
    loop, threads = asyncio.get_running_loop(), count()
    async with AsyncSqliteSaver.from_conn_string(f"{sys.argv[1]}/langgraph.db") as saver:
        durable, loose = chain(saver), chain(None)
        await burst(durable, threads, durability="sync")
        print(json.dumps({"ready": True}), flush=True)
        while what := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            taken = await (burst(loose, threads) if what == "loose" else burst(durable, threads, durability="sync"))
            print(json.dumps({"seconds": taken}), flush=True)


asyncio.run(main())
