"""Bugs that other engines have had, each as a test. The names in brackets are the threads that told of them.

| the bug | where it is tested |
|---|---|
| recovery while the database restarts [dbos#716] | `test_recovery_while_the_store_cannot_be_read` |
| drain and recovery overlap with one executor id [dbos#804] | `test_a_run_between_two_steps_...` |
| a run between two steps that nobody owns [dbos#805] | the same |
| empty or odd run ids [dbos#759] | `test_empty_and_odd_run_ids` |
| awaiting a result that is cancelled [dbos#425] | `test_who_awaits_a_run_that_is_cancelled_is_told` |
| thousands of waiters that poll [dbos-ts#1267] | `test_a_thousand_waiters_do_not_poll` |
| one busy queue starves others [dbos-ts#1302] | `test_a_busy_queue_starves_no_other` |
| killing a run frees its slot [kestra#19679, #14356] | `test_a_run_that_is_killed_frees_its_place` |
| a restart overwrites a finished or waiting status [n8n#23807, #32316] | `test_a_restart_leaves_..._runs_as_they_are` |
| queued runs are lost in a restart [n8n#35059] | `test_queued_runs_survive_a_restart` |
| retry from the start and a step, old or new definition [n8n#25735, #32131, #12957] | `test_retry_and_fork_...` |
| crons of a removed version go on [hatchet#410] | `test_the_crons_of_a_removed_definition_stop` |
| growth over a week [hatchet#3823] | `tests/prove/test_soak.py` |
| events that come before the wait is registered [hatchet, durable event waits] | `test_an_event_before_the_wait_...` |
| waits and delays over a restart [home-assistant core#56642] | `test_waits_and_delays_go_on_...` |
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import Conflict, NotFound, RunFailed, StoreError
from eventcore.kernel.settings import EngineSettings, Settings
from eventcore.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

SLOW = {"id": "slow", "plugin": "slow"}
#: Calls that go on are cut off when an engine closes, not waited for.
HASTY = Settings(engine=EngineSettings(drain_timeout=0))


def define(core: EventCore, *steps: dict[str, Any], slug: str = "w", **more: Any) -> None:
    core.workflows.define({"slug": slug, "steps": list(steps), **more})


class Held:
    """An intent whose calls go on until they are let go."""

    def __init__(self, core: EventCore) -> None:
        self.began, self.release, self.calls = anyio.Event(), anyio.Event(), Counter[str]()
        core.plugins.intent("slow", self)

    async def __call__(self, params: Any) -> dict[str, Any]:
        self.calls[params["metadata"]["idempotency_key"]] += 1
        self.began.set()
        await self.release.wait()
        return {}


@pytest.mark.parametrize("odd", ["", " ", "0", "../..", "x" * 5000, "\0", "'; DROP TABLE runs; --", "run/step"])
async def test_empty_and_odd_run_ids(core: EventCore, odd: str) -> None:
    """[dbos#759]"""
    for ask in (core.workflows.run, core.workflows.cancel, core.workflows.retry, core.workflows.resume):
        with pytest.raises(NotFound):
            await ask(odd)
    with pytest.raises(NotFound):
        await core.workflows.signal(odd, "go")


async def test_who_awaits_a_run_that_is_cancelled_is_told(core: EventCore) -> None:
    """[dbos#425]"""
    define(core, {"id": "z", "sleep": "1h"})
    run = await core.workflows.start("w")
    told: list[str] = []

    async def wait() -> None:
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(10)
        told.append("cancelled")

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
            await core.drain(5)
            await core.workflows.cancel(run.id)
    assert told == ["cancelled"] * 3


class Counting(MemoryStore):
    """Counts how often a run's row is read."""

    reads = 0

    async def run(self, run_id: str) -> Any:
        type(self).reads += 1
        return await super().run(run_id)


async def test_a_thousand_waiters_do_not_poll(anyio_backend: Any) -> None:
    """[dbos-ts#1267]"""
    async with EventCore(store=Counting()) as core:
        held = Held(core)
        define(core, SLOW)
        run = await core.workflows.start("w")
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(run.result, 60)
            await held.began.wait()
            await anyio.wait_all_tasks_blocked()  # each has looked once, and waits
            before = Counting.reads
            await anyio.sleep(0.3)
            assert Counting.reads - before <= 1
            held.release.set()


async def test_a_busy_queue_starves_no_other(core: EventCore) -> None:
    """[dbos-ts#1302]"""
    held = Held(core)
    define(core, SLOW, slug="busy", concurrency={"limit": 1})
    define(core, {"id": "a", "emit": "done"}, slug="quick", concurrency={"limit": 1})
    for _ in range(300):
        await core.workflows.start("busy")
    await held.began.wait()
    with anyio.fail_after(15):
        for _ in range(5):
            await (await core.workflows.start("quick")).result(5)
    held.release.set()


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
async def test_a_run_that_is_killed_frees_its_place(core: EventCore, verb: str) -> None:
    """[kestra#19679, kestra#14356]"""
    held = Held(core)
    define(core, SLOW, concurrency={"limit": 1})
    first, second = [await core.workflows.start("w") for _ in range(2)]
    await held.began.wait()
    assert await second.status() == "queued"
    held.began = anyio.Event()
    await core.workflows.verbs.ask(verb, first.id)
    with anyio.fail_after(15):
        await held.began.wait()
    held.release.set()
    assert await second.over(5)
    assert await core.workflows.runs(statuses=("queued", "running", "waiting")) == []


async def test_a_restart_leaves_finished_and_waiting_runs_as_they_are(anyio_backend: Any) -> None:
    """[n8n#23807, n8n#32316]"""
    store = MemoryStore()

    async def rows(core: EventCore) -> set[tuple[Any, ...]]:
        return {(run.slug, run.status, run.version, run.updated, run.raw_output) for run in await core.workflows.runs()}

    async with EventCore(store=store, settings=HASTY) as core:
        define(core, {"id": "a", "emit": "done"}, slug="over", outputs=7)
        define(core, {"id": "a", "plugin": "nobody"}, slug="bad", triggers=[{"event": "go", "with": {}}])
        define(core, {"id": "a", "wait_for": {"event": "never"}}, slug="patient")
        for slug in ("over", "patient"):
            await core.workflows.start(slug)
        paused = await core.workflows.start("patient")
        await core.drain(5)
        await core.workflows.pause(paused.id)
        before = await rows(core)
    for _ in range(2):
        async with EventCore(store=store, settings=HASTY) as core:
            assert await rows(core) == before


async def test_queued_runs_survive_a_restart(anyio_backend: Any) -> None:
    """[n8n#35059]"""
    store = MemoryStore()
    async with EventCore(store=store, settings=HASTY) as core:
        held = Held(core)
        define(core, SLOW, concurrency={"limit": 1})
        runs = [await core.workflows.start("w") for _ in range(3)]
        await held.began.wait()
        assert sorted([await run.status() for run in runs]) == ["queued", "queued", "running"]
    async with EventCore(store=store, settings=HASTY) as core:
        held = Held(core)
        held.release.set()
        for run in runs:
            assert await (await core.workflows.run(run.id)).over(5)


async def test_a_run_between_two_steps_belongs_to_whoever_opens_next(anyio_backend: Any) -> None:
    """[dbos#805, dbos#804] An engine closes while it takes runs over; the next one has all of them."""
    store = MemoryStore()
    async with EventCore(store=store, settings=HASTY) as core:
        Held(core)
        define(core, {"id": "a", "emit": "one"}, SLOW, {"id": "b", "emit": "two"})
        runs = [await core.workflows.start("w") for _ in range(20)]
    for _ in range(3):
        async with EventCore(store=store, settings=HASTY) as core:
            core.plugins.intent("slow", Held(core))  # they are taken over, and dropped at once
    async with EventCore(store=store, settings=HASTY) as core:
        held = Held(core)
        held.release.set()
        for run in runs:
            await (await core.workflows.run(run.id)).result(5)
        assert max(held.calls.values()) == 1
        for name in ("one", "two"):
            assert len([event async for event in core.history.query(type=name)]) == 20


async def test_retry_and_fork_on_the_old_and_the_new_definition(core: EventCore) -> None:
    """[n8n#25735, n8n#32131, n8n#12957]"""
    called: list[str] = []
    broken = {"b"}

    async def work(params: Any) -> str:
        step = params["metadata"]["step"]
        called.append(params["what"])
        if step in broken:
            raise ValueError("broken")
        return str(params["what"])

    core.plugins.intent("work", work)

    def steps(version: str) -> list[dict[str, Any]]:
        return [{"id": one, "plugin": "work", "with": {"what": f"{one}{version}"}} for one in ("a", "b", "c")]

    define(core, *steps("1"))
    run = await core.workflows.start("w")
    with pytest.raises(RunFailed):
        await run.result(5)
    define(core, *steps("2"))
    broken.clear()
    called.clear()
    await core.workflows.retry(run.id)
    assert await (await core.workflows.run(run.id)).over(5)
    assert called == ["b1", "c1"]  # a run keeps its definition
    for definition, wanted in (("old", ["b1", "c1"]), ("new", ["b2", "c2"])):
        called.clear()
        forked = await core.workflows.fork(run.id, "b", definition=definition)
        assert await forked.over(5)
        assert called == wanted
    called.clear()
    assert await (await core.workflows.fork(run.id, "a", definition="new")).over(5)
    assert called == ["a2", "b2", "c2"]
    with pytest.raises(NotFound):
        await core.workflows.fork(run.id, "nothing")
    with pytest.raises(Conflict):
        await core.workflows.retry(run.id)  # it is completed now


async def test_the_crons_of_a_removed_definition_stop(core: EventCore) -> None:
    """[hatchet#410]"""
    schedules = core.workflows.schedules
    assert schedules is not None
    cron = [{"cron": "* * * * *", "with": {}}]
    define(core, {"id": "a", "emit": "done"}, triggers=cron)
    with anyio.fail_after(15):
        while not await schedules.listed():
            await anyio.sleep(0.01)
        [name] = [one["id"] for one in await schedules.listed()]
        core.workflows.registry.remove("w")
        with pytest.raises(NotFound):
            await schedules.run(name)
        define(core, {"id": "a", "emit": "done"})
        while await schedules.listed():
            await anyio.sleep(0.01)


async def test_waits_and_delays_go_on_over_a_restart_and_only_once(anyio_backend: Any) -> None:
    """[home-assistant#56642]"""
    store = MemoryStore()
    steps = (
        {"id": "nap", "sleep": 0.2},
        {"id": "all", "foreach": [1, 2, 3], "sleep": 0.1},
        {"id": "w", "wait_for": {"event": "never", "timeout": 0.1, "on_timeout": "continue"}},
    )
    async with EventCore(store=store, settings=HASTY) as core:
        define(core, *steps)
        run = await core.workflows.start("w")
        await core.drain(5)
    for _ in range(3):
        async with EventCore(store=store, settings=HASTY) as core:
            await anyio.sleep(0.06)
    async with EventCore(store=store, settings=HASTY) as core:
        again = await core.workflows.run(run.id)
        assert await again.over(5)
        assert await again.status() == "completed"
        done = Counter([one.subject async for one in core.history.query(type="step_completed", run=run.id)])
        assert set(done.values()) == {1}
        assert len(done) == 6
        assert (await again.row()).updated - (await again.row()).created >= 0.4


class Unreadable(MemoryStore):
    """Fails to read journals as often as it is told to."""

    failures = 0

    async def journal(self, run: str) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreError("the database restarts")
        return await super().journal(run)


async def test_recovery_while_the_store_cannot_be_read(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """[dbos#716]"""
    monkeypatch.setattr("eventcore.workflows.runner._AFTER_A_BUG", 0.01)
    store = Unreadable()
    async with EventCore(store=store, settings=HASTY) as core:
        Held(core)
        define(core, SLOW)
        runs = [await core.workflows.start("w") for _ in range(5)]
    store.failures = 7
    async with EventCore(store=store, settings=HASTY) as core:
        held = Held(core)
        held.release.set()
        for run in runs:
            assert await (await core.workflows.run(run.id)).over(5)


async def test_an_event_before_the_wait_and_while_no_engine_runs_counts(anyio_backend: Any) -> None:
    """[hatchet, durable event waits]"""
    store = MemoryStore()
    steps = ({"id": "first", "plugin": "slow"}, {"id": "paid", "wait_for": {"event": "paid", "match": {"n": 1}}})
    async with EventCore(store=store, settings=HASTY) as core:
        held = Held(core)
        define(core, *steps, outputs="{{ steps.paid.output.data.n }}")
        run = await core.workflows.start("w")
        await held.began.wait()
        await core.bus.emit("paid", {"n": 2})
        await core.bus.emit("paid", {"n": 1})
    async with EventCore(store=store, settings=HASTY) as core:
        held = Held(core)
        held.release.set()
        assert await (await core.workflows.run(run.id)).result(5) == 1
