"""Payloads that are too large for the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from eventcore import EventCore
from eventcore.kernel.cloudevents import to_cloudevent
from eventcore.kernel.errors import IdempotencyConflict, InvalidInput, InvalidPayload, NotFound, StoreError
from eventcore.kernel.event import MAX_BLOB, MAX_PAYLOAD, Event
from eventcore.operations.table import OPERATIONS

pytestmark = pytest.mark.anyio

LARGE = {"html": "x" * MAX_PAYLOAD}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "sqlite"])
async def core(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventCore]:
    where = {} if request.param == "memory" else {"store": f"sqlite:///{tmp_path / 'events.db'}"}
    async with EventCore(**where) as core:
        core.bus.declare("page_fetched", blobs=True)
        yield core


async def test_a_handler_gets_the_reference_and_asks_for_the_payload(core: EventCore) -> None:
    seen: list[Any] = []

    async def look(event: Event) -> None:
        seen.append((event.data, event.body, await core.bus.payload(event)))

    core.bus.subscribe("page_fetched", look)
    receipt = await core.bus.emit("page_fetched", LARGE)
    await core.bus.emit("page_fetched", {"html": "small"})
    await core.bus.drain()
    event = await core.history.get(receipt.id)
    assert event.blob is not None
    assert seen == [
        ({"blob": event.blob, "bytes": MAX_PAYLOAD + 11}, None, LARGE),
        ({"html": "small"}, None, {"html": "small"}),
    ]
    assert event.as_dict()["blob"] == event.blob


async def test_a_type_must_allow_it_and_there_is_an_end_to_it(core: EventCore) -> None:
    with pytest.raises(InvalidPayload, match="the limit is 262,144"):
        await core.bus.emit("order_created", LARGE)
    with pytest.raises(InvalidPayload, match="the limit is 8,388,608"):
        await core.bus.emit("page_fetched", "x" * MAX_BLOB)
    with pytest.raises(InvalidInput, match="transient"):
        core.bus.declare("tick", transient=True, blobs=True)
    await core.bus.emit("page_fetched", "x" * (MAX_BLOB - 2))
    assert [event.type async for event in core.history.query(type="page_*")] == ["page_fetched"]


async def test_the_same_key_with_other_contents_is_a_conflict(core: EventCore) -> None:
    first = await core.bus.emit("page_fetched", LARGE, idempotency_key="k")
    again = await core.bus.emit("page_fetched", LARGE, idempotency_key="k")
    assert (again.id, again.duplicate) == (first.id, True)
    with pytest.raises(IdempotencyConflict):
        await core.bus.emit("page_fetched", {"html": "y" * MAX_PAYLOAD}, idempotency_key="k")


async def test_a_model_checks_the_payload_and_upcasts_change_it(core: EventCore) -> None:
    class Page(BaseModel):
        html: str

    core.bus.declare("page_fetched", Page, blobs=True)
    with pytest.raises(InvalidPayload, match="html"):
        await core.bus.emit("page_fetched", {"html": ["x" * MAX_PAYLOAD]})
    receipt = await core.bus.emit("page_fetched", LARGE)
    core.bus.declare("page_fetched", version=2, upcast={1: lambda data: {**data, "status": 200}}, blobs=True)
    event = await core.history.get(receipt.id)
    assert event.data["blob"] == event.blob
    assert await core.bus.payload(event) == {**LARGE, "status": 200}


async def test_what_is_gone_or_damaged_is_said_to_be(core: EventCore) -> None:
    receipt = await core.bus.emit("page_fetched", LARGE)
    event = await core.history.get(receipt.id)
    with pytest.raises(NotFound, match="not in the store any more"):
        await core.bus.payload(replace(event, blob="0" * 64))
    with pytest.raises(StoreError, match="damaged"):
        await core.bus.payload(replace(event, body=b'"other"'))
    await core.engine.archive.prune(older_than=0, tenant="default", pattern="page_fetched")
    with pytest.raises(NotFound):
        await core.bus.payload(event)


async def test_a_cloudevent_brings_one_and_an_export_takes_one_along(core: EventCore, tmp_path: Path) -> None:
    body = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "page_fetched", "data": LARGE}
    await core.bus.emit_cloudevent(body)
    event = await core.history.get("7")
    assert event.blob is not None
    assert await core.bus.payload(event) == LARGE
    exported: list[Any] = []

    async def send(row: Any) -> None:
        exported.append(row)

    await OPERATIONS["events.export"](core.engine, send, type="page_fetched")
    assert exported[0]["data"] == LARGE
    assert to_cloudevent(event)["data"] == event.data
    async with EventCore(store=f"sqlite:///{tmp_path / 'other.db'}") as other:
        done = await OPERATIONS["events.import"](other.engine, [[1, exported[0]]])
        assert done["imported"] == 1
        assert await OPERATIONS["events.payload"](other.engine, "7") == LARGE


async def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with EventCore(store=f"sqlite:///{path}") as core:
        core.bus.declare("page_fetched", blobs=True)
        event_id = (await core.bus.emit("page_fetched", LARGE)).id
    async with EventCore(store=f"sqlite:///{path}") as core:
        assert await core.bus.payload(await core.history.get(event_id)) == LARGE


async def test_another_process_asks_the_engine_for_it(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").write_text("")
    async with EventCore(home=tmp_path) as owner, EventCore(home=tmp_path) as other:
        owner.bus.declare("page_fetched", blobs=True)
        receipt = await owner.bus.emit("page_fetched", LARGE)
        with anyio.fail_after(20):
            event = await other.history.get(receipt.id)
            assert event.blob is not None
            assert await other.bus.payload(event) == LARGE
