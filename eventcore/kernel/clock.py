"""The system's clock, as a port's implementation. Nothing else in EventCore reads time."""

from __future__ import annotations

import time

import anyio


class SystemClock:
    """Wall time for what is stored, monotonic time for durations."""

    # The system's own functions, not methods that call them: a clock is read several times an event.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
