"""Plans of plugins: once, by cron, over a restart, and what stands in their way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.context import caller
from eventcore.kernel.cron import next_time
from eventcore.kernel.errors import PluginFailed
from eventcore.kernel.event import Event
from eventcore.kernel.records import Batch, ScheduleAt
from eventcore.plugins.plans import MAX_PLANS, Plan
from eventcore.storage.memory import MemoryStore
from tests.unit.test_roles_everywhere import plant

pytestmark = pytest.mark.anyio

PLANNER = """
    from eventcore.sdk import ctx
    def run(params):
        do, args, words = params["do"], params.get("args", []), params.get("words", {})
        answer = (ctx.schedule if do == "plan" else getattr(ctx.scheduler, do))(*args, **words).value
        if params.get("fail"):
            raise RuntimeError("after all")
        return {"answer": answer}
    def on_reminder(event):
        ctx.memory.write("reminded", event["data"])
"""
ASKS = {
    "permissions": {"required": ["scheduler"], "optional": ["plugin_communication", "memory_write"]},
    "events": {"emits": ["reminder"]},
}


class Skipping(SystemClock):
    """The time of day, moved forward by hand; durations stay as they are."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


async def planner(core: EventCore, tmp_path: Path, *more: str) -> None:
    plant(core, tmp_path / "planner", PLANNER, **ASKS)
    await core.plugins.enable("planner", grants=["scheduler", "memory_write", *more])


async def do(core: EventCore, verb: str, *args: Any, fail: bool = False, **words: Any) -> Any:
    params = {"do": verb, "args": args, "words": words, "fail": fail}
    return (await core.plugins.run("planner", params, context=caller("user:ada", ["user"])))["answer"]


async def found(core: EventCore, type: str, count: int = 1) -> list[Event]:
    while len(events := [event async for event in core.history.query(type=type)]) < count:
        await anyio.sleep(0.01)
    return events


async def test_an_event_comes_once_and_the_plugin_hears_it(core: EventCore, tmp_path: Path) -> None:
    await planner(core, tmp_path)
    said = await do(core, "plan", "reminder", after=0.05, data={"what": "tea"})
    assert (said["name"], said["next"][-1]) == ("reminder", "Z")
    [event] = await found(core, "reminder")
    assert (event.data, event.actor, event.source) == ({"what": "tea"}, "scheduler:planner", "/plugins/planner")
    await core.drain()
    assert [row.query for row in await core.engine.store.memories("default", "tea")] == ["reminded"]
    assert await do(core, "list") == []
    await anyio.sleep(0.3)
    assert len(await found(core, "reminder")) == 1


async def test_without_a_listed_event_it_is_one_of_the_plugins_own(core: EventCore, tmp_path: Path) -> None:
    await planner(core, tmp_path)
    await do(core, "plan", "wake", at=0)
    assert (await found(core, "planner.wake"))[0].subject == "wake"


async def test_a_call_is_made_with_the_roles_of_who_planned_it(core: EventCore, tmp_path: Path) -> None:
    await planner(core, tmp_path, "plugin_communication")
    seen: list[Any] = []
    core.plugins.intent("ring", lambda params: seen.append(params), roles=["user"])
    await do(core, "plan", "bell", after=0.01, call="ring", data={"n": 1})
    [event] = [one for one in await found(core, "plugin_called", 2) if one.subject == "ring"]
    assert (seen[0]["n"], seen[0]["user_context"]["roles"], event.actor) == (1, ["user"], "plugin:planner")
    assert seen[0]["metadata"]["idempotency_key"].startswith("plan:default/planner/bell@")
    core.plugins.intent("lock", lambda params: None, roles=["admin"])
    await do(core, "plan", "bell", after=0.01, call="lock")
    assert (await found(core, "permission_denied"))[0].subject == "lock"
    while await do(core, "list"):
        await anyio.sleep(0.01)


async def test_what_a_failed_call_planned_or_cancelled_does_not_count(core: EventCore, tmp_path: Path) -> None:
    await planner(core, tmp_path)
    with pytest.raises(PluginFailed, match="after all"):
        await do(core, "plan", "reminder", after=60, fail=True)
    assert await do(core, "list") == []
    await do(core, "plan", "reminder", after=60)
    with pytest.raises(PluginFailed, match="after all"):
        await do(core, "cancel", "reminder", fail=True)
    assert [plan["name"] for plan in await do(core, "list")] == ["reminder"]
    assert await do(core, "cancel", "reminder") is True
    assert await do(core, "cancel", "reminder") is False
    assert await do(core, "list") == []


async def test_a_plan_of_the_same_name_replaces_the_one_before(core: EventCore, tmp_path: Path) -> None:
    await planner(core, tmp_path)
    await do(core, "plan", "reminder", at="2031-01-01T00:00:00")
    await do(core, "plan", "reminder", cron="0 9 * * mon", timezone="Europe/Berlin")
    [plan] = await do(core, "list")
    assert (plan["cron"], plan["timezone"], plan["does"]) == ("0 9 * * mon", "Europe/Berlin", "emit reminder")


async def test_cron_goes_on_and_does_not_make_up_for_what_it_missed(tmp_path: Path, anyio_backend: Any) -> None:
    clock = Skipping()
    clock.ahead = 1800 - clock.now() % 3600  # half past: no hour ends during the test but those it skips
    with anyio.fail_after(60):
        async with EventCore(clock=clock) as core:
            await planner(core, tmp_path)
            await do(core, "plan", "reminder", cron="0 * * * *")
            [before] = await do(core, "list")
            clock.ahead += 3 * 3600
            assert core.engine.plugins.plans is not None
            core.engine.plugins.plans.expect()
            await found(core, "reminder")
            await core.drain()
            while (plans := await do(core, "list")) == [before]:
                await anyio.sleep(0.01)
            assert plans[0]["next"] > before["next"]
            assert len(await found(core, "reminder")) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
@pytest.mark.req("F9")
async def test_it_survives_a_restart_and_fires_once(tmp_path: Path, anyio_backend: str) -> None:
    (tmp_path / "eventcore.toml").write_text("")
    clock = Skipping()
    with anyio.fail_after(60):
        async with EventCore(tmp_path, clock=clock) as core:
            code = """
                from eventcore.sdk import ctx
                async def run(params): return await ctx.schedule("reminder", at=params["at"])
            """
            plant(core, tmp_path / "plugins/later", code, permissions=["scheduler"], events={"emits": ["reminder"]})
            await core.plugins.enable("later", grants=["scheduler"])
            await core.plugins.run("later", {"at": clock.now() + 3600})
            rows = await core.engine.workflows.schedules.listed() if core.engine.workflows.schedules else []
            assert rows == []
        clock.ahead = 4000
        async with EventCore(tmp_path, clock=clock) as core:
            [event] = await found(core, "reminder")
            assert event.source == "/plugins/later"
        async with EventCore(tmp_path, clock=clock) as core:
            await anyio.sleep(0.2)
            assert len(await found(core, "reminder")) == 1
            assert await core.engine.store.plans(1e12) == []


async def test_a_plan_waits_for_its_plugin(tmp_path: Path, anyio_backend: Any) -> None:
    clock = Skipping()
    with anyio.fail_after(60):
        async with EventCore(clock=clock) as core:
            await planner(core, tmp_path)
            await do(core, "plan", "reminder", after=3600)
            await core.plugins.permit("planner", revoke=["memory_write"])
            await core.plugins.disable("planner")
            clock.ahead = 3601
            assert core.engine.plugins.plans is not None
            core.engine.plugins.plans.expect()
            await anyio.sleep(0.3)
            assert [event async for event in core.history.query(type="reminder")] == []
            await core.plugins.enable("planner")
            await found(core, "reminder")


async def test_two_engines_on_one_store_fire_once(tmp_path: Path, anyio_backend: Any) -> None:
    store = MemoryStore()
    with anyio.fail_after(60):
        async with EventCore(store=store) as one, EventCore(store=store) as two:
            await planner(one, tmp_path / "one")
            await planner(two, tmp_path / "two")
            for core in (one, two):
                await do(core, "plan", f"n{id(core)}", after=0.3, emit="reminder")
            await found(one, "reminder", 2)
            await anyio.sleep(0.3)
            assert len(await found(two, "reminder")) == 2


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "say when"),
    ({"after": 1, "cron": "* * * * *"}, "say when"),
    ({"at": "soon"}, "is no time"),
    ({"at": 1e300}, "ten years"),
    ({"at": "9999-12-31"}, "ten years"),
    ({"after": "1"}, "after is a number"),
    ({"cron": "* * * * * *"}, "no cron line"),
    ({"cron": "61 * * * *"}, "no cron line"),
    ({"cron": "0 0 31 2 *"}, "no cron line|never comes"),
    ({"cron": 5}, "no cron line"),
    ({"after": 1, "timezone": "Nowhere/At_All"}, "no time zone"),
    ({"after": 1, "timezone": "../../etc/passwd"}, "no time zone"),
    ({"after": 1, "emit": "plugin_enabled"}, "may not plan plugin_enabled"),
    ({"after": 1, "emit": "other.event"}, "may not plan other.event"),
    ({"after": 1, "emit": "on_message"}, "may not plan on_message"),
    ({"after": 1, "emit": "x", "call": "y"}, "not both"),
    ({"after": 1, "call": "other"}, "was not granted plugin_communication"),
    ({"after": 1, "data": "x" * 70_000}, "limit is 65,536"),
]


async def test_plans_that_make_no_sense(core: EventCore, tmp_path: Path) -> None:
    await planner(core, tmp_path)
    for words, message in WRONG:
        with pytest.raises(PluginFailed, match=message):
            await do(core, "plan", "reminder", **words)
    for name in ("", "a/b", "x" * 200, 7):
        with pytest.raises(PluginFailed, match="no name of a plan"):
            await do(core, "plan", name, after=1)


async def test_there_is_a_limit(core: EventCore, tmp_path: Path) -> None:
    await planner(core, tmp_path)
    plans = [
        Plan("planner", f"p{n}", "emit", "reminder", None, 9e9, None, "UTC", "operator", ()) for n in range(MAX_PLANS)
    ]
    await core.engine.store.commit(Batch(schedules=[plan.row("default") for plan in plans]))
    with pytest.raises(PluginFailed, match="has 1,000 plans"):
        await do(core, "plan", "one-more", after=1)
    await do(core, "plan", "p7", after=999)  # another time for one that is there


async def test_a_claimed_call_is_made_again_after_a_crash(tmp_path: Path, anyio_backend: Any) -> None:
    """What a kill between claim and end leaves: a plan that is due when the claim ends."""
    store, clock = MemoryStore(), Skipping()
    with anyio.fail_after(60):
        async with EventCore(store=store, clock=clock) as core:
            await planner(core, tmp_path / "a", "plugin_communication")
            calls: list[str] = []
            core.plugins.intent("ring", lambda params: calls.append(params["metadata"]["idempotency_key"]))
            await do(core, "plan", "bell", after=3600, call="ring")
            [row] = await store.plans(1e12)
            plan = Plan.of(row)
            await store.commit(Batch(schedules=[plan.row("default", clock.now() + 90)]), [ScheduleAt(row.id, row.due)])
            clock.ahead = 100
            assert core.engine.plugins.plans is not None
            core.engine.plugins.plans.expect()
            while await store.plans(1e12):
                await anyio.sleep(0.01)
            assert calls == [f"{row.id}@{plan.next!r}"]


def test_cron_over_a_clock_change() -> None:
    before = 1_774_738_800.0  # 2026-03-29T00:00+01:00, Berlin; 02:30 is skipped that night
    assert next_time("30 2 * * *", "Europe/Berlin", before) is not None
    assert next_time("0 9 * * *", "UTC", 0.0) == 9 * 3600
