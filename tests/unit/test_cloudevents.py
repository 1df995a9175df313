"""CloudEvents in and out, checked against the SDK of the CloudEvents project."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import BaseModel

from eventcore import EventCore
from eventcore.kernel.cloudevents import from_cloudevent, mapped_type, to_cloudevent
from eventcore.kernel.context import CallContext, Cause
from eventcore.kernel.errors import IdempotencyConflict, InvalidInput, InvalidPayload
from eventcore.kernel.event import Event
from eventcore.kernel.names import event_type

pytestmark = pytest.mark.anyio

MINIMAL = {"specversion": "1.0", "id": "a1", "source": "/shop", "type": "order.created"}


def sdk_text(data: Any, **attributes: Any) -> str:
    """What the SDK writes for an event."""
    event = CloudEvent({**MINIMAL, **attributes}, data)
    return JSONFormat().write(event).decode()


def sdk_read(body: dict[str, Any]) -> CloudEvent:
    event = JSONFormat().read(None, json.dumps(body))
    assert isinstance(event, CloudEvent)
    return event


# -- both ways with the SDK


async def test_what_the_sdk_writes_is_read(core: EventCore) -> None:
    when = datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)
    text = sdk_text(
        {"id": 7, "text": "Grüße"},
        type="com.Example.OrderCreated",
        time=when,
        subject="order/7",
        dataschema="https://example.org/order.json",
        datacontenttype="application/json",
        partitionkey="order-7",
        correlationid="c1",
        causationid="e0",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        custom="kept",
        number=5,
        flag=True,
    )
    receipt = await core.bus.emit_cloudevent(text)
    found = await core.history.get("a1")
    assert (receipt.id, receipt.duplicate, found.position) == ("a1", False, receipt.position)
    assert (found.type, found.ce_type) == ("com.example.ordercreated", "com.Example.OrderCreated")
    assert (found.time, found.subject, found.key) == (when, "order/7", "order-7")
    assert (found.correlation_id, found.causation_id) == ("c1", "e0")
    assert found.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert found.data == {"id": 7, "text": "Grüße"}
    extensions = {"custom": "kept", "number": 5, "flag": True, "dataschema": "https://example.org/order.json"}
    assert found.extensions == extensions

    again = sdk_read(to_cloudevent(found)).get_attributes()
    sent = sdk_read(json.loads(text)).get_attributes()
    assert again == {**sent, "actor": "operator"}
    assert sdk_read(to_cloudevent(found)).get_data() == {"id": 7, "text": "Grüße"}


@pytest.mark.parametrize(
    ("data", "kind"),
    [(None, None), ({"a": [1, None, "x"]}, None), ("plain words", "text/plain"), (b"\x00\xff bytes", "image/png")],
)
async def test_data_of_every_kind_goes_round(core: EventCore, data: Any, kind: str | None) -> None:
    await core.bus.emit_cloudevent(sdk_text(data, **({"datacontenttype": kind} if kind else {})))
    out = sdk_read(to_cloudevent(await core.history.get("a1")))
    assert out.get_data() == data
    assert out.get_datacontenttype() == (kind or ("application/json" if data else None))


async def test_a_batch_of_the_sdk(core: EventCore) -> None:
    texts = [sdk_text({"n": n}, id=f"b{n}") for n in range(5)]
    receipts = await core.bus.emit_cloudevents(f"[{','.join(texts)}]")
    assert [one.id for one in receipts] == [f"b{n}" for n in range(5)]
    assert [one.position for one in receipts] == sorted(one.position for one in receipts)
    found = [sdk_read(to_cloudevent(event)) async for event in core.history.query(source="/shop")]
    assert [one.get_data() for one in found] == [{"n": n} for n in range(5)]


async def test_our_own_events_are_valid_for_the_sdk(core: EventCore) -> None:
    await core.bus.emit("order_created", {"id": 7}, subject="s", key="k", idempotency_key="once")
    async for event in core.history.query():
        out = sdk_read(to_cloudevent(event))
        assert (out.get_id(), out.get_type(), out.get_source()) == (event.id, event.type, event.source)
        assert out.get_time() == event.time
    [event] = [event async for event in core.history.query(type="order_created")]
    body = to_cloudevent(event)
    assert (body["partitionkey"], body["idempotencykey"], body["subject"]) == ("k", "once", "s")
    assert {"tenant", "hops", "path", "position"}.isdisjoint(body)


# -- what comes from outside decides nothing


async def test_tenant_actor_hops_and_path_are_not_taken_from_outside(core: EventCore) -> None:
    seen: list[Event] = []
    core.bus.subscribe("order.created", seen.append)
    claims = {"tenant": "acme", "actor": "user:root", "hops": 99, "path": "x", "run": "r", "position": 5, "roles": "a"}
    await core.bus.emit_cloudevent({**MINIMAL, **claims, "imported": True})
    await core.drain()
    [event] = seen  # `imported` from outside would keep it from being delivered
    assert (event.tenant, event.actor, event.hops, event.path, event.run) == ("default", "operator", 0, (), None)
    assert event.extensions is None


async def test_a_caller_in_a_chain_of_causes_stays_in_it(core: EventCore) -> None:
    context = CallContext("default", "plugin:relay", cause=Cause("e0", "c0", 3, (("relay", "x", ""),)))
    await core.bus.emit_cloudevent({**MINIMAL, "correlationid": "theirs"}, context=context)
    found = await core.history.get("a1")
    assert (found.hops, found.causation_id, found.correlation_id) == (3, "e0", "theirs")


@pytest.mark.parametrize(
    ("given", "mapped"),
    [
        ("order_created", "order_created"),
        ("com.github.pull_request.opened", "com.github.pull_request.opened"),
        ("com.Example/Order Created!", "com.example.order-created"),
        ("workflow_started", "external.workflow_started"),
        ("workflow.started", "external.workflow.started"),
        ("on_message", "external.on_message"),
        ("On_Message", "external.on_message"),
        ("Workflow_Started", "external.workflow_started"),
        ("7up", "external.7up"),
        ("Ünïcode", "external.n-code"),
        ("日本", "external.event"),
    ],
)
def test_types_are_mapped_to_the_grammar(given: str, mapped: str) -> None:
    assert mapped_type(given) == mapped
    assert event_type(mapped) == mapped


def test_long_types_stay_apart() -> None:
    names = {mapped_type("com." + "x" * 300 + end) for end in "ab"}
    assert len(names) == 2
    assert all(event_type(name) for name in names)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": "x" * 257}, "id"),
        ({"id": 7}, "id"),
        ({"source": None}, "source"),
        ({"type": ""}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-01-31T12:00:00"}, "time"),
        ({"subject": 5}, "subject"),
        ({"Custom": "x"}, "Custom"),
        ({"custom": {"a": 1}}, "custom"),
        ({"custom": 1.5}, "custom"),
        ({"custom": "x" * 20_000}, "extension"),
        ({"data": 1, "data_base64": "AA=="}, "data_base64"),
        ({"data_base64": "no base64!"}, "data_base64"),
        ({"schemaversion": 0}, "schemaversion"),
        ({"subject": "\ud800"}, "subject"),
        ({"data": "x" * 300_000}, "262,144"),
    ],
)
async def test_what_is_no_cloudevent_is_refused_by_name(core: EventCore, change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidPayload, match=named):
        await core.bus.emit_cloudevent({**MINIMAL, **change})
    assert [event async for event in core.history.query(source="/shop")] == []


@pytest.mark.parametrize("body", [[], "text", 7, None])
def test_what_is_no_object_is_refused(body: Any) -> None:
    with pytest.raises(InvalidPayload):
        from_cloudevent(body)


async def test_a_batch_with_a_bad_event_records_nothing(core: EventCore) -> None:
    with pytest.raises(InvalidPayload):
        await core.bus.emit_cloudevents([MINIMAL, {**MINIMAL, "id": ""}])
    with pytest.raises(InvalidPayload, match="array"):
        await core.bus.emit_cloudevents(json.dumps(MINIMAL))
    assert [event async for event in core.history.query(source="/shop")] == []


# -- once


async def test_the_same_id_of_the_same_source_is_recorded_once(core: EventCore) -> None:
    body = {**MINIMAL, "data": {"n": 1}}
    first = await core.bus.emit_cloudevent(body)
    again = await core.bus.emit_cloudevent(body)
    assert (again.id, again.position, again.duplicate) == (first.id, first.position, True)
    elsewhere = await core.bus.emit_cloudevent({**body, "source": "/other"})
    assert not elsewhere.duplicate
    assert elsewhere.position > first.position
    repeated = await core.bus.emit_cloudevent({**body, "source": "/other"})
    assert repeated.position == elsewhere.position, "the receipt is that of its own source"
    with pytest.raises(IdempotencyConflict):
        await core.bus.emit_cloudevent({**body, "data": {"n": 2}})
    # A publisher's own key of the same text is another thing.
    own = await core.bus.emit("order.created", {"n": 3}, source="/shop", idempotency_key="a1")
    assert not own.duplicate
    batch = await core.bus.emit_cloudevents([body, {**MINIMAL, "id": "new"}, body])
    assert [one.duplicate for one in batch] == [True, False, True]


# -- models and versions


class Order(BaseModel):
    amount: int
    currency: str


def with_currency(data: Any) -> Any:
    return {**data, "currency": "EUR"}


def in_cents(data: Any) -> Any:
    return {**data, "amount": data["amount"] * 100}


async def test_events_of_older_versions_are_given_in_the_newest(core: EventCore) -> None:
    old = await core.bus.emit("order_created", {"amount": 5})
    core.bus.declare("order_created", model=Order, version=3, upcast={1: with_currency, 2: in_cents})
    new = await core.bus.emit("order_created", {"amount": 700, "currency": "USD"})
    found = [(event.data, event.schema_version) async for event in core.history.query(type="order_created")]
    assert found == [({"amount": 500, "currency": "EUR"}, 3), ({"amount": 700, "currency": "USD"}, 3)]
    assert (await core.history.get(old.id)).data["amount"] == 500
    [root] = (await core.history.tree(old.id)).roots
    assert root.event.data["currency"] == "EUR"
    stored = await core.engine.store.event(old.id)
    assert stored is not None
    assert (stored.data, stored.schema_version) == ({"amount": 5}, 1), "what is stored stays as it was"
    assert (await core.history.get(new.id)).as_dict()["schema_version"] == 3


async def test_a_cloudevent_of_an_older_version_is_checked_in_the_newest(core: EventCore) -> None:
    core.bus.declare("order.created", model=Order, version=2, upcast={1: with_currency})
    await core.bus.emit_cloudevent({**MINIMAL, "data": {"amount": 5}, "schemaversion": 1})
    assert (await core.history.get("a1")).data == {"amount": 5, "currency": "EUR"}
    with pytest.raises(InvalidPayload, match="currency"):
        await core.bus.emit_cloudevent({**MINIMAL, "id": "a2", "data": {"amount": 5}})


async def test_an_upcast_that_fails_names_the_event(core: EventCore) -> None:
    receipt = await core.bus.emit("order_created", {})
    core.bus.declare("order_created", version=2, upcast={1: in_cents})
    with pytest.raises(InvalidPayload, match="upcast from version 1 failed: KeyError") as caught:
        await core.history.get(receipt.id)
    assert caught.value.details["event"] == receipt.id


@pytest.mark.parametrize("upcast", [{1: in_cents}, {2: in_cents}, {1: in_cents, 2: in_cents, 3: in_cents}])
async def test_upcasts_lead_to_the_version_one_by_one(core: EventCore, upcast: Any) -> None:
    with pytest.raises(InvalidInput, match="each version from 1 to 2"):
        core.bus.declare("order_created", version=3, upcast=upcast)
