"""The keeper of stored timers sees a clock that was set forward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from eventcore.workflows import timers
from eventcore.workflows.timers import TimerKeeper

pytestmark = pytest.mark.anyio


async def test_a_clock_set_forward_is_seen_at_the_next_look() -> None:
    now, fired, looked = [0.0], anyio.Event(), anyio.Event()

    async def next_timer() -> float:
        looked.set()
        return 7200.0

    async def due(at: float, limit: int = 100) -> list[str]:
        return ["timer"] if 7200.0 <= at < 9e15 else []

    async def fire(timer: object) -> bool:
        fired.set()
        return True

    store: Any = SimpleNamespace(next_timer=next_timer, timers=due)
    clock: Any = SimpleNamespace(now=lambda: now[0], monotonic=lambda: 0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(TimerKeeper(store, clock, fire, look_every=0.02).keep)
        await looked.wait()
        now[0] = 7300.0
        with anyio.fail_after(30):
            await fired.wait()
        group.cancel_scope.cancel()


def test_half_a_minute_is_the_longest_sleep() -> None:
    assert timers._LOOK_EVERY <= 30.0
