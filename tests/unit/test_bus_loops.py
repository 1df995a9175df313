"""The loop guard: longer dialogues, the rate of a plugin's emits, and what is no loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus.guard import LoopGuard
from eventcore.bus.types import EventTypes
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.context import MAX_TURNS, CallContext
from eventcore.kernel.errors import InvalidInput, LoopDetected, RateLimited
from eventcore.kernel.event import Event

pytestmark = pytest.mark.anyio


async def of_type(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


async def dialogue(core: EventCore) -> dict[str, int]:
    """Two handlers that answer each other's event, until they are stopped."""
    counts = {"ping": 0, "pong": 0}

    async def on_ping(event: Event) -> None:
        counts["ping"] += 1
        await core.bus.emit("pong")

    async def on_pong(event: Event) -> None:
        counts["pong"] += 1
        await core.bus.emit("ping")

    core.bus.subscribe("ping", on_ping, name="left")
    core.bus.subscribe("pong", on_pong, name="right")
    await core.bus.emit("ping")
    await core.drain()
    return counts


async def test_a_declared_type_may_have_a_longer_dialogue(core: EventCore) -> None:
    for name in ("ping", "pong"):
        core.bus.declare(name, max_turns=40)
    assert await dialogue(core) == {"ping": 40, "pong": 39}
    [notice] = await of_type(core, "bus_loop_detected")
    assert notice.data["members"] == ["left", "right"]
    assert "left handled ping 40 times" in notice.data["why"]


async def test_one_declared_side_of_a_dialogue_does_not_lengthen_the_other(core: EventCore) -> None:
    core.bus.declare("ping", max_turns=40)
    assert await dialogue(core) == {"ping": MAX_TURNS, "pong": MAX_TURNS}


@pytest.mark.parametrize("turns", [0, -1, 1001])
async def test_a_dialogue_is_bounded(core: EventCore, turns: int) -> None:
    with pytest.raises(InvalidInput, match="max_turns"):
        core.bus.declare("ping", max_turns=turns)


async def test_a_chat_bot_that_answers_a_human_a_thousand_times_is_no_loop(core: EventCore) -> None:
    async def bot(event: Event) -> None:
        await core.bus.emit("bot_answered", {"to": event.data["n"]}, key=event.key)

    async def human(event: Event) -> None:
        answered.append(event.data["to"])

    answered: list[int] = []
    core.bus.subscribe("human_said", bot, name="bot", owner="chatbot")
    core.bus.subscribe("bot_answered", human, name="human")
    for number in range(1000):
        await core.bus.emit("human_said", {"n": number}, key="one-conversation")
    await core.drain()
    assert answered == list(range(1000))
    assert await of_type(core, "bus_loop_detected") == []


# -- rate -------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def test_a_plugins_emits_are_limited_by_rate_and_reported_once_a_minute() -> None:
    notices: list[Any] = []
    clock = Clock()
    guard = LoopGuard(EventTypes(), clock, lambda data, context: notices.append(data), rate=10)

    def emit(actor: str, times: int) -> int:
        refused = 0
        for number in range(times):
            try:
                guard.check(Event(str(number), "x", "/p", 0.0, b"null", actor=actor))
            except RateLimited as error:
                refused += "noisy emits more than 10 events a second" in str(error)
        return refused

    assert emit("plugin:noisy", 25) == 5  # twice the rate at once
    clock.at += 1
    assert emit("plugin:noisy", 25) == 15
    assert emit("plugin:other", 20) == 0
    assert emit("operator", 1000) == 0
    assert [notice["members"] for notice in notices] == [["noisy"]]
    clock.at += 59.5
    assert emit("plugin:noisy", 25) == 5
    assert len(notices) == 2
    assert guard.refused == {"loop": 0, "rate": 25}
    with pytest.raises(InvalidInput):
        LoopGuard(EventTypes(), clock, lambda data, context: None, rate=0)


class Still(SystemClock):
    """One that does not go on: on a slow machine the emits of this test would be within the rate."""

    def __init__(self) -> None:
        self.monotonic = lambda: 100.0  # type: ignore[method-assign,assignment]


async def test_a_noisy_plugin_is_refused_and_the_host_is_not(anyio_backend: Any) -> None:
    plugin = CallContext(actor="plugin:noisy")
    refused = 0
    with anyio.fail_after(60):
        async with EventCore(clock=Still()) as core:
            core.bus.declare("x", transient=True)
            for _ in range(2600):
                try:
                    await core.bus.emit("x", context=plugin)
                except RateLimited:
                    refused += 1
            assert refused == 600
            plugin_events = ({"type": "x"} for _ in range(2600))
            with pytest.raises(RateLimited):
                await core.bus.emit_many([*plugin_events], context=plugin)
            await core.bus.emit("x")
            await core.drain()
            [notice] = await of_type(core, "bus_loop_detected")
            assert notice.data["members"] == ["noisy"]


# -- plugins ----------------------------------------------------------------------------------------------------------

MANIFEST = """\
name: {name}
version: 1.0.0
main: main.py
events:
  emits: [{name}_said]
permissions: [plugin_communication]
"""
CODE = """\
async def on_{other}_said(event, ctx):
    await ctx.emit("{name}_said", {{"turn": event["data"]["turn"] + 1}})
"""


def plugin(home: Path, name: str, other: str) -> None:
    folder = home / "plugins" / name
    folder.mkdir(parents=True)
    (folder / "plugin.yaml").write_text(MANIFEST.format(name=name))
    (folder / "main.py").write_text(CODE.format(name=name, other=other))


@pytest.mark.req("A14")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a home has SQLite, which runs on asyncio
async def test_two_plugins_that_answer_each_other_are_stopped(anyio_backend: Any, tmp_path: Path) -> None:
    plugin(tmp_path, "left", "right")
    plugin(tmp_path, "right", "left")
    (tmp_path / "eventcore.toml").write_text(
        '[plugins]\nenabled = ["left", "right"]\n[plugins.grants]\n'
        'left = ["plugin_communication"]\nright = ["plugin_communication"]\n'
    )
    with anyio.fail_after(60):
        async with EventCore(tmp_path) as core:
            await core.bus.emit("left_said", {"turn": 0})
            while not await of_type(core, "bus_loop_detected"):
                await anyio.sleep(0.05)
            await core.drain()
            [notice] = await of_type(core, "bus_loop_detected")
            said = await of_type(core, "*_said")
    assert notice.data["members"] == ["left.on_right_said", "right.on_left_said"]
    assert [event.data["turn"] for event in said] == list(range(2 * MAX_TURNS - 1))


async def test_a_refused_emit_raises_in_the_handler(core: EventCore) -> None:
    caught: list[BaseException] = []

    async def handler(event: Event) -> None:
        try:
            await core.bus.emit_many([("fine", 1), ("again", 1)])
        except LoopDetected as error:
            caught.append(error)

    core.bus.subscribe("again", handler, ignore_self=False)
    await core.bus.emit("again")
    await core.drain()
    assert len(caught) == 1
    assert len(await of_type(core, "fine")) == MAX_TURNS - 1
