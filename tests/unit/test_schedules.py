"""Schedules: zones and clock changes, missed occurrences, overlap, and never the same occurrence twice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import NotFound
from eventcore.storage.memory import MemoryStore
from eventcore.workflows.definition import Trigger
from eventcore.workflows.schedules import next_after, occurrences

DAY = 86400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def iso(when: float | None) -> str:
    assert when is not None
    return datetime.fromtimestamp(when, UTC).strftime("%m-%dT%H:%MZ")


class Shifted(SystemClock):
    """The system's clock, put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@pytest.mark.parametrize(
    ("cron", "after", "wanted"),
    [
        # The clocks of Berlin go forward on 2026-03-29 and back on 2026-10-25.
        ("0 9 * * mon-fri", "2026-03-27T09:00:00+01:00", ["03-30T07:00Z", "03-31T07:00Z"]),
        ("0 9 * * mon-fri", "2026-10-23T09:00:00+02:00", ["10-26T08:00Z", "10-27T08:00Z"]),
        ("30 2 * * *", "2026-03-28T12:00:00+01:00", ["03-29T01:30Z", "03-30T00:30Z"]),  # 02:30 is not there: 03:30
        ("30 2 * * *", "2026-10-24T12:00:00+02:00", ["10-25T00:30Z", "10-26T01:30Z"]),  # twice: the first
    ],
)
def test_cron_in_a_zone_over_a_clock_change(cron: str, after: str, wanted: list[str]) -> None:
    trigger = Trigger(cron=cron, timezone="Europe/Berlin")
    when, found = at(after), []
    for _ in wanted:
        following = next_after(trigger, when)
        found.append(iso(following))
        when = following or 0.0
    assert found == wanted


@pytest.mark.parametrize(("missed", "count"), [("none", 0), ("last", 1), ("all", 3)])
def test_missed_occurrences(missed: Any, count: int) -> None:
    trigger = Trigger(cron="0 9 * * *", missed=missed, window=10 * DAY)
    found = list(occurrences(trigger, at("2026-01-01T09:00:00+00:00"), at("2026-01-03T12:00:00+00:00")))
    assert len(found) == count
    assert not found or iso(found[-1]) == "01-03T09:00Z"


def test_the_window_bounds_what_is_caught_up_with() -> None:
    trigger = Trigger(cron="0 9 * * *", missed="all", window=1.5 * DAY)
    found = list(occurrences(trigger, at("2026-01-01T09:00:00+00:00"), at("2026-01-03T12:00:00+00:00")))
    assert [iso(one) for one in found] == ["01-02T09:00Z", "01-03T09:00Z"]


async def _runs(core: EventCore, count: int) -> list[Any]:
    with anyio.fail_after(5):
        while len(found := await core.workflows.runs()) < count:
            await anyio.sleep(0.01)
    return found


@pytest.mark.anyio
async def test_two_missed_days_start_one_run_and_a_restart_none() -> None:
    store, clock = MemoryStore(), Shifted()
    flow = {"slug": "daily", "triggers": [{"id": "am", "cron": "0 9 * * *"}], "steps": [{"id": "a", "sleep": 0}]}
    async with EventCore(store=store, clock=clock) as core:
        core.workflows.define(flow)
        scheduler = core.engine.workflows.schedules
        assert scheduler is not None
        with anyio.fail_after(5):
            while not await scheduler.listed():
                await anyio.sleep(0.01)
        assert await core.workflows.runs() == []
    clock.ahead = 2.5 * DAY
    for _ in range(2):
        async with EventCore(store=store, clock=clock) as core:
            core.workflows.define(flow)
            [run] = await _runs(core, 1)
            assert (run.trigger, run.actor) == ("am", "trigger:daily")
            await core.drain(5)
            scheduler = core.engine.workflows.schedules
            assert scheduler is not None
            manual = await scheduler.listed()
            assert [one["id"] for one in manual] == ["daily/am"]


@pytest.mark.anyio
async def test_schedules_are_paused_run_and_dropped_with_their_trigger(core: EventCore) -> None:
    flow = {"slug": "daily", "triggers": [{"id": "am", "cron": "0 9 * * *"}], "steps": [{"id": "a", "sleep": 0}]}
    core.workflows.define(flow)
    scheduler = core.engine.workflows.schedules
    assert scheduler is not None
    with anyio.fail_after(5):
        while not await scheduler.listed():
            await anyio.sleep(0.01)
    await scheduler.pause("daily/am")
    [row] = await scheduler.listed()
    assert (row["paused"], row["next"]) == (True, None)
    run = await scheduler.run("daily/am")
    await (await core.workflows.run(run)).result(5)
    await scheduler.pause("daily/am", paused=False)
    [row] = await scheduler.listed()
    assert row["next"] is not None
    core.workflows.define({**flow, "triggers": []})
    with anyio.fail_after(5):
        while await scheduler.listed():
            await anyio.sleep(0.01)
    with pytest.raises(NotFound):
        await scheduler.pause("daily/am")


@pytest.mark.anyio
async def test_a_one_off_time_starts_one_run(core: EventCore) -> None:
    soon = datetime.fromtimestamp(core.engine.clock.now() + 0.2, UTC).isoformat()
    core.workflows.define({"slug": "once", "triggers": [{"at": soon}], "steps": [{"id": "a", "sleep": 0}]})
    await _runs(core, 1)
    await core.drain(5)
    assert len(await core.workflows.runs()) == 1
