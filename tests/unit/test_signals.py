"""The in-process tap."""

from __future__ import annotations

from typing import Any

import anyio
import blinker
import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import InvalidName
from eventcore.kernel.event import Event

pytestmark = pytest.mark.anyio


async def test_receivers_run_in_order_after_the_commit(core: EventCore) -> None:
    order: list[Any] = []

    def receiver(name: int) -> Any:
        async def later(sender: str, event: Any) -> None:
            order.append((name, sender, (await core.history.get(event.id)).position > 0))

        def at_once(sender: str, event: Any) -> None:
            order.append((name, sender, event.position > 0))

        return later if name % 2 else at_once

    for number in range(6):
        core.signals.order_created.connect(receiver(number))
    await core.bus.emit("order_created")
    await core.drain()
    assert order == [(number, "default", True) for number in range(6)]


async def test_a_receiver_that_raises_disturbs_nobody(core: EventCore) -> None:
    got: list[str] = []

    def broken(sender: str, event: Any) -> None:
        raise ValueError("no")

    core.signals.x.connect(broken)
    core.signals.x.connect(lambda sender, event: got.append(event.type))
    for _ in range(3):
        await core.bus.emit("x")
    await core.drain()
    assert got == ["x"] * 3


async def test_lambdas_live_and_disconnect_works(core: EventCore) -> None:
    got: list[str] = []
    signal = core.signals.signal("my-plugin.done")
    assert isinstance(signal, blinker.Signal)
    tap = signal.connect(lambda sender, event: got.append(event.type))
    await core.bus.emit("my-plugin.done")
    await core.drain()
    signal.disconnect(tap)
    await core.bus.emit("my-plugin.done")
    await core.drain()
    assert got == ["my-plugin.done"]


async def test_a_receiver_may_ask_for_one_tenant(core: EventCore) -> None:
    got: list[Any] = []
    core.signals.x.connect(lambda sender, event: got.append(sender), sender="acme")
    await core.bus.emit("x")
    await core.bus.emit("x", context=caller("user:a", tenant="acme"))
    await core.drain()
    assert got == ["acme"]


async def test_what_a_receiver_emits_has_the_event_as_its_cause(core: EventCore) -> None:
    async def again(sender: str, event: Any) -> None:
        await core.bus.emit("y")

    core.signals.x.connect(again)
    receipt = await core.bus.emit("x")
    await core.drain()
    [effect] = [event async for event in core.history.query(type="y")]
    assert (effect.causation_id, effect.hops, effect.actor) == (receipt.id, 1, "tap")


async def test_a_tap_that_feeds_itself_ends(core: EventCore) -> None:
    async def again(sender: str, event: Any) -> None:
        await core.bus.emit("x")

    core.signals.x.connect(again)
    await core.bus.emit("x")
    with anyio.fail_after(15):
        await core.drain()
    assert len([event async for event in core.history.query(type="x")]) <= 4


async def test_names(core: EventCore) -> None:
    assert core.signals.workflow_started is core.signals.signal("workflow.started")
    with pytest.raises(InvalidName):
        core.signals.signal("No Name")
    with pytest.raises(AttributeError):
        _ = core.signals._private


async def test_a_receiver_that_hangs_is_cut_off_and_the_next_ones_hear(
    core: EventCore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[int] = []

    async def hangs(sender: str, event: Event) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr("eventcore.bus.signals.RECEIVER_SECONDS", 0.02)
    core.signals.x.connect(hangs)
    core.signals.x.connect(lambda sender, event: got.append(event.data))
    with anyio.fail_after(10):
        for number in range(3):
            await core.bus.emit("x", number)  # and no commit waits for it
        await core.drain()
    assert got == [0, 1, 2]
    assert "a receiver of the signal x ran over its 0.02 s and was cut off" in caplog.text
