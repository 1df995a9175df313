"""What a durable subscription needs of the bus that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from eventcore.bus.acks import Durable
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock, Faults, Ids, Metrics, Store
from eventcore.kernel.records import Batch, Guard

#: How long an engine holds a subscription without renewing, in seconds.
LEASE = 30.0
#: Seconds between tries of what the store refused, and before an interrupted delivery is made again.
AGAIN = 1.0


class Beginner(Protocol):
    """A durable subscription, as far as it matters where it begins."""

    name: str
    tenant: str
    stored: str
    durable: Durable
    begun: int


class Host(Protocol):
    """What a durable subscription needs of its bus."""

    store: Store
    clock: Clock
    ids: Ids
    faults: Faults
    metrics: Metrics
    owner: str
    seen: int

    async def claim(self, tenant: str, name: str) -> int | None: ...
    async def commit(self, batch: Batch, guards: Sequence[Guard]) -> int: ...
    async def first_position(self, subscription: Beginner) -> int: ...
    def has_begun(self, subscription: Beginner) -> None: ...
    def notice(self, type: str, data: dict[str, Any], cause: Event) -> Event: ...
    def newest(self, event: Event) -> Event: ...
