"""What ends: loops, and buffers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus import admission
from eventcore.kernel.context import MAX_HOPS, MAX_TURNS
from eventcore.kernel.errors import BusOverflow, LoopDetected
from eventcore.kernel.event import Event

pytestmark = pytest.mark.anyio


async def of_type(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


# -- loops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["emit", "emit_and_wait"])
@pytest.mark.parametrize("transient", [False, True], ids=["recorded", "transient"])
async def test_two_handlers_that_answer_each_other_are_stopped(core: EventCore, how: str, transient: bool) -> None:
    refused: list[BaseException] = []
    counts = {"ping": 0, "pong": 0}
    for name in counts:
        core.bus.declare(name, transient=transient)

    async def answer(event: Event, other: str) -> None:
        counts[event.type] += 1
        assert counts[event.type] < 50
        try:
            if how == "emit":
                await core.bus.emit(other)
            else:
                await core.bus.emit_and_wait(other, timeout=10)
        except LoopDetected as error:
            refused.append(error)
            raise

    async def on_ping(event: Event) -> None:
        await answer(event, "pong")

    async def on_pong(event: Event) -> None:
        await answer(event, "ping")

    core.bus.subscribe("ping", on_ping, name="left")
    core.bus.subscribe("pong", on_pong, name="right")
    await core.bus.emit("ping")
    with anyio.fail_after(15):
        while not await of_type(core, "bus_loop_detected"):
            await anyio.sleep(0.01)
        await core.drain()
    [notice] = await of_type(core, "bus_loop_detected")
    assert notice.data["members"] == ["left", "right"]
    assert counts == {"ping": MAX_TURNS, "pong": MAX_TURNS - 1}
    assert len(refused) == 1
    assert "left, right" in str(refused[0])


async def test_a_chain_with_ever_new_keys_ends_by_its_length(core: EventCore) -> None:
    async def relay(event: Event) -> None:
        await core.bus.emit("relay", event.data + 1, key=str(event.data))

    core.bus.subscribe("relay", relay, ignore_self=False)
    await core.bus.emit("relay", 0)
    await core.drain()
    assert [event.data for event in await of_type(core, "relay")] == list(range(MAX_HOPS + 1))
    assert "hops" in (await of_type(core, "bus_loop_detected"))[0].data["why"]


async def test_an_outside_event_begins_a_new_path(core: EventCore) -> None:
    core.bus.subscribe("ask", lambda event: None)
    for _ in range(40):
        await core.bus.emit("ask")
    assert await of_type(core, "bus_loop_detected") == []


async def test_a_handler_that_triggers_its_own_workflow_is_stopped(core: EventCore) -> None:
    core.workflows.define(
        {"slug": "again", "triggers": [{"event": "go"}], "steps": [{"id": "a", "emit": "went", "with": {"n": 1}}]}
    )

    async def on_went(event: Event) -> None:
        await core.bus.emit("go")

    core.bus.subscribe("went", on_went, name="pusher")
    await core.bus.emit("go")
    with anyio.fail_after(15):
        while not (found := await of_type(core, "bus_loop_detected")):
            await anyio.sleep(0.01)
    await core.drain()
    assert found[0].data["members"] == ["pusher", "workflow:again"]
    assert 1 < len(await of_type(core, "workflow_started")) <= MAX_TURNS + 1


async def test_a_workflow_that_triggers_itself_is_stopped(core: EventCore) -> None:
    core.workflows.define({"slug": "self", "triggers": [{"event": "go"}], "steps": [{"id": "a", "emit": "go"}]})
    await core.bus.emit("go")
    await core.drain()
    [notice] = await of_type(core, "bus_loop_detected")
    assert notice.data["members"] == ["workflow:self"]
    runs = await core.workflows.runs(slug="self")
    assert {run.status for run in runs} == {"completed"}
    assert len(runs) <= MAX_TURNS


# -- buffers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for room waits until there is some, however long the machine stands still meanwhile.

    And who waits though nobody should is still there when the engine's time is over.
    """
    monkeypatch.setattr(admission, "BLOCK_SECONDS", 3600.0)


class Stuck:
    """A handler that holds its first event until told."""

    def __init__(self) -> None:
        self.go, self.began = anyio.Event(), anyio.Event()
        self.got: list[Any] = []

    async def __call__(self, event: Event) -> None:
        self.began.set()
        await self.go.wait()
        self.got.append(event.data)


async def fill(core: EventCore, stuck: Stuck, **options: Any) -> Any:
    """A subscription with one event in its handler and 2 in its buffer, which is then full."""
    subscription = core.bus.subscribe("x", stuck, name="stuck", buffer=2, **options)
    await core.bus.emit("x", 0)
    await stuck.began.wait()
    await core.bus.emit("x", 1)
    await core.bus.emit("x", 2)
    return subscription


async def end(core: EventCore, stuck: Stuck) -> list[Any]:
    stuck.go.set()
    await core.drain()
    return stuck.got


async def notices(core: EventCore) -> list[Any]:
    while not core.bus._notices.idle:
        await anyio.sleep(0.002)
    return [(event.data["subscription"], event.data["policy"]) for event in await of_type(core, "bus_overflow")]


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [0, 5, 6]), ("drop_newest", [0, 1, 2])])
async def test_dropping(core: EventCore, patient: None, policy: Any, kept: list[int]) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow=policy)
    for number in range(3, 7):
        await core.bus.emit("x", number)
    assert await notices(core) == [("stuck", policy)]  # said once, not once a drop
    assert await end(core, stuck) == kept
    assert len(await of_type(core, "x")) == 7  # dropped for the subscription, kept in the history


async def test_overflow_is_said_again_after_it_was_over(core: EventCore) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow="drop_newest")
    await core.bus.emit("x", 3)
    await end(core, stuck)
    stuck.go, stuck.began = anyio.Event(), anyio.Event()
    await core.bus.emit("x", 4)
    await stuck.began.wait()
    for number in range(5, 9):
        await core.bus.emit("x", number)
    assert await notices(core) == [("stuck", "drop_newest")] * 2
    await end(core, stuck)


async def test_refusing(core: EventCore) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow="error")
    with pytest.raises(BusOverflow, match="stuck"):
        await core.bus.emit("x", 3)
    assert len(await of_type(core, "x")) == 3  # refused before anything was stored
    assert await end(core, stuck) == [0, 1, 2]
    await core.bus.emit("x", 4)


async def test_refusing_counts_emits_that_are_on_their_way(core: EventCore) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow="error")
    stuck.go.set()
    await core.drain()
    stuck.go, stuck.got = anyio.Event(), []
    refused = 0

    async def emit(number: int) -> None:
        nonlocal refused
        try:
            await core.bus.emit("x", number)
        except BusOverflow:
            refused += 1

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(emit, number)
    assert refused >= 17
    assert await notices(core) == []  # whatever was let in had room
    assert len(await end(core, stuck)) == 20 - refused


async def test_refusing_is_only_for_events_that_the_subscription_wants(core: EventCore) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow="error", where=lambda event: event.data < 10)
    await core.bus.emit("x", 10)
    with pytest.raises(BusOverflow):
        await core.bus.emit("x", 3)
    await end(core, stuck)


async def test_refusing_holds_for_transient_types_too(core: EventCore) -> None:
    core.bus.declare("x", transient=True)
    stuck = Stuck()
    await fill(core, stuck, overflow="error")
    with pytest.raises(BusOverflow):
        await core.bus.emit("x", 3)
    assert await end(core, stuck) == [0, 1, 2]


async def test_blocking_waits_for_room(core: EventCore, patient: None) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow="block")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(core.bus.emit, "x", 3)
        await anyio.sleep(0.02)
        assert len(await of_type(core, "x")) == 3
        stuck.go.set()
    await core.drain()
    assert stuck.got == [0, 1, 2, 3]
    assert await notices(core) == []


async def test_blocking_lets_in_as_many_as_there_is_room_for(core: EventCore, patient: None) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow="block")
    async with anyio.create_task_group() as tasks:
        for number in range(3, 23):
            tasks.start_soon(core.bus.emit, "x", number)
        await anyio.sleep(0.02)
        stuck.go.set()
    await core.drain()
    assert sorted(stuck.got) == list(range(23))
    assert await notices(core) == []


async def test_blocking_ends_after_a_second_and_says_so(core: EventCore) -> None:
    stuck = Stuck()
    await fill(core, stuck, overflow="block")
    began = anyio.current_time()
    with anyio.fail_after(15):
        await core.bus.emit("x", 3)
    assert anyio.current_time() - began > 0.9
    assert await notices(core) == [("stuck", "block")]
    assert await end(core, stuck) == [0, 1, 2]


async def test_blocking_looks_at_the_whole_buffer_with_several_lanes(core: EventCore, patient: None) -> None:
    gates = {"a": anyio.Event(), "b": anyio.Event()}
    got: list[Any] = []

    async def handler(event: Event) -> None:
        await gates[str(event.data)].wait()
        got.append(event.data)

    subscription = core.bus.subscribe("x", handler, concurrency=2, buffer=2)
    keys = [str(n) for n in range(100)]
    one = next(key for key in keys if subscription._lanes[0] is subscription._lanes[hash(key) % 2])
    other = next(key for key in keys if subscription._lanes[1] is subscription._lanes[hash(key) % 2])
    for _ in range(3):
        await core.bus.emit("x", "a", key=one)
        await anyio.sleep(0.002)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: core.bus.emit("x", "b", key=other))
        await anyio.sleep(0.02)
        gates["a"].set()
    gates["b"].set()
    await core.drain()
    assert got == ["a", "a", "a", "b"]


async def test_blocking_never_waits_for_oneself(core: EventCore, patient: None) -> None:
    began, full = anyio.Event(), anyio.Event()
    went_on: list[Any] = []

    async def handler(event: Event) -> None:
        if event.data == 0:
            began.set()
            await full.wait()
            await core.bus.emit("x", 9)
            went_on.append(subscription.backlog)

    subscription = core.bus.subscribe("x", handler, buffer=1, ignore_self=False)
    await core.bus.emit("x", 0)
    await began.wait()
    await core.bus.emit("x", 1)
    full.set()
    await core.drain()
    assert went_on == [1]  # as full as before


async def test_a_million_bytes_of_backlog_is_all_that_a_stuck_subscriber_holds(core: EventCore) -> None:
    stuck = Stuck()
    subscription = core.bus.subscribe("x", stuck, buffer=10, overflow="drop_oldest")
    for number in range(500):
        await core.bus.emit("x", number)
    assert subscription.backlog <= 10
    assert await notices(core) == [("Stuck", "drop_oldest")]
    assert (await end(core, stuck))[-10:] == list(range(490, 500))
