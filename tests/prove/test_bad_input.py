"""Bad input and bad clocks, against whole engines: each a clear error, nothing acknowledged is lost.

`make test` runs these with small counts, `make prove` with full ones. What payloads the bus refuses one by one is in
`tests/unit/test_bus_input.py`.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import EventCoreError, InvalidPayload
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Store
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore
from tests.prove.surroundings import FAST, PROVE, SEED, Work, opened, stored, until

pytestmark = [pytest.mark.anyio, pytest.mark.violent]

#: Bytes of the payload that is far too large.
LARGE = 100 * 2**20 if PROVE else 8 * 2**20
JUMPS = 2000 if PROVE else 150


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    """SQLite runs on asyncio; not in debug mode, which would keep a traceback for each task of a flood."""
    return "asyncio", {}


# -- payloads ---------------------------------------------------------------------------------------------------------


async def test_a_payload_of_a_hundred_megabytes_is_refused_everywhere(tmp_path: Path) -> None:
    text = "x" * LARGE
    body = json.dumps({"specversion": "1.0", "id": "1", "source": "/far", "type": "job", "data": text})
    async with opened(tmp_path / "e.db") as core:
        work = Work()
        work.listen(core)
        bus = core.bus
        ways: dict[str, Callable[[], Any]] = {
            "emit": lambda: bus.emit("job", text),
            "emit_many": lambda: bus.emit_many([("job", {"n": 1}), ("job", [text])]),
            "emit_and_wait": lambda: bus.emit_and_wait("job", {"deep": {"er": text}}),
            "CloudEvent": lambda: bus.emit_cloudevent(body),
            "CloudEvent as bytes": lambda: bus.emit_cloudevent(body.encode()),
            "CloudEvents": lambda: bus.emit_cloudevents(f"[{body}]"),
            "hook": lambda: core.hooks.call("on_message", {"text": text}),
        }
        for way, call in ways.items():
            # A hook's model has narrower limits of its own.
            with pytest.raises(InvalidPayload, match=r"262,144|65536") as caught:
                await call()
            assert len(str(caught.value)) < 1000, way
        with pytest.raises(InvalidPayload, match="262,144"):
            bus.emit_nowait("job", text)
        assert await stored(core, "job") == []
        await work.publish(core, each=1)
        await work.check(core)


BODY = '{"specversion": "1.0", "id": "1", "source": "/far", "type": "job", "data": %s}'
NO_JSON = {
    "NaN": BODY % "NaN",
    "infinity": BODY % "1e999",
    "huge number": BODY % ("9" * 5000),
    "surrogate": BODY % r'"\ud800"',
    "deep": BODY % ("[" * 100_000),
    "half": BODY[:40],
    "binary": os.urandom(4096) + b"\xff",
    "zeros": b"\0" * 4096,
    "empty": "",
    "wrong type": "[7]",
}


@pytest.mark.parametrize("name", NO_JSON)
async def test_what_comes_from_outside_and_is_no_event_is_refused(name: str) -> None:
    async with opened(MemoryStore()) as core:
        with pytest.raises(InvalidPayload):
            await core.bus.emit_cloudevent(NO_JSON[name])
        with pytest.raises(EventCoreError):
            await core.bus.emit_cloudevents(NO_JSON[name])
        assert await stored(core, "job") == []


WRONG: dict[str, Callable[[EventCore], Any]] = {
    "handler": lambda core: core.bus.subscribe("x", None),  # type: ignore[arg-type]
    "pattern": lambda core: core.bus.subscribe(7, print),  # type: ignore[arg-type]
    "buffer": lambda core: core.bus.subscribe("x", print, buffer="many"),  # type: ignore[arg-type]
    "concurrency": lambda core: core.bus.subscribe("x", print, concurrency=1.5),  # type: ignore[arg-type]
    "priority": lambda core: core.bus.subscribe("x", print, priority="high"),  # type: ignore[arg-type]
    "timeout": lambda core: core.bus.subscribe("x", print, timeout=float("nan")),
    "timeout text": lambda core: core.bus.subscribe("x", print, timeout="1s"),  # type: ignore[arg-type]
    "name": lambda core: core.bus.subscribe("x", print, name=7),  # type: ignore[arg-type]
    "name surrogate": lambda core: core.bus.subscribe("x", print, name="\ud800", durable=FAST),
    "tenant": lambda core: core.bus.subscribe("x", print, tenant=7),  # type: ignore[arg-type]
    "durable": lambda core: core.bus.subscribe("x", print, name="s", durable=True),  # type: ignore[arg-type]
    "entries": lambda core: core.bus.emit_many(7),  # type: ignore[arg-type]
    "entry": lambda core: core.bus.emit_many([None]),  # type: ignore[list-item]
    "type": lambda core: core.bus.emit(b"x"),  # type: ignore[arg-type]
    "target": lambda core: core.bus.request(7),  # type: ignore[arg-type]
    "params": lambda core: core.bus.request("x", 7),  # type: ignore[arg-type]
    "wait": lambda core: core.bus.emit_and_wait("x", timeout="1s"),  # type: ignore[arg-type]
    "history type": lambda core: stored(core, 7),  # type: ignore[arg-type]
    "history where": lambda core: anext(core.history.query(where=7)),  # type: ignore[arg-type]
    "history since": lambda core: anext(core.history.query(since="x")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
async def test_arguments_of_a_wrong_type_are_refused_where_they_are_given(name: str) -> None:
    """Not later, in somebody else's emit."""
    async with opened(MemoryStore(), 60) as core:
        got: list[Any] = []
        core.bus.subscribe("x", lambda event: got.append(event.data), priority=1)

        async def call() -> None:
            result = WRONG[name](core)
            if hasattr(result, "__await__"):
                await result

        with pytest.raises(EventCoreError):
            await call()
        await core.bus.emit_and_wait("x", 1)
        assert got == [1]
        assert len(core.bus.subscriptions()) == 1


# -- a clock that jumps -----------------------------------------------------------------------------------------------


class JumpyClock(SystemClock):
    """The system's clock, whose wall time somebody sets; monotonic time goes on."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:  # type: ignore[override]
        return SystemClock.now() + self.offset


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "e.db")


YEAR = 365 * 86400.0


async def test_a_clock_that_jumps(store: Store) -> None:
    """Ids and positions ascend, nothing is lost or handled out of order, every delivery is tried again in good time."""
    dice, clock = random.Random(SEED), JumpyClock()
    print(f"EVENTCORE_SEED={SEED}", file=sys.stderr)
    handled: dict[int, list[int]] = {key: [] for key in range(3)}
    failed: set[int] = set()
    async with opened(store, clock=clock) as core:

        async def take(event: Event) -> None:
            number = event.data["n"]
            if number % 5 == 0 and number not in failed:
                failed.add(number)
                raise ValueError("not the first time")
            handled[number % 3].append(number)

        core.bus.subscribe("job", take, name="taker", durable=FAST)
        receipts = []
        for number in range(JUMPS):
            clock.offset = dice.choice((0.0, 1.0, -1.0, 3600.0, -3600.0, 40.0, -40.0, YEAR, -10 * YEAR, 10 * YEAR))
            receipts.append(await core.bus.emit("job", {"n": number}, key=str(number % 3)))
        with anyio.fail_after(90):
            await until(lambda: sum(map(len, handled.values())) == JUMPS)
        assert handled == {key: list(range(key, JUMPS, 3)) for key in range(3)}, "each once, in the order of its key"
        found = await stored(core, "job")
    assert [event.id for event in found] == [one.id for one in receipts]
    for field in ("id", "position"):
        values = [getattr(event, field) for event in found]
        assert all(before < after for before, after in pairwise(values)), field


@pytest.mark.parametrize("back", [3600.0, YEAR])
async def test_setting_the_clock_back_does_not_make_a_retry_wait_longer(store: Store, back: float) -> None:
    clock = JumpyClock()
    async with opened(store, 60, clock=clock) as core:
        tries: list[float] = []

        async def take(event: Event) -> None:
            tries.append(clock.monotonic())
            if len(tries) == 1:
                clock.offset = 0.0
                raise ValueError("once more")

        clock.offset = back
        core.bus.subscribe("job", take, name="taker", durable=Durable(backoff=(0.2,)))
        await core.bus.emit("job")
        await until(lambda: bool(tries))
        clock.offset -= back
        await until(lambda: len(tries) == 2)
        assert tries[1] - tries[0] >= 0.19


async def test_runs_end_though_the_clock_jumps_while_they_wait(store: Store) -> None:
    """A stored timer waits for a time of day: set back, it waits until that time comes; it never fires twice."""
    dice, clock = random.Random(SEED), JumpyClock()
    calls: Counter[str] = Counter()
    async with opened(store, clock=clock) as core:

        @core.intent("note")
        async def note(params: dict[str, Any]) -> None:
            calls[params["run"]] += 1

        steps = "steps: [{id: s, sleep: 30ms}, {id: n, plugin: note, with: {run: '{{ inputs.n }}'}}]"
        core.workflows.define(f"slug: wait\n{steps}")
        runs = []
        for number in range(10):
            clock.offset = dice.choice((0.0, -5.0, -3600.0, -YEAR))
            runs.append(await core.workflows.start("wait", {"n": str(number)}))
            await anyio.sleep(0.005)
        clock.offset = 0.0
        for run in runs:
            await run.result(timeout=60)
    assert calls == {str(number): 1 for number in range(10)}


async def test_a_jump_past_the_lease_hands_over_without_doing_anything_twice(store: Store) -> None:
    """Two engines on one store, one with its clock far ahead: it finds the other's claims ended. The fence decides."""
    one, other = JumpyClock(), JumpyClock()
    acknowledged: dict[str, int] = {}
    async with opened(store, clock=one) as first, opened(store, clock=other) as second:
        for core in (first, second):

            async def take(event: Event, core: EventCore = core) -> None:
                await core.bus.emit("done", event.data, idempotency_key=None)

            core.bus.subscribe("job", take, name="taker", durable=FAST)
        for number in range(60):
            other.offset = 3600.0 if number % 20 < 10 else -3600.0
            receipt = await (first if number % 2 else second).bus.emit("job", number)
            acknowledged[receipt.id] = number
            await anyio.sleep(0.002)
        other.offset = 0.0
        done: list[int] = []
        while len(done) < 60:
            done = [event.data for event in await stored(first, "done")]
            await anyio.sleep(0.02)
        # What a handler emits is committed with its acknowledgement, under the fence: once, whoever held the claim.
        assert sorted(done) == list(range(60))
        assert {event.id: event.data for event in await stored(second, "job")} == acknowledged
