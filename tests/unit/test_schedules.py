"""Schedules: zones and clock changes, missed occurrences, overlap, and never the same occurrence twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import NotFound
from eventcore.storage.memory import MemoryStore
from eventcore.workflows.definition import Trigger
from eventcore.workflows.schedules import Planned, next_after, occurrences

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


@pytest.mark.parametrize(("missed", "count"), [("none", 0), ("last", 1), ("all", 1000)])
@pytest.mark.parametrize("away", [17 * 3600, 90 * DAY, 5 * 366 * DAY])
def test_a_line_that_comes_often_catches_up_with_the_newest(missed: Any, count: int, away: float) -> None:
    """However long nobody looked: neither the count of what was missed nor the time to find it grows with that."""
    trigger = Trigger(cron="* * * * *", missed=missed, window=3650 * DAY)
    now = at("2026-01-03T12:00:00+00:00")
    began = time.thread_time()
    found = list(occurrences(trigger, now - away, now + 30))
    assert time.thread_time() - began < 5
    if missed == "none":
        assert found == [now], "the newest is on time"
        found = list(occurrences(Trigger(cron="0 * * * *", missed="none"), now - away, now + 90))
    assert len(found) == count
    assert not found or found == [now - 60 * number for number in reversed(range(count))]


def test_what_was_due_at_a_skipped_time_is_caught_up_with() -> None:
    """02:30 was not there that night; what it came to instead is the first that was missed."""
    trigger = Trigger(cron="30 2 * * *", timezone="Europe/Berlin", missed="all", window=10 * DAY)
    first = at("2026-03-29T03:30:00+02:00")
    found = list(occurrences(trigger, first, at("2026-03-30T12:00:00+02:00")))
    assert found == [first, at("2026-03-30T02:30:00+02:00")]


def test_the_window_bounds_what_is_caught_up_with() -> None:
    trigger = Trigger(cron="0 9 * * *", missed="all", window=1.5 * DAY)
    found = list(occurrences(trigger, at("2026-01-01T09:00:00+00:00"), at("2026-01-03T12:00:00+00:00")))
    assert [iso(one) for one in found] == ["01-02T09:00Z", "01-03T09:00Z"]


async def _runs(core: EventCore, count: int) -> list[Any]:
    with anyio.fail_after(20):
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
        with anyio.fail_after(20):
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
    with anyio.fail_after(20):
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
    with anyio.fail_after(20):
        while await scheduler.listed():
            await anyio.sleep(0.01)
    with pytest.raises(NotFound):
        await scheduler.pause("daily/am")


@pytest.mark.anyio
async def test_a_one_off_time_starts_one_run() -> None:
    clock = Shifted()
    async with EventCore(clock=clock) as core:
        soon = datetime.fromtimestamp(clock.now() + 3600, UTC).isoformat()
        core.workflows.define({"slug": "once", "triggers": [{"at": soon}], "steps": [{"id": "a", "sleep": 0}]})
        scheduler = core.engine.workflows.schedules
        assert scheduler is not None
        assert await scheduler.listed()
        clock.ahead = 3601
        scheduler.changed()
        await _runs(core, 1)
        await core.drain(5)
        assert len(await core.workflows.runs()) == 1


# -- overlap ----------------------------------------------------------------------------------------------------------

_NAP = [{"id": "a", "sleep": "1h"}]


async def _overlapping(core: EventCore, clock: Shifted, overlap: str) -> dict[str, list[str]]:
    """A workflow by the hour whose runs never end, three hours long; the statuses of its runs, oldest first."""
    found: dict[str, list[str]] = {}
    trigger = {"id": "h", "cron": "0 * * * *", "overlap": overlap, "missed": "none", "window": "1d"}
    core.workflows.define({"slug": "hourly", "triggers": [trigger], "steps": [{"id": "a", "sleep": "90d"}]})
    scheduler = core.engine.workflows.schedules
    assert scheduler is not None
    await scheduler.listed()
    for hour in range(1, 4):
        [row] = await core.engine.store.schedules(1e18, 10)
        clock.ahead += Planned.of(row).next - clock.now() + 1
        scheduler.changed()  # a clock that was set forward is seen within half a minute; a test does not wait for it
        with anyio.fail_after(20):
            while Planned.of((await core.engine.store.schedules(1e18, 10))[0]).next <= clock.now():
                await anyio.sleep(0.005)
        await core.drain(5)
        runs = await core.workflows.runs(slug="hourly")
        found[str(hour)] = [run.status for run in sorted(runs, key=lambda run: run.id)]
    [row] = await core.engine.store.schedules(1e18, 10)
    found["pending"] = ["?"] * len(Planned.of(row).pending)
    return found


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("overlap", "statuses", "pending"),
    [
        ("skip", ["waiting"], 0),
        ("buffer_one", ["waiting"], 1),
        ("buffer_all", ["waiting"], 2),
        ("cancel_other", ["cancelled", "cancelled", "waiting"], 0),
        ("terminate_other", ["terminated", "terminated", "waiting"], 0),
        ("allow", ["waiting", "waiting", "waiting"], 0),
    ],
)
async def test_what_happens_when_the_run_before_is_not_over(overlap: str, statuses: list[str], pending: int) -> None:
    clock = Shifted()
    async with EventCore(store=MemoryStore(), clock=clock) as core:
        found = await _overlapping(core, clock, overlap)
        assert (found["3"], len(found["pending"])) == (statuses, pending)
        if not pending:
            return
        for _ in range(pending):  # what waits begins when the run before has ended, one after the other
            [live] = await core.workflows.runs(statuses=("waiting",))
            await core.workflows.cancel(live.id)
            scheduler = core.engine.workflows.schedules
            assert scheduler is not None
            clock.ahead += 1
            scheduler.changed()
            with anyio.fail_after(20):
                while not [one for one in await core.workflows.runs(statuses=("waiting",)) if one.id != live.id]:
                    await anyio.sleep(0.005)
            await core.drain(5)
        assert len(await core.workflows.runs(slug="hourly")) == 1 + pending


@pytest.mark.anyio
async def test_jitter_delays_each_start_by_a_part_of_it_and_is_the_same_after_a_restart() -> None:
    store, clock = MemoryStore(), Shifted()
    triggers = [{"id": f"t{n}", "cron": "0 0 * * *", "jitter": "1h"} for n in range(20)]
    dues: list[list[float]] = []
    for _ in range(2):
        async with EventCore(store=store, clock=clock) as core:
            core.workflows.define({"slug": "spread", "triggers": triggers, "steps": _NAP})
            scheduler = core.engine.workflows.schedules
            assert scheduler is not None
            await scheduler.listed()
            rows = await store.schedules(1e18, 100)
            late = [row.due - Planned.of(row).next for row in rows]
            assert all(0 <= one < 3600 for one in late)
            assert max(late) - min(late) > 900, "twenty starts do not come at once"
            dues.append(sorted(row.due for row in rows))
    assert dues[0] == dues[1]


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ({"cron": "0 0 1 7 *"}, {"cron": "*/5 * * * *"}, 300.0),
        ({"cron": "0 0 1 7 *"}, {"cron": "0 0 1 7 *", "timezone": "Asia/Tokyo"}, 366 * DAY),
        ({"at": "2998-01-01T00:00:00Z"}, {"at": "2999-01-01T00:00:00Z"}, 1000 * 366 * DAY),
    ],
)
@pytest.mark.anyio
async def test_a_trigger_whose_clock_has_changed_goes_by_the_new_one(
    before: dict[str, str], after: dict[str, str], wanted: float, anyio_backend: Any
) -> None:
    store = MemoryStore()

    async def due(trigger: dict[str, str]) -> Planned | None:
        async with EventCore(store=store) as core:
            step = {"id": "a", "sleep": 1}
            core.workflows.define({"slug": "w", "triggers": [{"id": "mine", **trigger}], "steps": [step]})
            assert core.workflows.schedules is not None
            await core.workflows.schedules.listed()
            rows = [Planned.of(row) for row in await store.schedules(1e17)]
            return rows[0] if rows else None

    first, same = await due(before), await due(before)
    assert first == same
    changed = await due(after)
    assert changed is not None
    assert first is None or changed.next != first.next
    assert changed.next == next_after(Trigger(**after), changed.next - 60)
    assert changed.next < time.time() + wanted
