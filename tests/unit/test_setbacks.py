"""A wall clock that is set back makes nothing late that waits."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.json import encode
from eventcore.kernel.records import Timer
from eventcore.storage.memory import MemoryStore
from eventcore.workflows.setbacks import Setbacks

pytestmark = pytest.mark.anyio

HOUR = 3600.0


class Stepped(SystemClock):
    """The system's clock, set to another time while time goes on."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def now(self) -> float:  # type: ignore[override]
        return SystemClock.now() + self.ahead


class Watch:
    def __init__(self) -> None:
        self.wall = self.passed = 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None: ...

    def go(self, seconds: float, *, step: float = 0.0) -> None:
        self.passed += seconds
        self.wall += seconds + step


def row(name: str, due: float, **told: Any) -> Timer:
    return Timer(name, "default", due, "run", encode({"path": name, **told}))


def define(core: EventCore) -> None:
    core.workflows.define({"slug": "nap", "steps": [{"id": "a", "sleep": "400ms"}]})
    ask = {"signal": "go", "timeout": "400ms", "on_timeout": "continue"}
    core.workflows.define({"slug": "ask", "steps": [{"id": "a", "wait_for": ask}, {"id": "b", "sleep": "100ms"}]})


async def test_what_sleeps_and_what_waits_goes_on_in_time(anyio_backend: Any) -> None:
    clock = Stepped()
    with anyio.fail_after(20):
        async with EventCore(clock=clock) as core:
            define(core)
            runs = [await core.workflows.start(slug) for slug in ("nap", "ask")]
            clock.ahead = -HOUR
            runs.append(await core.workflows.start("nap"))
            assert all([await run.over(10) for run in runs])
            assert {await run.status() for run in runs} == {"completed"}


async def test_over_a_restart_nothing_waits_longer_than_it_was_to(anyio_backend: Any) -> None:
    store, clock = MemoryStore(), Stepped(ahead=HOUR)
    with anyio.fail_after(20):
        async with EventCore(store=store, clock=clock) as core:
            define(core)
            run = await core.workflows.start("nap")
        clock.ahead = 0.0
        async with EventCore(store=store, clock=clock) as core:
            define(core)
            assert await (await core.workflows.run(run.id)).over(10)


@pytest.mark.parametrize(
    ("steps", "at"),
    [
        ([-100.0], 1110.0),  # 210 less what was lost
        ([-100.0, -50.0], 1060.0),
        ([300.0, -300.0], None),  # there and back again
        ([300.0, -400.0], 1110.0),
        ([0.5, -0.5], None),  # adjusted, not set
    ],
)
def test_only_what_was_lost_is_made_up_for(steps: list[float], at: float | None) -> None:
    watch = Watch()
    setbacks = Setbacks(watch)
    timer = row("a", 1210.0, set=1000.0)
    for step in steps:
        watch.go(10.0, step=step)
        if setbacks.look():
            setbacks.shift([timer])
    assert setbacks.next == (float("inf") if at is None else at)


def test_what_is_stored_after_the_setback_is_not_early() -> None:
    watch = Watch()
    setbacks = Setbacks(watch)
    old, new = row("old", 1200.0, set=1000.0), row("new", 950.0, set=910.0)
    watch.go(10.0, step=-100.0)
    assert setbacks.stored(new.due)
    setbacks.shift([old, new])
    assert setbacks.next == 1100.0
    watch.go(500.0)
    assert setbacks.due() == [old]
    assert setbacks.due() == []


def test_what_was_to_come_at_once_comes_at_once() -> None:
    watch = Watch()
    setbacks = Setbacks(watch)
    setbacks.resume([row("told", 5000.0, ref="event"), row("plain", 6000.0), row("long", 7000.0, set=4000.0)])
    assert [one.id for one in setbacks.due()] == ["told"]
    assert setbacks.next == 4000.0  # 3,000 seconds from now, as it was to be
