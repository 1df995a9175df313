"""The quick way of transient events, and events that are filled in when somebody looks."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus.fresh import TransientReceipt, fresh_events
from eventcore.bus.outcome import Receipt
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EngineClosed, InvalidPayload
from eventcore.kernel.event import Event

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def settled(core: EventCore) -> None:
    with anyio.fail_after(30):
        while not core.bus.idle:
            await anyio.lowlevel.checkpoint()


def made(ids: list[str] | None = None) -> Event:
    names = iter(ids or ["one", "two", "three"])

    def new_id() -> str:
        time.sleep(0.002)  # long enough for another thread to ask as well
        return next(names)

    return fresh_events(new_id, "/host", CallContext(tenant="acme"))("tick", 5.0, b'{"n":1}')


def whole(id: str = "one") -> Event:
    return Event(id, "tick", "/host", 5.0, b'{"n":1}', "acme", "operator", correlation_id=id)


def test_the_payload_alone_fills_in_nothing_else() -> None:
    event = made()
    assert event.data == {"n": 1}
    assert event.data is event.data
    assert type(event) is not Event
    assert event.id == "one"
    assert type(event) is Event
    assert event.data == {"n": 1}


def test_a_look_at_anything_gives_a_whole_event() -> None:
    for look in (repr, hash, lambda event: event.as_dict(), lambda event: replace(event, key="k").id, Event.cause):
        event = made()
        look(event)
        assert event == whole()
        assert repr(event) == repr(whole())
        assert event.roles == CallContext(tenant="acme").roles


def test_two_are_equal_as_events_are() -> None:
    assert made() == whole()
    assert whole() == made()
    assert made() == made()
    assert made(["other"]) != whole()
    assert len({made(), whole()}) == 1


def test_it_stays_frozen_and_has_no_attributes_of_its_own() -> None:
    event = made()
    with pytest.raises(AttributeError):
        event.raw = b"2"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="'Event' object has no attribute 'nothing'"):
        _ = event.nothing  # type: ignore[attr-defined]
    assert event.raw == b'{"n":1}'


def test_all_threads_see_one_id() -> None:
    for _ in range(5):
        event, seen, start = made(["a", "b", "c", "d"]), list[str](), threading.Barrier(4)

        def look(event: Event = event, seen: list[str] = seen, start: threading.Barrier = start) -> None:
            start.wait()
            seen.append(event.id)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == ["a"] * 4


def test_a_transient_receipt_reads_like_any_other() -> None:
    receipt, same = TransientReceipt(made()), Receipt("one", 0)
    assert receipt == same
    assert same == receipt
    assert hash(receipt) == hash(same)
    assert repr(receipt) == repr(same)
    assert (receipt.id, receipt.position, receipt.duplicate) == ("one", 0, False)
    with pytest.raises(AttributeError):
        _ = receipt.nothing


async def test_the_receipt_names_the_event_that_was_delivered() -> None:
    async with EventCore() as core:
        core.bus.declare("tick", transient=True)
        seen: list[str] = []

        async def look(event: Event) -> None:
            seen.append(event.id)

        core.bus.subscribe("tick", look)
        receipts = [await core.bus.emit("tick", {"n": n}) for n in range(600)]
        await settled(core)
    assert [receipt.id for receipt in receipts] == seen
    assert len(set(seen)) == 600


async def test_what_changes_between_two_emits_counts_for_the_second() -> None:
    async with EventCore() as core:
        bus, seen = core.bus, list[tuple[str, Any]]()
        bus.declare("tick", transient=True)

        def listener(name: str) -> Any:
            async def listen(event: Event) -> None:
                seen.append((name, event.data))

            return listen

        first = bus.subscribe("tick", listener("first"))
        for n in range(2):
            await bus.emit("tick", n)
        second = bus.subscribe("tick*", listener("second"))
        await bus.emit("tick", 2)
        core.signals.tick.connect(lambda tenant, event: seen.append(("tap", event.data)))
        await bus.emit("tick", 3)
        await settled(core)
        bus.unsubscribe(first)
        bus.unsubscribe(second)
        report = await bus.emit_and_wait("tick", 4)
        await settled(core)
    assert report.outcomes == []
    assert {name: [n for who, n in seen if who == name] for name, _ in seen} == {
        "first": [0, 1, 2, 3],
        "second": [2, 3],
        "tap": [3, 4],
    }


async def test_a_full_buffer_is_never_overrun() -> None:
    async with EventCore() as core:
        core.bus.declare("tick", transient=True)
        release, seen = anyio.Event(), list[int]()

        async def slow(event: Event) -> None:
            await release.wait()
            seen.append(event.data)

        subscription = core.bus.subscribe("tick", slow, buffer=10, overflow="drop_newest")
        for n in range(50):
            await core.bus.emit("tick", n)
            assert subscription.backlog <= 10
        release.set()
        await settled(core)
    assert subscription.dropped == 50 - len(seen)
    assert seen == list(range(len(seen)))
    assert 10 <= len(seen) <= 11


async def test_the_payload_is_the_one_at_the_time_of_the_emit() -> None:
    async with EventCore() as core:
        core.bus.declare("tick", transient=True)
        seen: list[Any] = []

        async def look(event: Event) -> None:
            seen.append(event.data)

        core.bus.subscribe("tick", look)
        data = {"n": [1]}
        for _ in range(3):
            await core.bus.emit("tick", data)
            data["n"].append(2)
        await settled(core)
    assert seen == [{"n": [1]}, {"n": [1, 2]}, {"n": [1, 2, 2]}]


async def test_what_cannot_go_the_quick_way_is_refused_or_sent_as_ever() -> None:
    async with EventCore() as core:
        core.bus.declare("tick", transient=True)
        seen: list[Any] = []

        async def look(event: Event) -> None:
            seen.append((event.data, event.key))

        core.bus.subscribe("tick", look)
        await core.bus.emit("tick")
        for bad in (float("nan"), {1: 2}, {"n": object()}, "x" * 300_000):
            with pytest.raises(InvalidPayload):
                await core.bus.emit("tick", bad)
        await core.bus.emit("tick", {"n": None}, key="k")
        await core.bus.emit("tick", {"n": None})
        await settled(core)
        assert seen == [(None, None), ({"n": None}, "k"), ({"n": None}, None)]
        bus = core.bus
    with pytest.raises(EngineClosed):
        await bus.emit("tick")


async def test_an_emit_of_a_handler_has_its_cause() -> None:
    async with EventCore() as core:
        core.bus.declare("tick", transient=True)
        core.bus.declare("tock", transient=True)
        seen: list[Event] = []

        async def answer(event: Event) -> None:
            await core.bus.emit("tock")

        async def look(event: Event) -> None:
            seen.append(event)

        core.bus.subscribe("tick", answer)
        core.bus.subscribe("tock", look)
        receipt = await core.bus.emit("tick")
        for _ in range(2):  # which opens the quick way for what `answer` emits next
            await core.bus.emit("tock")
        await settled(core)
    assert [(event.hops, event.causation_id) for event in seen] == [(0, None), (0, None), (1, receipt.id)]


async def test_all_are_counted() -> None:
    async with EventCore() as core:
        core.bus.declare("tick", transient=True)
        for _ in range(700):
            await core.bus.emit("tick")
        core.bus.subscribe("other", print)
        await core.bus.emit("tick")
        text = core.metrics.text()
    assert 'eventcore_emits_total{type="tick"} 701.0' in text


async def test_others_get_a_turn() -> None:
    async with EventCore() as core, anyio.create_task_group() as tasks:
        core.bus.declare("tick", transient=True)
        turns: list[int] = []

        async def other() -> None:
            for _ in range(3):
                turns.append(1)
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(other)
        for _ in range(2_000):
            await core.bus.emit("tick")
        assert len(turns) == 3
