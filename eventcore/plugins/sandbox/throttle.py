"""Holds a process to a share of a CPU where no control group does: it is stopped for as long as it has overdrawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import anyio

#: Between two looks at a process that computes, and at one that does not. Seconds.
_TICK, _IDLE_TICK = 0.005, 0.05
#: What may be saved up for a burst: so many seconds' worth.
_BURST = 0.05
#: The longest pause at a time, so that a call that is cancelled meanwhile is seen. Seconds.
_PAUSE = 0.25


def used_by(pid: int) -> float | None:
    """CPU seconds of all threads of a process so far; None when it is gone, or where that cannot be told."""
    try:
        return time.clock_gettime((~pid) << 3 | 2)  # what clock_getcpuclockid(3) returns
    except OSError:
        return None


class Stoppable(Protocol):
    """A process that can be stopped and let go on."""

    def cpu_seconds(self) -> float | None:
        """CPU time of all its threads so far; None when it is gone."""
        ...

    def pause(self, stopped: bool) -> None:
        """Stop it, or let it go on."""
        ...


class Budget:
    """How much of its CPU time a process has left. Pure.

    Args:
        share: CPU seconds a second, so 0.25 is a quarter of one core.
    """

    def __init__(self, share: float, now: float, used: float) -> None:
        self._share, self._now, self._used = share, now, used
        self._credit = share * _BURST

    def look(self, now: float, used: float) -> float:
        """Seconds to stop it for; 0 if it is within its share."""
        self._credit += (now - self._now) * self._share - (used - self._used)
        self._credit = min(self._credit, self._share * _BURST)
        self._now, self._used = now, used
        return -self._credit / self._share if self._credit < 0 else 0.0


async def throttle(process: Stoppable, share: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Hold `process` to `share` until it is gone or this is cancelled."""
    used = process.cpu_seconds()
    if used is None:
        return
    budget = Budget(share, clock(), used)
    try:
        while True:
            before, used = used, process.cpu_seconds()
            if used is None:
                return
            pause = budget.look(clock(), used)
            if pause:
                process.pause(True)
                await anyio.sleep(min(pause, _PAUSE))
            else:
                process.pause(False)
                await anyio.sleep(_TICK if used > before else _IDLE_TICK)
    finally:
        process.pause(False)
