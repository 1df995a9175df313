"""What an engine owes to runs that another one left behind: found by killing engines, each kept as a small test."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import Conflict
from eventcore.kernel.records import Timer
from eventcore.storage.memory import MemoryStore
from eventcore.workflows.driven import Arrival
from eventcore.workflows.ticks import Asked
from tests.unit.hand_clock import LIMIT, Ahead, pass_limit

pytestmark = pytest.mark.anyio


def define(core: EventCore, *steps: dict[str, Any], slug: str = "w", **more: Any) -> None:
    core.workflows.define({"slug": slug, "steps": list(steps), **more})


async def until(condition: Any) -> Any:
    with anyio.fail_after(20):
        while not (found := await condition()):
            await anyio.sleep(0.005)
    return found


async def test_the_child_of_a_cancelled_run_is_told_although_the_engine_died_before(monkeypatch: Any) -> None:
    store = MemoryStore()
    async with EventCore(store=store) as core:
        define(core, {"id": "z", "sleep": "1h"}, slug="child")
        define(core, {"id": "c", "workflow": "child"})
        run = await core.workflows.start("w")
        await until(lambda: core.workflows.runs(slug="child", statuses=("waiting",)))
        await core.drain(5)
        told: list[Timer] = []

        async def never(timer: Timer) -> bool:
            told.append(timer)
            return False

        monkeypatch.setattr(core.engine.runner._timers, "_fire", never)
        await core.workflows.cancel(run.id)
    async with EventCore(store=store) as core:
        again = await core.workflows.run(run.id)
        assert await again.over(5)
        assert await again.status() == "cancelled"
        assert [one.status for one in await core.workflows.runs(slug="child")] == ["cancelled"]


class Killed(MemoryStore):
    """The store as an engine sees it that is killed: it gives nothing up."""

    def __init__(self, inner: MemoryStore) -> None:
        self.__dict__ = inner.__dict__

    async def release(self, owner: str) -> None:
        pass


async def test_a_paused_run_of_an_engine_that_was_killed_can_be_resumed_at_once() -> None:
    store = MemoryStore()
    async with EventCore(store=Killed(store)) as core:
        define(core, {"id": "a", "sleep": "1h"})
        run = await core.workflows.start("w")
        await core.workflows.pause(run.id)
    async with EventCore(store=store) as core:
        with pytest.raises(Conflict, match="another engine drives"):  # for all that is known, it may be alive
            await core.workflows.resume(run.id)
        await core.engine.runner.recover(alone=True)  # as a home's engine does, whose lock says that it is alone
        assert (await core.workflows.resume(run.id)).status == "waiting"


async def test_the_deadline_of_a_paused_run_of_an_engine_that_was_killed_is_kept() -> None:
    store = MemoryStore()
    async with EventCore(store=Killed(store)) as core:
        define(core, {"id": "a", "wait_for": {"event": "never", "timeout": LIMIT}})
        run = await core.workflows.start("w")
        await core.workflows.pause(run.id)
    async with EventCore(store=store, clock=Ahead()) as core:
        await core.engine.runner.recover(alone=True)
        pass_limit(core)
        await until(lambda: _failed(core, run.id))


async def _failed(core: EventCore, run_id: str) -> bool:
    events = [event async for event in core.history.query(type="step_failed", run=run_id)]
    return bool(events)


async def test_a_queued_run_whose_row_changed_meanwhile_is_looked_at_again(core: EventCore, monkeypatch: Any) -> None:
    define(core, {"id": "a", "emit": "done"}, concurrency={"limit": 1})
    launcher, tries = core.engine.workflows.launcher, list[str]()
    promote = launcher.promote

    def too_early(run: Any, plan: Any) -> Any:
        tries.append(run.id)
        if len(tries) == 1:
            run.fence += 1  # recovery claims the run between our look at it and our commit
        return promote(run, plan)

    monkeypatch.setattr(launcher, "promote", too_early)
    run = await core.workflows.start("w")
    assert await run.over(5)
    assert tries == [run.id] * 2


async def test_a_queued_run_is_let_in_by_the_engine_that_has_it() -> None:
    store = MemoryStore()
    async with EventCore(store=store) as first, EventCore(store=store) as second:
        for core in (first, second):
            define(core, {"id": "a", "sleep": 0.02}, concurrency={"limit": 2})
        runs = [await first.workflows.start("w") for _ in range(6)]
        for run in runs:
            assert await run.over(5)
        owners = {(await run.row()).owner for run in runs}
        assert owners == {first.engine.runner._owner}


async def test_an_event_that_no_commit_told_of_is_found_by_the_next_engine(monkeypatch: Any) -> None:
    store = MemoryStore()
    async with EventCore(store=store) as core:
        for slug, value in (("w", 1), ("other", 2)):
            define(core, {"id": "a", "wait_for": {"event": "paid", "match": {"n": value}}}, slug=slug)
        run, other = [await core.workflows.start(slug) for slug in ("w", "other")]
        await core.drain(5)
        monkeypatch.setattr(type(core.engine.runner._listeners), "find", lambda *_: [])  # it dies before it can tell
        await core.bus.emit("paid", {"n": 1})
        monkeypatch.undo()
    async with EventCore(store=store) as core:
        assert await (await core.workflows.run(run.id)).over(5)
        row = await (await core.workflows.run(other.id)).row()
        assert (row.status, row.version) == ("waiting", 1)  # who was told nothing is left alone


async def test_who_only_waits_is_taken_over_without_a_commit() -> None:
    store = MemoryStore()
    async with EventCore(store=store) as core:
        define(core, {"id": "a", "sleep": LIMIT}, {"id": "b", "emit": "done"})
        runs = [await core.workflows.start("w") for _ in range(20)]
        await core.drain(5)
    async with EventCore(store=store, clock=Ahead()) as core:
        rows = [await (await core.workflows.run(run.id)).row() for run in runs]
        assert {(row.status, row.version, row.owner) for row in rows} == {("waiting", 1, core.engine.runner._owner)}
        assert core.engine.runner.idle
        pass_limit(core)
        for run in runs:
            assert await (await core.workflows.run(run.id)).over(5)


async def test_who_asks_something_of_a_run_that_ends_meanwhile_is_told_at_once(core: EventCore) -> None:
    began = anyio.Event()

    async def hang(params: Any) -> None:
        began.set()
        await anyio.sleep_forever()

    core.plugins.intent("hang", hang)
    define(core, {"id": "a", "plugin": "hang"})
    run = await core.workflows.start("w")
    await began.wait()
    driven, first, second = core.engine.runner._driven[run.id], anyio.Event(), anyio.Event()
    driven.put(Arrival(Asked("terminate", "me", 0.0), done=first))
    driven.put(Arrival(Asked("pause", "me", 0.0), done=second))  # nobody looks at it any more
    with anyio.fail_after(15):
        await first.wait()
        await second.wait()
    assert await run.status() == "terminated"


async def test_a_second_cancel_leaves_undoing_alone(core: EventCore) -> None:
    began, release, undone = anyio.Event(), anyio.Event(), list[int]()

    async def do(params: Any) -> None:
        if params.get("undo"):
            began.set()
            await release.wait()
            undone.append(params["metadata"]["attempt"])

    core.plugins.intent("do", do)
    undo = {"plugin": "do", "with": {"undo": True}}
    define(core, {"id": "a", "plugin": "do", "compensate": undo}, {"id": "b", "sleep": "1h"})
    run = await core.workflows.start("w")
    await until(lambda: core.workflows.runs(statuses=("waiting",)))
    await core.drain(5)
    await core.workflows.cancel(run.id)
    await began.wait()
    core.engine.runner._driven[run.id].put(Arrival(Asked("cancel", "me", 0.0)))
    await anyio.sleep(0.01)  # time enough for a call that was cut off to end
    release.set()
    assert await run.over(15)
    assert (await run.status(), undone) == ("cancelled", [1])
