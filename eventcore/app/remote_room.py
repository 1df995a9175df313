"""What the rooms of an engine in another process share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from eventcore.home.control import ControlClient
from eventcore.kernel.errors import RemoteError
from eventcore.kernel.event import Event
from eventcore.kernel.json import encode

#: How much longer than the engine's own limit we wait for its answer, in seconds.
SLACK = 5.0


class Room:
    """A room of the running engine. What it does not have says why."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise not_here(f"{type(self).__name__.removeprefix('Remote').lower()}.{name}")


def not_here(what: str) -> RemoteError:
    """The error for what cannot be carried over a socket."""
    return RemoteError(
        f"{what} needs the engine's own process, and another one owns this home",
        hint="put the code into a hook file or a plugin of the home, or stop the running engine first",
    )


def plain(value: Any) -> Any:
    """A time as operations take it; anything else as it is."""
    if isinstance(value, datetime):
        return value.timestamp()
    return f"{value.total_seconds():.3f}s" if isinstance(value, timedelta) else value


def event_of(body: Mapping[str, Any]) -> Event:
    """The event that `Event.as_dict` made `body` of."""
    return Event(
        id=body["id"],
        type=body["type"],
        source=body["source"],
        at=datetime.fromisoformat(body["time"]).timestamp(),
        raw=encode(body["data"]),
        tenant=body["tenant"],
        actor=body["actor"],
        subject=body.get("subject"),
        key=body.get("key"),
        run=body.get("run"),
        correlation_id=body["correlation_id"],
        causation_id=body.get("causation_id"),
        hops=body.get("hops", 0),
        traceparent=body.get("traceparent"),
        idempotency_key=body.get("idempotency_key"),
        schema_version=body.get("schema_version", 1),
        position=body["position"],
        ce_type=body.get("ce_type"),
        raw_extensions=encode(body["extensions"]) if "extensions" in body else None,
        blob=body.get("blob"),
    )
