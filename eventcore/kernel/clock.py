"""The system's clock, as a port's implementation. Nothing else in EventCore reads time."""

from __future__ import annotations

import time

import anyio


class SystemClock:
    """Wall time for what is stored, monotonic time for durations."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
