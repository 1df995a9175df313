"""What the bus takes in: idempotency keys, and data that is no JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import EventCoreError, IdempotencyConflict, InvalidInput, InvalidPayload

pytestmark = pytest.mark.anyio


async def count(core: EventCore, type: str) -> int:
    return len([event async for event in core.history.query(type=type)])


async def test_the_same_key_again_returns_the_first_receipt(core: EventCore) -> None:
    first = await core.bus.emit("order", {"id": 1}, idempotency_key="k")
    again = await core.bus.emit("order", {"id": 1}, idempotency_key="k")
    assert (again.id, again.position, again.duplicate) == (first.id, first.position, True)
    assert not first.duplicate
    assert await count(core, "order") == 1


@pytest.mark.parametrize(("type", "data"), [("order", {"id": 2}), ("other", {"id": 1})])
async def test_the_same_key_with_something_else_is_a_conflict(core: EventCore, type: str, data: Any) -> None:
    await core.bus.emit("order", {"id": 1}, idempotency_key="k")
    with pytest.raises(IdempotencyConflict, match="'k'"):
        await core.bus.emit(type, data, idempotency_key="k")
    assert await count(core, "or*") + await count(core, "ot*") == 1


async def test_keys_belong_to_a_source_and_a_tenant(core: EventCore) -> None:
    receipts = [
        await core.bus.emit("order", 1, idempotency_key="k"),
        await core.bus.emit("order", 2, idempotency_key="k", source="/shop"),
        await core.bus.emit("order", 3, idempotency_key="k", context=caller("user:a", tenant="acme")),
    ]
    assert [one.duplicate for one in receipts] == [False] * 3


async def test_one_key_used_by_many_at_once_stores_one_event(core: EventCore) -> None:
    receipts: list[Any] = []

    async def emit() -> None:
        receipts.append(await core.bus.emit("order", {"id": 1}, idempotency_key="k"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(emit)
    assert len({one.id for one in receipts}) == 1
    assert sum(not one.duplicate for one in receipts) == 1
    assert await count(core, "order") == 1


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)

BAD = {
    "NaN": ({"a": [float("nan")]}, "nan"),
    "infinity": (float("-inf"), "inf"),
    "surrogate": ({"a": "\ud800"}, "surrogate"),
    "surrogate key": ({"\ud800": 1}, "surrogate"),
    "bytes": ({"a": {"b": b"x"}}, r"a\.b is a bytes"),
    "large": ({"a": "x" * 300 * 1024}, "307,208 bytes as JSON; the limit is 262,144"),
    "huge int": ({"a": 2**64}, "64 bits"),
    "huge negative int": ({"a": -(2**63) - 1}, "64 bits"),
    "deep": (nested(300), "nested deeper|recursion"),
    "very deep": (nested(100_000), "nested deeper|recursion"),
    "circle": (CIRCLE, "nested deeper|recursion"),
    "key that is no text": ({"a": {1: 2}}, r"a has the key 1"),
    "set": ({"a": {1}}, "a is a set"),
    "object": (object(), "is a object"),
    "subclass": ({"a": type("Text", (str,), {})("x")}, "Text"),
}


@pytest.mark.parametrize("name", BAD)
async def test_data_that_is_no_json_is_refused_and_nothing_is_stored(core: EventCore, name: str) -> None:
    data, why = BAD[name]
    with pytest.raises(InvalidPayload, match=why):
        await core.bus.emit("order", data)
    with pytest.raises(InvalidPayload):
        await core.hooks.call("on_message", {"text": "hi", "extra": data})
    assert await count(core, "order") == 0
    assert await count(core, "on_message") == 0


async def test_data_at_the_edge_is_taken(core: EventCore) -> None:
    for data in ({"a": 2**64 - 1, "b": -(2**63)}, "x" * (256 * 1024 - 2), nested(100), {"": None}, "\u0000\U0001f600"):
        receipt = await core.bus.emit("order", data)
        assert (await core.history.get(receipt.id)).data == data


async def test_the_publishers_objects_and_the_events_are_not_the_same(core: EventCore) -> None:
    data = {"items": [1]}
    seen: list[Any] = []
    core.bus.subscribe("order", lambda event: seen.append(event.data))
    await core.bus.emit("order", data)
    data["items"].append(2)
    await core.drain()
    assert seen == [{"items": [1]}]


@pytest.mark.parametrize("field", ["subject", "key", "source", "idempotency_key"])
@pytest.mark.parametrize("value", ["\ud800", 7, "x" * 5000], ids=["surrogate", "number", "long"])
async def test_words_about_an_event_are_text_of_bounded_length(core: EventCore, field: str, value: Any) -> None:
    options: dict[str, Any] = {field: value}
    with pytest.raises(InvalidInput, match=field):
        await core.bus.emit("order", {}, **options)
    assert await count(core, "order") == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_bad_emit_never_fails_its_neighbours_in_the_group(tmp_path: Path, anyio_backend: str) -> None:
    async with EventCore(store=f"sqlite:///{tmp_path}/events.db") as core:
        results: list[Any] = []

        async def emit(data: Any, subject: Any) -> None:
            try:
                results.append((await core.bus.emit("order", data, subject=subject)).position)
            except EventCoreError as error:
                results.append(type(error).__name__)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(emit, {"n": number}, "\ud800" if number % 5 == 0 else "s")
        assert sum(isinstance(one, int) for one in results) == 16
        assert await count(core, "order") == 16
