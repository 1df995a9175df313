"""What a hook call costs. Prints JSON lines.

    python tests/benchmarks/bench_hooks.py [--calls 3000] [--rounds 9]

`hooks.call`: a gate, a filter, two replies and an observer, all async functions of this process, each with its time
limit; the hook records nothing. The limit is 25 us. `hooks.call, model`: the same with a pydantic payload model.
`bare`: the five functions awaited one after the other, without anything around them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel

from eventcore import EventCore
from eventcore.hooks.specs import HookSpec

LIMIT = 25.0
PAYLOAD = {"text": "where is my order?", "user": "ada", "channel": "#general"}


class Question(BaseModel):
    text: str
    user: str
    channel: str


async def looks(payload: Any) -> None:
    return None


async def answers(payload: Any) -> dict[str, Any]:
    return {"text": "on its way"}


async def microseconds(work: Callable[[], Awaitable[Any]], calls: int, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            await work()
        times.append((time.perf_counter() - began) / calls * 1e6)
    return times


async def bare() -> None:
    for function in (looks, looks, answers, answers, looks):
        await function(PAYLOAD)


async def main(calls: int, rounds: int) -> int:
    ok = True
    async with EventCore() as core:
        core.hooks.declare(HookSpec("on_question", record="never"))
        core.hooks.declare(HookSpec("on_question_checked", Question, record="never"))
        for hook in ("on_question", "on_question_checked"):
            core.hooks.register(hook, looks, stage="gate")
            core.hooks.register(hook, looks, stage="filter")
            core.hooks.register(hook, answers, owner="a")
            core.hooks.register(hook, answers, owner="b")
            core.hooks.register(hook, looks, stage="observe")
            outcome = await core.hooks.call(hook, PAYLOAD)
            assert (len(outcome.replies), len(outcome.trace)) == (2, 5)
        plain = await microseconds(lambda: core.hooks.call("on_question", PAYLOAD), calls, rounds)
        model = await microseconds(lambda: core.hooks.call("on_question_checked", PAYLOAD), calls, rounds)
        nothing = await microseconds(bare, calls, rounds)
    for name, times in (("hooks.call", plain), ("hooks.call, model", model), ("bare", nothing)):
        best = min(times)
        print(json.dumps({"bench": name, "us": round(best, 2), "median_us": round(statistics.median(times), 2)}))
        if name == "hooks.call":
            ok = best <= LIMIT
    return 0 if ok else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.calls, arguments.rounds)))
