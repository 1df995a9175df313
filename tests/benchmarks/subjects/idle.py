"""What 10,000 subscriptions cost that have nothing to do: python idle.py. One round, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from eventcore import EventCore

COUNT, SECONDS = 10_000, 3.0


def resident() -> float:
    """Megabytes of memory in use."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def busy() -> float:
    """Milliseconds of CPU a second, with nothing happening."""
    began, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(SECONDS)
    return (time.process_time() - used) * 1e3 / (time.perf_counter() - began)


async def main() -> None:
    async with EventCore() as core:

        async def handle(event: Any) -> None:
            return None

        await core.bus.emit("tick_0", {})
        await core.bus.drain()
        print(json.dumps({"ready": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before, alone = resident(), await busy()
        for number in range(COUNT):
            core.bus.subscribe(f"tick_{number}", handle, name=f"idle-{number}")
        await asyncio.sleep(0.5)  # each pump begins, and goes to sleep
        after, together = resident(), await busy()
        print(json.dumps({"megabytes": after - before, "cpu": together, "cpu_alone": alone}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
