"""The event as a plugin's subscriber gets it."""

from __future__ import annotations

from typing import Any


class Event(dict[str, Any]):
    """A JSON object whose fields can also be read as attributes: `event["data"]` is `event.data`.

    Fields that every event has: `id`, `position`, `type`, `time` (RFC 3339, UTC), `source`, `tenant`, `actor`, `data`,
    `correlation_id`. A field that this event does not have (`key`, `subject`, `run`, ...) reads as None as an
    attribute, and is a KeyError as a key.
    """

    def __getattr__(self, name: str) -> Any:
        # Names with underscores in front belong to Python's own protocols (copy, pickle, inspect).
        if name.startswith("_"):
            raise AttributeError(name)
        return self.get(name)
