"""The rows of section H that the engine meets, as their acceptance columns say."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import RunFailed
from eventcore.storage.memory import MemoryStore
from eventcore.workflows.definition import Trigger
from eventcore.workflows.schedules import next_after, occurrences


class Shifted(SystemClock):
    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@pytest.mark.req("H2")
@pytest.mark.anyio
async def test_twenty_items_five_at_once_and_two_days_over_a_restart() -> None:
    store, clock, now, most, together = MemoryStore(), Shifted(), 0, 0, anyio.Event()
    async with EventCore(store=store, clock=clock) as core:

        @core.intent("notify")
        async def notify(params: dict[str, Any]) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            # The first ones wait for one another: how long it takes to begin five says nothing.
            if now == 5:
                together.set()
            with anyio.move_on_after(20):
                await together.wait()
            await anyio.sleep(0.02)  # in which a sixth would begin
            now -= 1

        each = {"id": "each", "foreach": [*range(20)], "max_parallel": 5, "plugin": "notify"}
        core.workflows.define({"slug": "w", "steps": [each, {"id": "nap", "sleep": "2d"}]})
        run = await core.workflows.start("w")
        await core.drain(60)
        assert (most, await run.status()) == (5, "waiting")
    clock.ahead = 2 * 86400.0
    async with EventCore(store=store, clock=clock) as core:
        await (await core.workflows.run(run.id)).result(60)


@pytest.mark.req("H3")
@pytest.mark.anyio
async def test_the_third_try_succeeds_and_a_failed_run_is_undone_in_reverse() -> None:
    calls: list[str] = []
    async with EventCore() as core:

        @core.intent("work")
        async def work(params: dict[str, Any]) -> None:
            calls.append(params["what"])
            if params["what"] == "third" and calls.count("third") < 3:
                raise ValueError("not yet")
            if params["what"] == "never":
                raise ValueError("never")

        def step(name: str, **more: Any) -> dict[str, Any]:
            undo = {"plugin": "work", "with": {"what": f"undo {name}"}}
            return {"id": name, "plugin": "work", "with": {"what": name}, "compensate": undo, **more}

        retry = {"attempts": 3, "initial": 0.001}
        core.workflows.define({"slug": "w", "steps": [step("first"), step("third", retry=retry), step("never")]})
        run = await core.workflows.start("w")
        with pytest.raises(RunFailed):
            await run.result(60)
        assert calls == ["first", "third", "third", "third", "never", "undo third", "undo first"]
        steps = [event.type async for event in core.history.query(type="step_*", run=run.id, subject="third")]
        assert steps == ["step_started", *["step_retrying", "step_started"] * 2, "step_completed"]


@pytest.mark.req("H11")
def test_nine_stays_nine_over_a_clock_change_and_two_missed_days_fire_once() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    trigger = Trigger(cron="0 9 * * mon-fri", timezone="Europe/Berlin", missed="last")
    when = datetime(2026, 3, 26, 12, tzinfo=berlin).timestamp()
    for _ in range(4):
        following = next_after(trigger, when)
        assert following is not None
        local = datetime.fromtimestamp(following, berlin)
        assert (local.hour, local.minute, local.weekday() < 5) == (9, 0, True)
        when = following
    first = datetime(2026, 3, 30, 9, tzinfo=berlin).timestamp()
    late = datetime(2026, 3, 31, 20, tzinfo=berlin).timestamp()
    [only] = occurrences(trigger, first, late)
    assert datetime.fromtimestamp(only, berlin).day == 31
