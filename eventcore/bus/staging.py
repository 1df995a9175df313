"""The delivery that is being served, and what its handler has done that is not committed yet.

The handler's emits and workflow starts are kept here and go into the commit that acknowledges the event; an error, a
Nak or a timeout drops them. The context variable is the module's, as context variables must be; its value names the bus
and the very call context it belongs to: what the handler calls under another context (an intent, a hook) commits at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar

from eventcore.bus.acks import DeliveryContext
from eventcore.bus.current import Deliverer, begin_delivery, served, served_now
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.records import Batch, Guard, Key

#: How many changes one delivery may stage.
MAX_STAGED = 1000


class Staging:
    """What one delivery changes if it ends well."""

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self.guards: list[Guard] = []
        self.closed = self.committed = False
        self._after: list[Callable[[], None]] = []

    @property
    def batch(self) -> Batch:
        """The changes. Made when there are any: most deliveries stage nothing."""
        if self._batch is None:
            self._batch = Batch()
        return self._batch

    def add(self, batch: Batch, guards: Iterable[Guard] = ()) -> None:
        """Keep these changes for the acknowledgement.

        Raises:
            InvalidInput: one delivery staged more than 1,000 changes, or has ended.
        """
        if self.closed:
            raise InvalidInput("the delivery has ended, so nothing can be committed with it any more")
        if len(self.batch.log) + len(self.batch.memory) + len(batch.log) + len(batch.memory) > MAX_STAGED:
            raise InvalidInput(f"one delivery may stage at most {MAX_STAGED} changes")
        self.batch.add(batch)
        self.guards.extend(guards)

    def key(self, tenant: str, scope: str, key: str) -> Key | None:
        """The idempotency key, if this delivery has staged it."""
        return next((row for row in self.batch.keys if (row.tenant, row.scope, row.key) == (tenant, scope, key)), None)

    def at_end(self, call: Callable[[], None]) -> None:
        """Call this when the changes are committed or dropped."""
        self._after.append(call)

    def seal(self) -> None:
        """The handler has ended. What its leftover tasks do from now on is committed at once."""
        self.closed = True

    def close(self) -> None:
        """Committed or dropped."""
        self.closed = True
        for call in self._after:
            call()
        self._after.clear()

    def __bool__(self) -> bool:
        return self._batch is not None and bool(self._batch)


# (owner, what `eventcore.bus.current` holds meanwhile, delivery, staging)
_Serving = tuple[object, tuple[object, ...], DeliveryContext, Staging]
_delivery: ContextVar[_Serving | None] = ContextVar("eventcore_delivery", default=None)


def _served(owner: object) -> _Serving | None:
    found = _delivery.get()
    if found is None or found[0] is not owner or served_now() is not found[1]:
        return None
    return None if found[3].closed else found


def current_delivery(owner: object) -> DeliveryContext | None:
    """The delivery that is being served for `owner` (a bus), or None outside of one."""
    found = _served(owner)
    return None if found is None else found[2]


def current_staging(owner: object) -> Staging | None:
    """Where changes made now have to go, or None: they are committed at once."""
    found = _served(owner)
    return None if found is None else found[3]


class Delivering:
    """Serve a delivery in the body. A class, not a generator: it is entered once a delivery."""

    __slots__ = ("_serving", "_tokens")

    def __init__(
        self, owner: object, deliverer: Deliverer, event: Event, delivery: DeliveryContext, staging: Staging
    ) -> None:
        self._serving: _Serving = (owner, (owner, deliverer, event), delivery, staging)

    def __enter__(self) -> None:
        self._tokens = _delivery.set(self._serving), begin_delivery(self._serving[1])

    def __exit__(self, *exc_info: object) -> None:
        delivery, token = self._tokens
        served(token)
        _delivery.reset(delivery)
