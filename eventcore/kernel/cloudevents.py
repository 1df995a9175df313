"""CloudEvents 1.0 in JSON: our events as others read them, and theirs as we keep them.

Pure translation, after the CloudEvents specification 1.0.2 and its JSON event format. Extension attributes that mean
something here: `correlationid`, `causationid`, `partitionkey` (our key), `traceparent`, and our own `actor`, `run`,
`idempotencykey` and `schemaversion`. Whatever else comes in is kept in `Event.extensions` and goes out again.

What comes from outside decides neither for whom nor on whose behalf something happens: `tenant`, `actor`, `hops` and
`path` are not taken from it. `actor`, `run`, `idempotencykey` and `schemaversion` are handed over as claims; only an
import of history believes them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from eventcore.kernel.errors import InvalidPayload
from eventcore.kernel.event import IMPORTED, Event
from eventcore.kernel.json import encode
from eventcore.kernel.names import ALIASES, CORE_EVENTS, MAX_NAME, event_type, is_event_type, is_hook_event

#: Media types of the JSON format: one event, and a batch (an array) of them.
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
#: The longest id of a foreign event, in characters.
MAX_ID = 256
#: The most that all attributes without a field here may take, in bytes of JSON.
MAX_EXTENSIONS = 16 * 1024

#: Types of others that would be the host's own here get this in front.
_FOREIGN = "external."
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_MAX_WORD = 1024
#: Attributes that say on whose behalf, or what the host makes of an event: never from outside.
_HOST_ONLY = frozenset({"tenant", "hops", "path", "position", "roles", IMPORTED})
#: Our field of each attribute that has one.
_FIELDS = {
    "subject": "subject",
    "partitionkey": "key",
    "correlationid": "correlation_id",
    "causationid": "causation_id",
    "traceparent": "traceparent",
}
_CLAIMS = {"actor": "actor", "run": "run", "idempotencykey": "idempotency_key", "schemaversion": "schema_version"}
_CONTENT = ("datacontenttype", "dataschema")
#: In the extensions: the payload is `{"data_base64": text}` and stands for bytes. No attribute can have this name.
_BASE64 = "data_base64"
_OWN = frozenset({"specversion", "id", "source", "type", "time", "data", _BASE64, *_CONTENT, *_FIELDS, *_CLAIMS})


@dataclass(frozen=True, slots=True)
class Incoming:
    """A foreign event, checked, before it is one of ours.

    Attributes:
        type: in our grammar; `ce_type` is the original where that differs.
        at: when it happened, in seconds since the epoch; None if it does not say.
        extensions: attributes that have no field here.
        claims: what it says of actor, run, idempotency key and schema version; for imports of history only.
    """

    id: str
    source: str
    type: str
    ce_type: str | None = None
    at: float | None = None
    subject: str | None = None
    key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    data: Any = None
    extensions: dict[str, Any] | None = None
    claims: dict[str, Any] = field(default_factory=dict)


def to_cloudevent(event: Event) -> dict[str, Any]:
    """The event as a CloudEvent in structured JSON. Tenant, hops and path stay here."""
    extensions = event.extensions or {}
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.ce_type or event.type,
        "time": event.time.isoformat().replace("+00:00", "Z"),
    }
    body.update((name, value) for name, value in extensions.items() if name != _BASE64)
    body.update((name, value) for name, ours in _FIELDS.items() if (value := getattr(event, ours)))
    body.update((name, value) for name, ours in _CLAIMS.items() if (value := getattr(event, ours)) not in (None, 1))
    if event.idempotency_key == id_key(event.id):
        del body["idempotencykey"]
    if extensions.get(_BASE64):
        body["data_base64"] = event.data[_BASE64]
    elif event.data is not None:
        body.setdefault("datacontenttype", "application/json")
        body["data"] = event.data
    return body


def id_key(event_id: str) -> str:
    """The idempotency key that a foreign id stands for; cannot be mistaken for a publisher's own key."""
    return f"id:{event_id}"


def is_cloudevent(value: Any) -> bool:
    """Whether a JSON value says that it is a CloudEvent."""
    return isinstance(value, Mapping) and "specversion" in value


def from_cloudevent(body: Any, *, host: bool = False) -> Incoming:
    """The parts of a CloudEvent.

    Args:
        body: the JSON object of one event.
        host: types of the host keep their names, as in an import of history.

    Raises:
        InvalidPayload: it is no CloudEvent 1.0; names the attribute.
    """
    if not isinstance(body, Mapping):
        raise InvalidPayload(f"a CloudEvent is a JSON object, not {type(body).__name__}")
    if body.get("specversion") != "1.0":
        raise InvalidPayload(f"specversion is {body.get('specversion')!r:.40}", hint="only CloudEvents 1.0 are read")
    extensions = _extensions(body)
    data = _data(body, extensions)
    if extensions:
        encode(extensions, limit=MAX_EXTENSIONS, what="the extension attributes")
    given = _word(body, "type", required=True)
    type_ = event_type(given) if host and is_event_type(given) else mapped_type(given)
    return Incoming(
        id=_word(body, "id", MAX_ID, required=True),
        source=_word(body, "source", required=True),
        type=type_,
        ce_type=None if type_ == given else given,
        at=_time(body.get("time")),
        data=data,
        extensions=extensions or None,
        claims=_claims(body),
        **{ours: _word(body, name) or None for name, ours in _FIELDS.items()},
    )


def mapped_type(given: str) -> str:
    """A foreign type in our grammar: lower case, other characters as `-`, and never a name of the host.

    `com.example.OrderCreated` becomes `com.example.ordercreated`; `workflow_started` becomes
    `external.workflow_started`. A type that is too long keeps its beginning and gets a hash.
    """
    name = given
    if not is_event_type(name):
        parts = [re.sub(r"[^a-z0-9_-]+", "-", part).strip("-_") for part in re.split(r"[./]+", given.lower())]
        name = ".".join(part for part in parts if part)
        if not is_event_type(name):
            name = _FOREIGN + (name or "event")
    if name in CORE_EVENTS or name in ALIASES or is_hook_event(name):
        name = _FOREIGN + name
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(given.encode()).hexdigest()[:16]
        name = f"{name[: MAX_NAME - 17].rstrip('.-_')}-{digest}"
    return name


def _word(body: Mapping[str, Any], name: str, longest: int = _MAX_WORD, *, required: bool = False) -> str:
    value = body.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or not value or len(value) > longest:
        found = "missing" if name not in body else f"{value!r:.60}"
        raise InvalidPayload(f"{name} of a CloudEvent is text of 1 to {longest} characters; it is {found}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidPayload(f"{name} holds a lone surrogate, which is not text") from None
    return value


def _time(value: Any) -> float | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError
        return at.timestamp()
    except (TypeError, ValueError, OverflowError):
        raise InvalidPayload(f"time is an RFC 3339 instant like 2026-01-31T12:00:00Z, not {value!r:.60}") from None


def _extensions(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in body.items():
        if name in _OWN or name in _HOST_ONLY or value is None:
            continue
        if not _ATTRIBUTE.fullmatch(name):
            raise InvalidPayload(f"{name!r:.60} is no attribute of a CloudEvent", hint="lower case letters and digits")
        if not isinstance(value, str | bool | int):
            raise InvalidPayload(f"the attribute {name} is text, a whole number or a boolean, not {value!r:.60}")
        found[name] = value
    found.update((name, text) for name in _CONTENT if (text := _word(body, name)))
    # Said of every payload that is JSON, and put back on the way out.
    if found.get("datacontenttype") == "application/json":
        del found["datacontenttype"]
    return found


def _data(body: Mapping[str, Any], extensions: dict[str, Any]) -> Any:
    """The payload. Bytes are kept as their base64 text, so that what goes out is what came in."""
    if _BASE64 not in body or body[_BASE64] is None:
        return body.get("data")
    if body.get("data") is not None:
        raise InvalidPayload("a CloudEvent has data or data_base64, not both")
    text = body[_BASE64]
    try:
        base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidPayload("data_base64 is not base64") from None
    extensions[_BASE64] = True
    return {_BASE64: text}


def _claims(body: Mapping[str, Any]) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    for name, ours in _CLAIMS.items():
        value = body.get(name)
        if value is None:
            continue
        if name != "schemaversion":
            claims[ours] = _word(body, name)
        elif isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            claims[ours] = value
        else:
            raise InvalidPayload(f"{name} is a whole number above 0, not {value!r:.60}")
    return claims
