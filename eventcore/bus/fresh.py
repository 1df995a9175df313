"""Events and receipts that are filled in when somebody looks.

Most who handle a transient event look at its payload and nothing else, while making the rest of the envelope (the id,
the chain of causes) takes longer than delivering it. So an event that an embedder emits outside of any handler begins
with its type, time and payload; the first look at anything else fills in the rest at once, and from then on it is an
`Event` like any other. Whoever looks, and however late, sees the same values.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from eventcore.bus.outcome import Receipt
from eventcore.kernel.context import CallContext
from eventcore.kernel.event import Event

_AT_ONCE = ("type", "at", "raw")
_DATA = "_data"
_LATER = frozenset(Event.__slots__) - {*_AT_ONCE, _DATA}

#: Makes an event of type, time and payload.
FreshEvents = Callable[[str, float, bytes], Event]


def fresh_events(new_id: Callable[[], str], source: str, context: CallContext) -> FreshEvents:
    """What makes the events that `context` emits from `source`, with no cause, subject or key.

    Args:
        new_id: makes an id; called at the first look, in whichever thread that is.
    """
    lock = threading.Lock()

    class Fresh(Event):
        """An event whose later slots are still empty. `__getattr__` is asked only for those."""

        __slots__ = ()

        def __getattr__(self, name: str) -> Any:
            if name is _DATA:  # asked for by `data`: no reason to fill in the rest
                object.__setattr__(self, name, [])
            elif name in _LATER:
                self.__whole()
            else:
                raise AttributeError(f"'Event' object has no attribute {name!r}", name=name, obj=self)
            return object.__getattribute__(self, name)

        def __whole(self) -> None:
            with lock:
                if self.__class__ is not Event:
                    _fill(self, Event(new_id(), self.type, source, self.at, self.raw, context.tenant, context.actor))

        def __eq__(self, other: object) -> bool:
            _ = self.id  # which makes it an Event, as `other` is or becomes
            return bool(other.id) and Event.__eq__(self, other) if isinstance(other, Event) else NotImplemented

        __hash__ = Event.__hash__

    def _fill(event: Event, whole: Event) -> None:
        object.__setattr__(whole, "correlation_id", whole.id)
        object.__setattr__(whole, "roles", context.roles)
        object.__setattr__(event, _DATA, event._data)  # which nobody does any more once it is an Event
        for name in _LATER:
            object.__setattr__(event, name, getattr(whole, name))
        object.__setattr__(event, "__class__", Event)

    Fresh.__qualname__ = Event.__qualname__

    # A frozen class sets its slots slowly. An unfrozen one of the same layout becomes it; see `eventcore.kernel.quick`.
    class Draft:
        __slots__ = Event.__slots__

        def __init__(self, type: str, at: float, raw: bytes) -> None:
            self.type, self.at, self.raw = type, at, raw
            self.__class__ = Fresh  # type: ignore[assignment]  # the layouts are the same

    made: FreshEvents = Draft  # type: ignore[assignment]  # what it makes is an Event when `__init__` is over
    return made


class TransientReceipt(Receipt):
    """The receipt of an event that is in no history: its id is the event's, which is made when somebody asks for it."""

    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        _keep(self, event)

    def __getattr__(self, name: str) -> Any:
        if name not in ("id", "position", "duplicate"):
            raise AttributeError(f"'Receipt' object has no attribute {name!r}", name=name, obj=self)
        values: dict[str, Any] = {"id": self._event.id, "position": 0, "duplicate": False}
        for slot, value in values.items():
            object.__setattr__(self, slot, value)
        return values[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Receipt):
            return NotImplemented
        return (self.id, self.position, self.duplicate) == (other.id, other.position, other.duplicate)

    __hash__ = Receipt.__hash__


TransientReceipt.__qualname__ = Receipt.__qualname__
_keep = TransientReceipt._event.__set__  # type: ignore[attr-defined]  # a slot, which mypy does not see
