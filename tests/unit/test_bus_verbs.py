"""The bus's other verbs: emit_nowait, emit_many, request, find; and filters as mappings."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from eventcore import EventCore
from eventcore.bus.bus import MAX_BATCH
from eventcore.kernel.context import caller
from eventcore.kernel.errors import (
    AccessDenied,
    BusOverflow,
    EngineClosed,
    IdempotencyConflict,
    InvalidInput,
    InvalidName,
    InvalidPayload,
    LoopDetected,
    NoResponder,
    PluginFailed,
    PluginTimeout,
    StoreError,
)
from eventcore.kernel.event import Event
from eventcore.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def of_type(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


class Refusing(MemoryStore):
    """Cannot store one type of event."""

    async def commit(self, batch: Any, guards: Any = ()) -> int:
        if any(getattr(entry, "type", None) == "poison" for entry in batch.log):
            raise StoreError("the disk is full")
        return await super().commit(batch, guards)


# -- emit_nowait ------------------------------------------------------------------------------------------------------


async def test_emit_nowait_is_accepted_at_once_and_committed_in_order(core: EventCore) -> None:
    pending = [core.bus.emit_nowait("x", number) for number in range(1200)]
    assert not any(one.done for one in pending)
    assert not core.bus.idle
    receipts = [await one for one in pending]
    assert [receipt.position for receipt in receipts] == sorted(receipt.position for receipt in receipts)
    assert [event.data for event in await of_type(core, "x")] == list(range(1200))
    assert [one.id for one in pending] == [receipt.id for receipt in receipts]
    assert (await pending[0]).id == pending[0].id  # as often as one likes


async def test_emit_nowait_refuses_at_once_what_is_no_event(core: EventCore) -> None:
    with pytest.raises(InvalidName):
        core.bus.emit_nowait("workflow_started")
    with pytest.raises(InvalidPayload):
        core.bus.emit_nowait("x", float("nan"))


async def test_emit_nowait_is_bounded(core: EventCore) -> None:
    core.bus._outbox._limit = 3
    pending = [core.bus.emit_nowait("x", number) for number in range(3)]
    with pytest.raises(BusOverflow, match="3 events wait"):
        core.bus.emit_nowait("x", 3)
    for one in pending:
        await one
    assert (await core.bus.emit_nowait("x", 4)).position > 0


async def test_emit_nowait_in_a_handler_carries_its_cause(core: EventCore) -> None:
    async def relay(event: Event) -> None:
        core.bus.emit_nowait("effect")

    core.bus.subscribe("cause", relay, name="relay")
    receipt = await core.bus.emit("cause")
    await core.drain()
    [effect] = await of_type(core, "effect")
    assert (effect.causation_id, effect.hops, effect.actor) == (receipt.id, 1, "subscription:relay")


async def test_one_event_of_a_group_that_fails_does_not_take_the_others_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.fail_after(30):
        async with EventCore(store=Refusing()) as core:
            await core.bus.emit("x", "first", idempotency_key="k")
            good = [core.bus.emit_nowait("x", number) for number in range(3)]
            bad = core.bus.emit_nowait("poison")
            clash = core.bus.emit_nowait("x", "another", idempotency_key="k")
            again = core.bus.emit_nowait("x", "first", idempotency_key="k")
            last = core.bus.emit_nowait("x", 3)
            assert (await last).position > 0
            assert [(await one).position > 0 for one in good] == [True] * 3
            assert (await again).duplicate
            with pytest.raises(IdempotencyConflict):
                await clash
            with caplog.at_level(logging.WARNING), pytest.raises(StoreError):
                await bad
    assert "poison" in caplog.text  # nobody was waiting when it failed


async def test_closing_waits_for_what_is_pending(anyio_backend: Any) -> None:
    store = MemoryStore()
    with anyio.fail_after(30):
        async with EventCore(store=store) as core:
            kept = core
            pending = [core.bus.emit_nowait("x", number) for number in range(700)]
        assert all(one.done for one in pending)
        async with EventCore(store=store) as core:
            assert len(await of_type(core, "x")) == 700
        with pytest.raises(EngineClosed):
            kept.bus.emit_nowait("x")


async def test_closing_after_an_exception_waits_for_what_is_pending_too(anyio_backend: Any) -> None:
    store = MemoryStore()
    with anyio.fail_after(30):
        pending = []

        async def fails() -> None:
            async with EventCore(store=store) as core:
                pending.append(core.bus.emit_nowait("x"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fails()
        assert (await pending[0]).position > 0


# -- emit_many --------------------------------------------------------------------------------------------------------


async def test_emit_many_is_one_commit(core: EventCore) -> None:
    commits: list[int] = []
    core.engine.store.watch(lambda entries: commits.append(len(entries)))
    receipts = await core.bus.emit_many(
        [("x", 1), {"type": "y", "data": 2, "key": "k", "subject": "s", "source": "/test"}, {"type": "z"}]
    )
    assert commits == [3]
    assert [receipt.position - receipts[0].position for receipt in receipts] == [0, 1, 2]
    event = await core.history.get(receipts[1].id)
    assert (event.type, event.data, event.key, event.subject, event.source) == ("y", 2, "k", "s", "/test")
    assert await core.bus.emit_many([]) == []


@pytest.mark.parametrize(
    "bad", [("x", float("inf")), ("on_message", {}), {"data": 1}, {"type": "x", "dta": 1}, "x", ("x", 1, 2)]
)
async def test_emit_many_is_all_or_nothing(core: EventCore, bad: Any) -> None:
    with pytest.raises(InvalidInput):
        await core.bus.emit_many([("x", 1), bad, ("x", 2)])
    assert await of_type(core, "x") == []


async def test_emit_many_has_a_limit(core: EventCore) -> None:
    with pytest.raises(InvalidInput, match="at most 10,000"):
        await core.bus.emit_many([("x", 1)] * (MAX_BATCH + 1))


async def test_emit_many_with_idempotency_keys(core: EventCore) -> None:
    first = await core.bus.emit("x", 1, idempotency_key="a")
    batch = [
        {"type": "x", "data": 1, "idempotency_key": "a"},
        {"type": "x", "data": 2, "idempotency_key": "b"},
        {"type": "x", "data": 2, "idempotency_key": "b"},
        ("x", 3),
    ]
    known, new, repeated, plain = await core.bus.emit_many(batch)
    assert (known.id, known.position, known.duplicate) == (first.id, first.position, True)
    assert (repeated.id, repeated.position, repeated.duplicate) == (new.id, new.position, True)
    assert not new.duplicate
    assert not plain.duplicate
    assert [event.data for event in await of_type(core, "x")] == [1, 2, 3]
    again = await core.bus.emit_many(batch[:3])
    assert [receipt.id for receipt in again] == [first.id, new.id, new.id]
    assert all(receipt.duplicate for receipt in again)
    with pytest.raises(IdempotencyConflict):
        await core.bus.emit_many([("x", 9), {"type": "x", "data": "other", "idempotency_key": "b"}])
    with pytest.raises(IdempotencyConflict):
        await core.bus.emit_many(
            [{"type": "x", "data": 1, "idempotency_key": "c"}, {"type": "x", "data": 2, "idempotency_key": "c"}]
        )
    assert len(await of_type(core, "x")) == 3


async def test_emit_many_hands_transient_events_out_after_the_commit(core: EventCore) -> None:
    core.bus.declare("tick", transient=True)
    got: list[str] = []

    async def handler(event: Event) -> None:
        got.append(event.type)

    core.bus.subscribe("**", handler)
    receipts = await core.bus.emit_many([("tick", 1), ("x", 1), ("tick", 2)])
    await core.drain()
    assert [receipt.position > 0 for receipt in receipts] == [False, True, False]
    assert got == ["x", "tick", "tick"]


async def test_emit_many_is_refused_where_the_batch_finds_no_room(core: EventCore) -> None:
    got: list[Any] = []

    async def handler(event: Event) -> None:
        got.append(event.data)

    core.bus.subscribe("x", handler, buffer=3, overflow="error")
    with pytest.raises(BusOverflow):
        await core.bus.emit_many([("x", number) for number in range(4)])
    assert await of_type(core, "x") == []
    await core.bus.emit_many([("x", number) for number in range(3)])
    await core.drain()
    assert got == [0, 1, 2]


# -- request ----------------------------------------------------------------------------------------------------------


async def test_request_returns_the_answer(core: EventCore) -> None:
    @core.intent("add")
    async def add(params: dict[str, Any]) -> Any:
        return {"sum": params["a"] + params["b"], "as": params["user_context"]["user_id"]}

    assert await core.bus.request("add", {"a": 2, "b": 3}) == {"sum": 5, "as": "operator"}
    answer = await core.bus.request("add", {"a": 2, "b": 3}, context=caller("user:ada"))
    assert answer["as"] == "user:ada"


async def test_a_request_with_nobody_there_fails_at_once(core: EventCore) -> None:
    with anyio.fail_after(15), pytest.raises(NoResponder, match="nobody-there") as caught:
        await core.bus.request("nobody-there", {}, timeout=60)
    assert caught.value.code == "no_responder"


async def test_what_the_answering_code_misses_is_not_taken_for_nobody_there(core: EventCore) -> None:
    @core.intent("ask_on")
    async def ask_on(params: dict[str, Any]) -> Any:
        raise RuntimeError("no")

    with pytest.raises(PluginFailed):
        await core.bus.request("ask_on")


async def test_request_has_a_time_limit_and_asks_for_roles(core: EventCore) -> None:
    @core.intent("slow", roles=["admin"])
    async def slow(params: dict[str, Any]) -> Any:
        await anyio.sleep_forever()

    with pytest.raises(PluginTimeout):
        await core.bus.request("slow", timeout=0.02)
    with pytest.raises(AccessDenied):
        await core.bus.request("slow", context=caller("user:ada", ["user"]))
    with pytest.raises(InvalidInput):
        await core.bus.request("slow", timeout=0)


async def test_a_request_never_waits_for_the_subscription_that_it_is_made_in(core: EventCore) -> None:
    answers: list[Any] = []

    @core.intent("ask_back")
    async def ask_back(params: dict[str, Any]) -> Any:
        report = await core.bus.emit_and_wait("question", timeout=60)
        return [outcome.status for outcome in report]

    async def asks(event: Event) -> None:
        if not answers:
            answers.append(await core.bus.request("ask_back"))

    core.bus.subscribe("question", asks, ignore_self=False)
    with anyio.fail_after(15):
        await core.bus.emit("question")
        await core.drain()
    assert answers == [["skipped"]]


async def test_requests_that_lead_to_each_other_end(core: EventCore) -> None:
    calls = 0

    @core.intent("left")
    async def left(params: dict[str, Any]) -> Any:
        nonlocal calls
        calls += 1
        return await core.bus.request("right")

    @core.intent("right")
    async def right(params: dict[str, Any]) -> Any:
        return await core.bus.request("left")

    with anyio.fail_after(15), pytest.raises(LoopDetected):
        await core.bus.request("left")
    assert 1 < calls < 10
    await core.drain()
    [notice] = await of_type(core, "bus_loop_detected")
    assert notice.data["members"] == ["intent:left", "intent:right"]


# -- transient ones ---------------------------------------------------------------------------------------------------


async def test_what_is_promised_of_emits_holds_on_the_quick_path_too(core: EventCore) -> None:
    class Tick(BaseModel):
        n: int

    core.bus.declare("tick", transient=True)
    got: list[Event] = []

    async def handler(event: Event) -> None:
        got.append(event)
        if event.data == {"n": 1}:
            await core.bus.emit("tick", [2])

    core.bus.subscribe("tick", handler, name="self", ignore_self=False)
    receipt = await core.bus.emit("tick", mutable := {"n": 1})
    mutable["n"] = 99
    await core.bus.emit("tick", Tick(n=3))
    await core.drain()
    assert [event.data for event in got] == [{"n": 1}, {"n": 3}, [2]]
    assert (got[0].id, receipt.position, got[0].actor) == (receipt.id, 0, "operator")
    assert (got[2].causation_id, got[2].hops, got[2].actor) == (receipt.id, 1, "subscription:self")
    with pytest.raises(InvalidPayload):
        await core.bus.emit("tick", {"n": float("nan")})
    with pytest.raises(dataclasses.FrozenInstanceError):
        got[0].type = "tock"  # type: ignore[misc]


async def test_transient_emits_let_others_run(core: EventCore) -> None:
    core.bus.declare("tick", transient=True)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        for _ in range(2000):
            await core.bus.emit("tick")
        tasks.cancel_scope.cancel()
    assert turns >= 5


# -- find -------------------------------------------------------------------------------------------------------------


async def test_find_returns_the_oldest_of_the_past(core: EventCore) -> None:
    for number in range(600):
        await core.bus.emit("order_paid", {"n": number, "odd": number % 2})
    found = await core.bus.find("order_*", where={"data.odd": 1})
    assert found is not None
    assert found.data["n"] == 1
    found = await core.bus.find("order_*", where=lambda event: event.data["n"] == 599)
    assert found is not None
    assert found.data["n"] == 599
    assert core.bus.subscriptions() == []


async def test_find_waits_for_the_future(core: EventCore) -> None:
    core.bus.declare("tick", transient=True)
    for name in ("order_paid", "tick"):
        found: list[Any] = []

        async def look(name: str = name, found: list[Any] = found) -> None:
            found.append(await core.bus.find(name, where={"data.n": 2}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            while not core.bus.subscriptions():
                await anyio.sleep(0)
            for number in (1, 2, 2):
                await core.bus.emit(name, {"n": number})
        assert found[0].data == {"n": 2}
    assert core.bus.subscriptions() == []


async def test_find_gives_up(core: EventCore) -> None:
    await core.bus.emit("x", 1)
    assert await core.bus.find("x", past=0, future=0.01) is None
    assert await core.bus.find("y", future=0.01) is None
    assert await core.bus.find("x", past=3600, future=0) is not None
    assert core.bus.subscriptions() == []
    with pytest.raises(InvalidInput):
        await core.bus.find("x", past=-1)
    with pytest.raises(InvalidName):
        await core.bus.find("X Y")


async def test_a_filter_of_find_that_raises_comes_out(core: EventCore) -> None:
    core.bus.declare("tick", transient=True)
    raised: list[type[Exception]] = []

    async def look(type: str) -> None:
        try:
            await core.bus.find(type, where=lambda event: bool(event.data["n"]))
        except KeyError as error:
            raised.append(error.__class__)

    await core.bus.emit("x", {})
    await look("x")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look, "tick")
        while not core.bus.subscriptions():
            await anyio.lowlevel.checkpoint()
        await core.bus.emit("tick", {})
    assert raised == [KeyError, KeyError]


async def test_find_keeps_to_the_callers_tenant(core: EventCore) -> None:
    await core.bus.emit("x", 1, context=caller("user:a", tenant="acme"))
    assert await core.bus.find("x", future=0) is None


# -- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "hits"),
    [
        ({"data.amount": 5}, True),
        ({"data.amount": 5.0}, True),
        ({"data.amount": 6}, False),
        ({"data.amount": "5"}, False),
        ({"data.flag": True}, True),
        ({"data.flag": 1}, False),
        ({"data.items.1.id": "b"}, True),
        ({"data.items.2.id": "b"}, False),
        ({"data.nothing": None}, False),
        ({"data.null": None}, True),
        ({"data.amount.deeper": 1}, False),
        ({"data.amount": 5, "key": "k"}, True),
        ({"data.amount": 5, "key": "other"}, False),
        ({"data.items": [{"id": "a"}, {"id": "b"}]}, True),
        ({}, True),
    ],
)
async def test_where_as_a_mapping(core: EventCore, where: Any, hits: bool) -> None:
    got: list[Event] = []

    async def handler(event: Event) -> None:
        got.append(event)

    core.bus.subscribe("order", handler, where=where)
    data = {"amount": 5, "flag": True, "items": [{"id": "a"}, {"id": "b"}], "null": None}
    await core.bus.emit("order", data, key="k")
    await core.drain()
    assert bool(got) is hits


@pytest.mark.parametrize("where", [{"amount": 5}, {"data_.x": 1}, {"key.x": 1}, {"raw": b""}, "data.amount == 5", 5])
async def test_a_filter_that_could_never_match_is_refused(core: EventCore, where: Any) -> None:
    with pytest.raises(InvalidInput):
        core.bus.subscribe("order", lambda event: None, where=where)
