"""The event: an immutable fact with a type."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from eventcore.kernel.context import DEFAULT_TENANT, Cause, PathEntry
from eventcore.kernel.json import decode, encode

#: The largest payload in the log, in bytes of JSON.
MAX_PAYLOAD = 256 * 1024
#: The largest payload of a type that may have blobs, in bytes of JSON.
MAX_BLOB = 8 * 1024 * 1024
#: The extension that marks imported events.
IMPORTED = "imported"

_OPTIONAL = ("subject", "key", "run", "causation_id", "traceparent", "idempotency_key", "ce_type", "extensions", "blob")


@dataclass(frozen=True, slots=True)
class Event:
    """An immutable fact.

    The payload is kept as the JSON text that was committed (`raw`) and decoded at the first look, so what a subscriber
    sees is what the store holds, whatever the publisher does with its own objects afterwards.

    Attributes:
        id: ours are UUIDv7; foreign ones any string of up to 256 characters.
        type: see `eventcore.kernel.names`.
        source: where it comes from, a URI reference such as `/host` or `/plugins/greeter`.
        at: when it happened: seconds since the Unix epoch, UTC. `time` is the same as a datetime.
        raw: the payload as JSON.
        position: its place in the history; 0 until committed.
        subject: what it is about, within the source; for a step event the step's path.
        actor: who caused it.
        key: events of one key are handled in order; None means no order is asked for.
        run: the run it belongs to.
        correlation_id: shared by everything one outside act set in motion.
        causation_id: the event that led to this one.
        hops: emits of handlers and steps between the outside act and this event.
        path: (subscriber, type, key) entries on the way; never leaves the host.
        traceparent: W3C trace context.
        idempotency_key: the publisher's key, if it gave one.
        schema_version: version of the payload's schema.
        ce_type: a foreign CloudEvents type, verbatim, where `type` had to be mapped to our grammar.
        raw_extensions: attributes of a foreign CloudEvent that have no field here, as a JSON object.
        blob: SHA-256 (hex) of a payload that is too large for the log; `data` is then a reference,
            `{"blob": <this>, "bytes": <size>}`, and `Bus.payload` gives the payload.
        body: that payload as JSON, on its way to the store; None once it is there.
        roles: the emitter's roles; what the event starts in its own commit runs with them. Host-only, never stored.
    """

    id: str
    type: str
    source: str
    at: float
    raw: bytes
    tenant: str = DEFAULT_TENANT
    actor: str = "system"
    subject: str | None = None
    key: str | None = None
    run: str | None = None
    correlation_id: str = ""
    causation_id: str | None = None
    hops: int = 0
    path: tuple[PathEntry, ...] = ()
    traceparent: str | None = None
    idempotency_key: str | None = None
    schema_version: int = 1
    position: int = 0
    ce_type: str | None = None
    raw_extensions: bytes | None = None
    blob: str | None = None
    body: bytes | None = field(default=None, repr=False, compare=False)
    roles: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    _data: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def data(self) -> Any:
        """The payload. Decoded once; shared by all who look, so do not change it."""
        if not self._data:
            self._data.append(decode(self.raw))
        return self._data[0]

    @property
    def extensions(self) -> dict[str, Any] | None:
        """Attributes of a foreign CloudEvent that have no field here; None where there are none."""
        if self.raw_extensions is None:
            return None
        found: dict[str, Any] = decode(self.raw_extensions)
        return found

    @property
    def imported(self) -> bool:
        """Whether it came with `events import`: part of the history, but never delivered and never a trigger."""
        return self.raw_extensions is not None and bool((self.extensions or {}).get(IMPORTED))

    @property
    def time(self) -> datetime:
        """When it happened, in UTC."""
        return datetime.fromtimestamp(self.at, UTC)

    def cause(self, *, hop: str | None = None) -> Cause:
        """The cause for whatever follows from this event.

        Args:
            hop: the subscriber whose own emits follow; adds a hop and an entry to the path. None: the engine's own
                consequences, which inherit both as they are.
        """
        path = self.path if hop is None else (*self.path, (hop, self.type, self.key or ""))
        return Cause(
            event=self.id,
            correlation=self.correlation_id or self.id,
            hops=self.hops + (hop is not None),
            path=path,
            run=self.run,
            traceparent=self.traceparent,
        )

    def as_dict(self) -> dict[str, Any]:
        """The event as people read it: no empty fields, nothing that is host-only."""
        body: dict[str, Any] = {
            "position": self.position,
            "id": self.id,
            "type": self.type,
            "time": self.time.isoformat().replace("+00:00", "Z"),
            "source": self.source,
            "tenant": self.tenant,
            "actor": self.actor,
            "data": self.data,
            "correlation_id": self.correlation_id,
        }
        for name in _OPTIONAL:
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if self.hops:
            body["hops"] = self.hops
        if self.schema_version != 1:
            body["schema_version"] = self.schema_version
        return body


def split(raw: bytes) -> tuple[bytes, str | None, bytes | None]:
    """A payload as an event's `raw`, `blob` and `body`: a large one leaves only a reference in the log."""
    if len(raw) <= MAX_PAYLOAD:
        return raw, None, None
    digest = hashlib.sha256(raw).hexdigest()
    return encode({"blob": digest, "bytes": len(raw)}), digest, raw


def joined(event: Event, raw: bytes) -> Event:
    """The event with the payload that its `blob` names in the place of the reference."""
    return replace(event, raw=raw, blob=None, body=None, _data=[])


def after(event: Event, position: int) -> Event:
    """`event` as committed at `position`.

    Written by hand: `dataclasses.replace` costs six times as much, and this runs once an event.
    """
    object.__setattr__(event, "position", position)
    if event.body is not None:  # it is in the store now, and buffers may hold many events
        object.__setattr__(event, "body", None)
    return event
