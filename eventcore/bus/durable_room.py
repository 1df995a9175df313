"""The durable subscriptions of one engine: who consumes, where new ones begin, and what wakes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.durable import DurableSubscription
from eventcore.bus.host import LEASE, Beginner
from eventcore.kernel.context import CallContext
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock, Faults, Ids, Metrics, Store
from eventcore.kernel.records import Batch, Cursor, EventQuery, Guard, JournalEntry, LogEntry

#: How many log entries go by before subscriptions that none of them is for are woken to move their cursors.
_NUDGE = 1000


class Build(Protocol):
    """Makes an event; see `Bus.build`."""

    def __call__(self, type: str, data: Any, context: CallContext) -> Event: ...


def stored_name(name: str, owner: str | None) -> str:
    """What the cursor of a subscription is called: with the tenant, its identity over restarts.

    `on_order_created` of the plugin `shop`, subscribed as `shop.on_order_created`, is `shop/on_order_created`.
    """
    return name if owner is None else f"{owner}/{name.removeprefix(f'{owner}.')}"


class DurableRoom:
    """See the module. Also a contributor to commits: where a new subscription begins goes into the very next one.

    Args:
        commit, build: those of the bus.
        newest: gives an event with its payload in the newest version of its type.
        owner: names this engine in claims; None: it consumes nothing.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: Ids,
        faults: Faults,
        metrics: Metrics,
        commit: Callable[[Batch, Sequence[Guard]], Any],
        build: Build,
        owner: str | None,
        newest: Callable[[Event], Event],
    ) -> None:
        self.store, self.clock, self.ids, self.faults, self.metrics = store, clock, ids, faults, metrics
        self.owner = owner or ids.new()
        self.newest = newest
        #: The last position of which the bus was told.
        self.seen = 0
        self._commit, self._build = commit, build
        self._by_name: dict[str, DurableSubscription] = {}
        # By tenant and stored name: who had that place last.
        self._latest: dict[tuple[str, str], DurableSubscription] = {}
        self._beginning: dict[str, Cursor] = {}
        self._tasks: TaskGroup | None = None
        self._alone = False
        self._nudged = 0

    # -- life --------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Find out where the log ends. To be called when `told` is connected already."""
        self.seen = self._nudged = max(self.seen, await self.store.last_position())

    def start(self, tasks: TaskGroup, *, alone: bool = False) -> None:
        """Begin to consume.

        Args:
            tasks: the first task group to end when the engine closes: what handlers need still works then.
            alone: no other engine can be using this store, so claims in it are those of a dead one.
        """
        self._tasks, self._alone = tasks, alone
        for subscription in self._by_name.values():
            subscription.launch(tasks)

    def add(self, subscription: DurableSubscription) -> None:
        """A subscription was made."""
        place = (subscription.tenant, subscription.stored)
        subscription.after = self._latest.get(place)
        self._latest[place] = self._by_name[subscription.name] = subscription
        if subscription.durable.deliver != "since":
            first = subscription.begun if subscription.durable.deliver == "new" else 0
            self._beginning[subscription.name] = Cursor(subscription.tenant, subscription.stored, first)
        if self._tasks is not None:
            subscription.launch(self._tasks)

    def remove(self, subscription: DurableSubscription) -> None:
        """A subscription was ended."""
        self._by_name.pop(subscription.name, None)
        self._beginning.pop(subscription.name, None)

    def __iter__(self) -> Iterator[DurableSubscription]:
        return iter(self._by_name.values())

    def find(self, tenant: str, name: str) -> DurableSubscription | None:
        """The subscription that has this name, or whose cursor has."""
        for one in self._by_name.values():
            if one.tenant == tenant and name in (one.name, one.stored):
                return one
        return None

    async def ended(self, tenant: str, name: str) -> None:
        """Wait until what was just unsubscribed here has written down where it is and given up its claim."""
        last = self._latest.get((tenant, name))
        if last is not None and last.stopped:
            with anyio.move_on_after(LEASE):
                await last.closed.wait()

    # -- commits -----------------------------------------------------------------------------------------------------

    def contribute(self, entries: Sequence[LogEntry]) -> tuple[Batch, tuple[Guard, ...]] | None:
        """An event that is acknowledged to its emitter must find every subscription begun that was made before it."""
        if not self._beginning:
            return None
        return Batch(cursors_begun=[*self._beginning.values()]), ()

    def has_begun(self, subscription: Beginner) -> None:
        """Its cursor is stored."""
        self._beginning.pop(subscription.name, None)

    def told(self, entries: Sequence[LogEntry]) -> None:
        """These entries were committed. To be called before they are handed out."""
        first, last = _position(entries[0]), _position(entries[-1])
        if first != self.seen + 1:
            # Another process writes to the same file: what it wrote was not offered to anybody here.
            for subscription in self._by_name.values():
                subscription.missed()
        self.seen = last
        if last - self._nudged >= _NUDGE:
            self._nudged = last
            for subscription in self._by_name.values():
                subscription.wake()

    # -- for subscriptions -------------------------------------------------------------------------------------------

    async def claim(self, tenant: str, name: str, owner: str | None = None, lease: float = LEASE) -> int | None:
        """Take a subscription, for `owner` (default: this engine); see `Store.claim_cursor`."""
        # As if asked when every lease has ended; the new lease ends when an ordinary one would.
        ahead = LEASE if self._alone else 0.0
        return await self.store.claim_cursor(tenant, name, owner or self.owner, self.clock.now() + ahead, lease - ahead)

    async def commit(self, batch: Batch, guards: Sequence[Guard]) -> int:
        position: int = await self._commit(batch, guards)
        return position

    def notice(self, type: str, data: dict[str, Any], cause: Event) -> Event:
        """An event of the host that follows from another."""
        return self._build(type, data, CallContext(tenant=cause.tenant, actor="system", cause=cause.cause()))

    async def first_position(self, subscription: Beginner) -> int:
        """Behind which position a subscription that was never there begins."""
        durable = subscription.durable
        if durable.deliver == "all":
            return 0
        if durable.deliver == "new" or durable.since is None:
            return subscription.begun
        since = instant(durable.since, self.clock)
        page = await self.store.events(EventQuery(tenant=subscription.tenant, since=since, limit=1))
        return min(page[0].position - 1, subscription.begun) if page else subscription.begun


def instant(when: float | datetime | timedelta, clock: Clock) -> float:
    """Seconds since the epoch; a timedelta counts back from now."""
    if isinstance(when, timedelta):
        return clock.now() - when.total_seconds()
    return when.timestamp() if isinstance(when, datetime) else when


def _position(entry: LogEntry) -> int:
    return entry.event.position if isinstance(entry, JournalEntry) else entry.position
