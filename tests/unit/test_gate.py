"""Which queued run begins next: places, rates, priorities, tenants; and what happens to one too many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import InvalidDefinition
from eventcore.kernel.records import Batch, EventQuery
from eventcore.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Door:
    """An intent whose calls wait until the door is opened; remembers who came in, in order."""

    def __init__(self, core: EventCore) -> None:
        self.came: list[Any] = []
        self.open = anyio.Event()
        core.plugins.intent("door", self)

    async def __call__(self, params: Any) -> None:
        self.came.append(params["who"])
        await self.open.wait()


def define(core: EventCore, **more: Any) -> None:
    step = {"id": "a", "plugin": "door", "with": {"who": "{{ inputs.who }}"}}
    core.workflows.define({"slug": "w", "steps": [step], **more})


async def start(core: EventCore, *names: str, **inputs: Any) -> list[Any]:
    return [await core.workflows.start("w", {"who": name, **inputs}) for name in names]


async def until(condition: Any) -> None:
    with anyio.fail_after(15):
        while not condition():
            await anyio.sleep(0.005)


async def statuses(runs: list[Any], wanted: list[str]) -> None:
    """Return once the runs have come to these; the queue is looked through after the start of a run, not in it."""
    with anyio.fail_after(15):
        while [await run.status() for run in runs] != wanted:
            await anyio.sleep(0.005)


async def test_the_more_urgent_begin_first_and_among_equals_the_older(core: EventCore) -> None:
    define(core, concurrency={"limit": 1}, priority="{{ inputs.urgent | default(0) }}")
    door = Door(core)
    await start(core, "first")
    await until(lambda: door.came)
    await start(core, "a", "b")
    await start(core, "late", urgent=-5)
    await start(core, "c", "d", urgent=5)
    door.open.set()
    await core.drain(18)
    assert door.came == ["first", "c", "d", "a", "b", "late"]


async def test_a_priority_that_is_no_number_counts_as_none(core: EventCore) -> None:
    define(core, concurrency={"limit": 1}, priority="{{ inputs.urgent }}")
    door = Door(core)
    door.open.set()
    for urgent in ("very", 1e300, True, None, 2.9):
        await start(core, repr(urgent), urgent=urgent)
    await start(core, "without")
    await core.drain(18)
    assert len(door.came) == 6
    for wrong in ("high", 5000, "{{ steps.a }}"):
        with pytest.raises(InvalidDefinition, match="priority"):
            define(core, priority=wrong)


def queued(core: EventCore) -> list[Batch]:
    """Four runs of one tenant, and then two of another."""
    plan, context = core.workflows.registry.get("w"), core.bus.context()
    names = {f"{tenant}{n}": tenant for n, tenant in enumerate(["big"] * 4 + ["small"] * 2)}
    return [
        core.workflows.launcher.stage(plan, {"who": name}, replace(context, tenant=tenant)).batch
        for name, tenant in names.items()
    ]


async def test_one_that_has_queued_a_hundred_runs_does_not_keep_out_one_that_comes_later(anyio_backend: Any) -> None:
    async with EventCore(store=MemoryStore()) as core:
        door = Door(core)
        define(core, concurrency={"limit": 1}, rate={"limit": 1000})
        for batch in queued(core):
            await core.bus.commit(batch)
        await until(lambda: len(door.came) == 2)  # a limit is that of a tenant
        assert sorted(door.came) == ["big0", "small4"]
        door.open.set()
        await core.drain()
        assert sorted(door.came) == ["big0", "big1", "big2", "big3", "small4", "small5"]


async def test_tenants_take_turns(anyio_backend: Any) -> None:
    """In one look at the queue, so all of it is there at once; between two looks, whose run ends first is chance."""
    async with EventCore(store=MemoryStore()) as core:
        Door(core).open.set()
        define(core, concurrency={"limit": 1000}, rate={"limit": 1000})
        whole = Batch()
        for batch in queued(core):
            whole.add(batch)
        await core.bus.commit(whole)
        await core.drain()
        started = await core.engine.store.events(EventQuery(types=("workflow_started",)))
        assert [event.tenant for event in started] == ["big", "small", "big", "small", "big", "big"]


async def test_each_key_has_a_queue_of_its_own_and_it_is_bounded(core: EventCore) -> None:
    door = Door(core)
    define(core, concurrency={"limit": 1, "key": "{{ inputs.who }}", "max_queued": 1})
    runs = await start(core, "ada", "bob", "ada", "ada", "bob", "ada")
    await until(lambda: len(door.came) == 2)
    await statuses(runs, ["running", "running", "queued", "cancelled", "queued", "cancelled"])
    assert "its queue is full" in str((await runs[3].row()).raw_error)
    door.open.set()
    await core.drain(18)
    assert sorted(door.came) == ["ada", "ada", "bob", "bob"]


async def test_one_that_is_cancelled_while_it_waits_gives_up_its_place_in_the_queue(core: EventCore) -> None:
    door = Door(core)
    define(core, concurrency={"limit": 1, "max_queued": 1})
    _, second = await start(core, "first", "second")
    await until(lambda: door.came)
    await core.workflows.cancel(second.id)
    [third] = await start(core, "third")
    await core.drain(0.1)
    assert await third.status() == "queued"
    door.open.set()
    await core.drain(18)
    assert door.came == ["first", "third"]


class Ahead(SystemClock):
    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


async def test_a_rate_holds_also_over_a_restart(anyio_backend: Any) -> None:
    store, clock = MemoryStore(), Ahead()
    async with EventCore(store=store, clock=clock) as core:
        door = Door(core)
        door.open.set()
        define(core, rate={"limit": 2, "per": "1h"})
        runs = await start(core, "a", "b", "c", "d", "e")
        await core.drain(18)
        assert door.came == ["a", "b"]
        assert [await run.status() for run in runs[2:]] == ["queued"] * 3
    async with EventCore(store=store, clock=clock) as core:
        door = Door(core)
        door.open.set()
        await core.drain(0.1)
        assert door.came == []
        clock.ahead = 3601
        core.engine.gate._bell.set()  # its own look comes within half a minute
        await until(lambda: len(door.came) == 2)
        await core.drain(18)
        assert door.came == ["c", "d"]


async def test_a_clock_that_is_set_back_does_not_stop_a_rate(anyio_backend: Any) -> None:
    clock = Ahead()
    async with EventCore(clock=clock) as core:
        door = Door(core)
        door.open.set()
        define(core, rate={"limit": 1, "per": "500ms"})
        await start(core, "a")
        await core.drain(5)
        clock.ahead = -86400
        await start(core, "b")
        await until(lambda: door.came == ["a", "b"])


async def test_a_long_queue_is_not_read_again_for_each_run_that_ends(anyio_backend: Any) -> None:
    class Counting(MemoryStore):
        reads = 0

        async def run(self, run: str) -> Any:
            type(self).reads += 1
            return await super().run(run)

    async with EventCore(store=Counting()) as core:
        door = Door(core)
        door.open.set()
        define(core, concurrency={"limit": 2})
        await start(core, *map(str, range(200)))
        await core.drain(60)
        assert len(door.came) == 200
        assert Counting.reads < 10 * 200
