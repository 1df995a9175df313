"""Foreign events: CloudEvents as events of ours."""

from __future__ import annotations

from typing import Any

from eventcore.bus.types import EventTypes, check_word
from eventcore.kernel.cloudevents import Incoming, id_key
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidPayload
from eventcore.kernel.event import MAX_BLOB, MAX_PAYLOAD, Event, joined, split
from eventcore.kernel.json import decode, encode


def cloudevents_in(body: Any) -> list[Any]:
    """The events of a batch: a JSON array, as values or as text.

    Raises:
        InvalidPayload: it is no array, or no JSON.
    """
    batch = decode(body, what="the batch") if isinstance(body, str | bytes) else body
    if not isinstance(batch, list | tuple):
        raise InvalidPayload("a batch of CloudEvents is a JSON array", hint="use emit_cloudevent for a single one")
    return list(batch)


def received(incoming: Incoming, context: CallContext, types: EventTypes, now: float) -> Event:
    """The event that a CloudEvent from outside becomes, under `context`, not yet committed.

    Its id is kept and is its idempotency key at once: the same id of the same source is recorded once. An older schema
    version is brought up to date before the payload is checked.

    Raises:
        InvalidPayload: the type's model refuses the data, or they are too large.
    """
    cause, kind = context.cause, types.emittable(incoming.type)
    check_word("actor", context.actor)
    limit = MAX_BLOB if kind.blobs else MAX_PAYLOAD
    raw, blob, body = split(encode(incoming.data, limit=limit, what=f"the data of {kind.name}"))
    event = Event(
        id=incoming.id,
        type=kind.name,
        source=incoming.source,
        at=now if incoming.at is None else incoming.at,
        raw=raw,
        tenant=context.tenant,
        actor=context.actor,
        subject=incoming.subject,
        key=incoming.key,
        run=cause.run,
        correlation_id=incoming.correlation_id or cause.correlation or incoming.id,
        causation_id=incoming.causation_id or cause.event,
        hops=cause.hops,
        path=cause.path,
        traceparent=incoming.traceparent or cause.traceparent,
        idempotency_key=id_key(incoming.id),
        schema_version=incoming.claims.get("schema_version", kind.version),
        ce_type=incoming.ce_type,
        raw_extensions=encode(incoming.extensions) if incoming.extensions else None,
        blob=blob,
        body=body,
        roles=context.roles,
    )
    if kind.model is None:
        return event
    # The model has to see the payload, not the reference to it.
    newest = types.newest(event if body is None else joined(event, body))
    types.check(kind.name, newest.data)
    return newest if body is None else event


def imported(incoming: Incoming, tenant: str, now: float, mark: dict[str, Any]) -> Event:
    """The event that a CloudEvent of an export becomes: what it says of itself is believed, and it is marked."""
    claims = incoming.claims
    raw, blob, body = split(encode(incoming.data, limit=MAX_BLOB, what=f"the data of {incoming.type}"))
    return Event(
        id=incoming.id,
        type=incoming.type,
        source=incoming.source,
        at=now if incoming.at is None else incoming.at,
        raw=raw,
        tenant=tenant,
        actor=claims.get("actor", "system"),
        subject=incoming.subject,
        key=incoming.key,
        run=claims.get("run"),
        correlation_id=incoming.correlation_id or incoming.id,
        causation_id=incoming.causation_id,
        traceparent=incoming.traceparent,
        idempotency_key=claims.get("idempotency_key"),
        schema_version=claims.get("schema_version", 1),
        ce_type=incoming.ce_type,
        raw_extensions=encode({**(incoming.extensions or {}), **mark}),
        blob=blob,
        body=body,
    )
