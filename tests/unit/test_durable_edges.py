"""Durable subscriptions where things overlap: what ends meanwhile, what fails in part, what never ends well."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus import admission
from eventcore.bus import durable as durable_module
from eventcore.bus import notices as notices_module
from eventcore.bus.acks import Durable
from eventcore.hooks.specs import HookSpec
from eventcore.kernel.errors import IdempotencyConflict, Interrupted
from eventcore.kernel.event import Event

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def engine() -> AsyncIterator[EventCore]:
    with anyio.fail_after(60):
        async with EventCore() as core:
            yield core


async def payloads(core: EventCore, pattern: str) -> list[Any]:
    return [event.data async for event in core.history.query(type=pattern)]


async def test_emit_many_in_a_handler_stages_all_or_none() -> None:
    async with engine() as core:
        await core.bus.emit("billed", "first", idempotency_key="k")

        async def handler(event: Event) -> None:
            with pytest.raises(IdempotencyConflict):
                await core.bus.emit_many(
                    [("billed", "before"), {"type": "billed", "data": "other", "idempotency_key": "k"}]
                )
            receipts = await core.bus.emit_many(
                [
                    {"type": "billed", "data": "twice", "idempotency_key": "new"},
                    {"type": "billed", "data": "twice", "idempotency_key": "new"},
                ]
            )
            assert [one.duplicate for one in receipts] == [False, True]
            assert receipts[0].id == receipts[1].id

        core.bus.subscribe("job", handler, name="sub", durable=Durable())
        await core.bus.emit("job")
        await core.drain()
        assert await payloads(core, "billed") == ["first", "twice"]
        assert await payloads(core, "plugin_error") == []


async def test_an_emit_that_outlives_its_handler_while_it_waits_for_room_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "BLOCK_SECONDS", 3600.0)  # it waits until there is room
    async with engine() as core, anyio.create_task_group() as tasks:
        held, receipts = anyio.Event(), list[Any]()

        async def slow(event: Event) -> None:
            await held.wait()

        full = core.bus.subscribe("late", slow, buffer=1, overflow="block", timeout=60)
        for _ in range(2):
            await core.bus.emit("late", "fills")
            await anyio.sleep(0.01)

        async def later() -> None:
            receipts.append(await core.bus.emit("late", "late"))

        async def handler(event: Event) -> None:
            # In the delivery's own context, so that its emits would be staged.
            tasks.start_soon(later)
            while not full._line:
                await anyio.sleep(0.002)

        subscription = core.bus.subscribe("job", handler, name="sub", durable=Durable())
        await core.bus.emit("job")
        while not (subscription.handled and subscription.idle):
            await anyio.sleep(0.002)
        assert receipts == []  # it still waits for room
        assert full._line
        held.set()
        await core.drain()
        while not receipts:
            await anyio.sleep(0.01)
        assert receipts[0].position is not None
        assert await payloads(core, "late") == ["fills", "fills", "late"]


async def test_an_event_that_kills_its_worker_each_time_ends_in_the_dead_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable_module, "AGAIN", 0.01)
    calls: list[str] = []

    async def handler(event: Event) -> None:
        calls.append(event.data)
        if event.data == "poison":
            raise Interrupted("the worker died with this call in it", kind="Interrupted")

    async with engine() as core:
        core.bus.subscribe("job", handler, name="sub", durable=Durable(max_deliver=2, backoff=(0.01,)))
        await core.bus.emit("job", "poison", key="k")
        await core.bus.emit("job", "fine", key="k")
        assert await core.bus.find("bus_dead_letter", future=50) is not None
        await core.drain()
        [letter] = await core.bus.dead_letters.list()
        assert "interrupted more than 3 times" in letter.reason
        assert letter.attempts == 2
        assert calls == ["poison"] * 8 + ["fine"]


async def test_what_another_engine_wrote_first_into_an_empty_log_is_not_skipped() -> None:
    async with engine() as core:
        got: list[Any] = []
        core.bus.subscribe("job", lambda event: got.append(event.data), name="sub", durable=Durable())
        await core.drain()
        room = core.bus.durables
        told, room.told = room.told, lambda entries: None  # type: ignore[method-assign]
        hand_out, core.bus._dispatch.hand_out = core.bus._dispatch.hand_out, lambda entry: None  # type: ignore[method-assign]
        await core.bus.emit("job", 1)
        room.told, core.bus._dispatch.hand_out = told, hand_out  # type: ignore[method-assign]
        room.seen = 0  # as in an engine that was opened on an empty log
        await core.bus.emit("job", 2)
        await core.drain()
        assert got == [1, 2]


async def test_notices_are_bounded_and_what_is_left_out_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices_module, "MAX_UNDER_WAY", 5)

    def broken(event: Event) -> None:
        raise ValueError("no")

    async with engine() as core:
        core.bus.declare("tick", transient=True)
        core.bus.subscribe("tick", broken)
        caplog.set_level(logging.ERROR, "eventcore.bus")
        notices = core.bus._notices
        for _ in range(20):
            notices.soon("plugin_error", {}, core.bus.context())
        assert notices._under_way == 5
        await core.drain()
        assert len(await payloads(core, "plugin_error")) == 5
        assert "15 notices were not recorded" in caplog.text


async def test_a_cancelled_call_cleans_up_after_its_wrappers() -> None:
    noted: list[str] = []

    async def wrapper(payload: Any) -> AsyncIterator[None]:
        noted.append("in")
        try:
            yield
        finally:
            await anyio.lowlevel.checkpoint()  # which, where it is cancelled, goes no further
            noted.append("out")

    async with engine() as core:
        core.hooks.declare(HookSpec("on_work", mode="wrap"))
        core.hooks.register("on_work", wrapper, owner="a")

        with anyio.CancelScope() as scope:

            async def inner(payload: Any) -> None:
                scope.cancel()
                await anyio.sleep_forever()

            await core.hooks.call("on_work", {}, inner=inner)
        assert noted == ["in", "out"]
