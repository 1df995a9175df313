"""The overflow rule `spill`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus import admission
from eventcore.kernel.errors import StoreError
from eventcore.kernel.event import Event
from eventcore.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def of_type(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


class Stuck:
    """A handler that holds its first event until told."""

    def __init__(self) -> None:
        self.go, self.began = anyio.Event(), anyio.Event()
        self.got: list[Any] = []

    async def __call__(self, event: Event) -> None:
        self.began.set()
        await self.go.wait()
        self.got.append(event.data)


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[EventCore]:
    with anyio.fail_after(60):
        async with EventCore(store=f"sqlite:///{tmp_path}/e.db") as engine:
            yield engine


# -- spill ------------------------------------------------------------------------------------------------------------


async def test_spill_loses_nothing_and_keeps_the_order(core: EventCore) -> None:
    stuck = Stuck()
    subscription = core.bus.subscribe("x", stuck, name="stuck", buffer=8, overflow="spill")
    for number in range(2000):
        await core.bus.emit("x", number)
        if number % 100 == 0:
            await core.bus.emit("other", number)
    assert subscription.backlog <= 8
    assert not core.bus.idle
    stuck.go.set()
    await core.drain()
    assert stuck.got == list(range(2000))
    assert subscription.dropped == 0
    notices = await of_type(core, "bus_overflow")
    assert [(one.data["subscription"], one.data["policy"], one.data["dropped"]) for one in notices] == [
        ("stuck", "spill", 0)
    ]


async def test_spill_goes_back_to_live_and_says_the_next_episode_again(core: EventCore) -> None:
    stuck = Stuck()
    subscription = core.bus.subscribe("x", stuck, buffer=4, overflow="spill")
    for episode in (1, 2):
        await core.bus.emit("x", 0)
        await stuck.began.wait()
        for number in range(1, 50):
            await core.bus.emit("x", number)
        stuck.go.set()
        await core.drain()
        assert subscription.spill is not None
        assert not subscription.spill.behind
        assert len(await of_type(core, "bus_overflow")) == episode
        await core.bus.emit("x", 50)
        await core.drain()
        assert stuck.got == list(range(51)) * episode
        stuck.go, stuck.began = anyio.Event(), anyio.Event()


async def test_spill_while_events_keep_coming(core: EventCore) -> None:
    got: list[int] = []

    async def slow(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        got.append(event.data)

    core.bus.subscribe("x", slow, buffer=3, overflow="spill")

    async def publish(first: int) -> None:
        for number in range(first, first + 300):
            await core.bus.emit("x", number)

    async with anyio.create_task_group() as tasks:
        for publisher in range(4):
            tasks.start_soon(publish, publisher * 1000)
    await core.drain()
    assert got == [event.data for event in await of_type(core, "x")]  # each once, in commit order
    assert len(got) == 1200


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite runs on asyncio
async def test_spill_on_sqlite_where_readers_may_be_ahead_of_listeners(sqlite: EventCore) -> None:
    await test_spill_while_events_keep_coming(sqlite)


async def test_an_event_that_was_read_before_its_listener_was_told_is_not_handled_twice(core: EventCore) -> None:
    stuck = Stuck()
    subscription = core.bus.subscribe("x", stuck, buffer=2, overflow="spill")
    for number in range(10):
        await core.bus.emit("x", number)
    stuck.go.set()
    await core.drain()
    subscription.offer((await of_type(core, "x"))[-1])  # a store may show a commit before it tells of it
    await core.bus.emit("x", 10)
    await core.drain()
    assert stuck.got == list(range(11))


async def test_spill_with_keys_keeps_the_order_of_each(core: EventCore) -> None:
    seen: dict[str, list[int]] = {str(key): [] for key in range(5)}

    async def slow(event: Event) -> None:
        await anyio.sleep(0.0005 * (event.data % 3))
        assert event.key is not None
        seen[event.key].append(event.data)

    core.bus.subscribe("x", slow, buffer=6, concurrency=3, overflow="spill")
    for number in range(200):
        await core.bus.emit("x", number, key=str(number % 5))
    await core.drain()
    assert seen == {str(key): list(range(key, 200, 5)) for key in range(5)}


async def test_spill_keeps_to_the_filter_and_the_pattern(core: EventCore) -> None:
    stuck = Stuck()
    core.bus.subscribe("**", stuck, buffer=2, overflow="spill", where=lambda event: event.data["n"] % 2 == 0)
    for number in range(100):
        await core.bus.emit("x" if number % 3 else "y.z", {"n": number})
    stuck.go.set()
    await core.drain()
    assert [data["n"] for data in stuck.got] == list(range(0, 100, 2))


async def test_transient_events_cannot_spill(core: EventCore) -> None:
    core.bus.declare("x", transient=True)
    stuck = Stuck()
    subscription = core.bus.subscribe("x", stuck, buffer=2, overflow="spill")
    for number in range(6):
        await core.bus.emit("x", number)
        await stuck.began.wait()
    assert subscription.dropped == 3
    stuck.go.set()
    await core.drain()
    assert stuck.got == [0, 1, 2]


async def test_emit_and_wait_hears_of_an_event_that_was_spilled(core: EventCore) -> None:
    stuck = Stuck()
    core.bus.subscribe("x", stuck, name="stuck", buffer=1, overflow="spill")
    for number in range(5):
        await core.bus.emit("x", number)
        await stuck.began.wait()
    reports: list[Any] = []

    async def ask() -> None:
        reports.append(await core.bus.emit_and_wait("x", 5))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.sleep(0.01)
        stuck.go.set()
    assert [outcome.status for outcome in reports[0]] == ["ok"]


async def test_an_unsubscribed_one_reads_no_further(core: EventCore) -> None:
    stuck = Stuck()
    subscription = core.bus.subscribe("x", stuck, buffer=2, overflow="spill")
    for number in range(20):
        await core.bus.emit("x", number)
    await stuck.began.wait()
    core.bus.unsubscribe(subscription)
    stuck.go.set()
    await core.drain()
    assert stuck.got == []


async def test_a_store_that_cannot_be_read_is_asked_again() -> None:
    class Flaky(MemoryStore):
        failures = 1

        async def events(self, query: Any) -> list[Event]:
            if query.types == ("x",) and self.failures:
                self.failures -= 1
                raise StoreError("the disk is tired")
            return await super().events(query)

    with anyio.fail_after(30):
        async with EventCore(store=Flaky()) as core:
            stuck = Stuck()
            core.bus.subscribe("x", stuck, buffer=2, overflow="spill")
            for number in range(20):
                await core.bus.emit("x", number)
            stuck.go.set()
            await core.drain()
            assert stuck.got == list(range(20))


# -- block ------------------------------------------------------------------------------------------------------------


async def test_block_drops_nothing_because_the_whole_process_was_held_up(core: EventCore) -> None:
    got: list[int] = []

    async def stalls(event: Event) -> None:
        if event.data == 0:
            await anyio.sleep(0.05)  # until the publishers below wait for room
            time.sleep(1.2)
        got.append(event.data)

    core.bus.declare("x", transient=True)
    subscription = core.bus.subscribe("x", stalls, buffer=2)
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(core.bus.emit, "x", number)
    await core.drain()
    assert subscription.dropped == 0
    assert sorted(got) == list(range(20))


async def test_who_waits_for_room_gets_it_before_those_who_come_later(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "BLOCK_SECONDS", 3600.0)  # a second may be too short for a machine that stands still
    got: list[Any] = []

    async def quick(event: Event) -> None:
        got.append(event.data)

    async def pushes(name: str) -> None:
        for number in range(1_500):
            await core.bus.emit("x", [name, number])

    with anyio.fail_after(100):
        async with EventCore() as core:
            core.bus.declare("x", transient=True)
            subscription = core.bus.subscribe("x", quick, buffer=16)
            async with anyio.create_task_group() as tasks:
                for name in ("a", "b", "c", "d", "e", "f"):
                    tasks.start_soon(pushes, name)
            await core.drain()
    assert subscription.dropped == 0
    assert len(got) == 9_000
    # All of them get on: none is done before the others are well on their way.
    first_end = next(at for at, (_, number) in enumerate(got) if number == 1_499)
    assert min(sum(1 for who, _ in got[:first_end] if who == name) for name in "abcdef") > 100


async def test_who_waits_and_is_cancelled_leaves_no_place_behind(core: EventCore) -> None:
    stuck = Stuck()
    core.bus.declare("x", transient=True)
    subscription = core.bus.subscribe("x", stuck, buffer=2)
    await core.bus.emit("x", 0)
    await stuck.began.wait()
    for number in (1, 2):
        await core.bus.emit("x", number)
    async with anyio.create_task_group() as tasks:
        for number in range(3, 9):
            tasks.start_soon(core.bus.emit, "x", number)
        await anyio.wait_all_tasks_blocked()
        assert subscription.room == 0
        stuck.go.set()
        tasks.cancel_scope.cancel()
    await core.drain()
    assert subscription.room == 2
    await core.bus.emit("x", 9)
    await core.drain()
    assert stuck.got[:3] == [0, 1, 2]
    assert stuck.got[-1] == 9
