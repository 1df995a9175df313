"""The listening half of the bus: subscribe, stream, find, and what becomes of deliveries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.acks import Durable
from eventcore.bus.arguments import check_numbers, check_subscription, one_of
from eventcore.bus.calling import name_of
from eventcore.bus.current import current_context
from eventcore.bus.delivery import Dispatcher
from eventcore.bus.durable import DurableSubscription
from eventcore.bus.durable_room import DurableRoom, stored_name
from eventcore.bus.express import Express
from eventcore.bus.filters import Where, as_filter
from eventcore.bus.fresh import fresh_events
from eventcore.bus.guard import LoopGuard
from eventcore.bus.intake import HOST
from eventcore.bus.notices import Notices
from eventcore.bus.outbox import Outbox
from eventcore.bus.outcome import Outcome
from eventcore.bus.pump import Watchdog
from eventcore.bus.signals import Signals
from eventcore.bus.stream import STREAM_SECONDS, EventStream, find_event
from eventcore.bus.subscription import OVERFLOWS, Overflow, Subscription
from eventcore.bus.tally import Tally
from eventcore.bus.types import EventTypes
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.names import canonical_pattern, did_you_mean
from eventcore.kernel.ports import Clock, Ids, Metrics, Store

OrderedBy = Literal["key", "subscription"]
ORDERS: tuple[str, ...] = get_args(OrderedBy)


class Listening:
    """Who listens; the part of `Bus` that hands out."""

    #: Durable subscriptions, and what they share.
    durables: DurableRoom

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        tenant: str,
        notices: Notices,
        outbox: Outbox,
        *,
        emit_rate: float,
    ) -> None:
        self._store, self._clock, self._ids, self._tenant = store, clock, ids, tenant
        self._operator = CallContext(tenant=tenant)
        self._notices, self._outbox = notices, outbox
        self.types = EventTypes()
        self.signals = Signals(self)
        self._guard = LoopGuard(self.types, clock, notices.loop, emit_rate)
        self._tally = Tally(metrics, lambda: self._dispatch.subscriptions, self._guard.refused, lambda: outbox.waiting)
        self._express = Express(clock, fresh_events(ids.new, HOST, self._operator), self._tally)
        self._tally.before_report = self._express.count
        self._dispatch = Dispatcher(self.signals, self._express)
        self._watchdog = Watchdog(clock)
        self._tasks: TaskGroup | None = None

    def context(self) -> CallContext:
        """The context of the call being served, or the operator's where there is none."""
        return current_context(self) or self._operator

    def subscribe(
        self,
        pattern: str,
        handler: Callable[[Event], Any],
        *,
        name: str | None = None,
        where: Where | None = None,
        allow: Callable[[Event], bool] | None = None,
        owner: str | None = None,
        tenant: str | None = None,
        priority: int = 0,
        concurrency: int = 1,
        buffer: int = 1024,
        overflow: Overflow = "block",
        timeout: float = 30.0,
        ignore_self: bool = True,
        ordered_by: OrderedBy = "key",
        durable: Durable | None = None,
    ) -> Subscription:
        """Call `handler` with every later event that matches `pattern`, in commit order.

        Args:
            pattern: a type, `workflow_*`, `my-plugin.*` or `**`.
            handler: sync (run in a thread) or async; gets the event. Its emits carry on the chain of causes.
            name: unique name; default the handler's, with a number if that is taken.
            where: a filter: a function of the event, or a mapping like `{"data.amount": 5}`, whose paths must all
                lead to equal values. A function that raises counts as a failed delivery.
            allow: the host's own check at delivery (grants).
            owner: the plugin it belongs to.
            tenant: whose events; default the engine's tenant.
            priority: higher ones are served first when an event is handed out.
            concurrency: how many events at once; above 1 the order holds within each key.
            buffer: how many events may wait.
            overflow: what happens when that many wait: `block` holds an emit back for at most one second and then
                drops, `error` refuses the emit, `drop_oldest` and `drop_newest` drop, `spill` leaves events in the
                history and reads them there later. `bus_overflow` reports it.
            timeout: seconds a handler may take.
            ignore_self: do not deliver the subscription's own emits to itself.
            ordered_by: `key`: in order within each key; `subscription`: one after the other, and for a durable one a
                retry holds back all that follow.
            durable: keep its place in the store, retry failures, and at last put the event into the dead letters. Such
                a subscription needs a `name`; `buffer` and `overflow` do not apply to it: it reads on from the store.

        Raises:
            InvalidInput: an argument is out of range, or the name is taken or missing.
        """
        check_subscription(handler, durable, {"name": name, "owner": owner, "tenant": tenant})
        check_numbers(priority, concurrency, buffer, timeout)
        one_of("overflow", overflow, OVERFLOWS)
        one_of("ordered_by", ordered_by, ORDERS)
        return self._listen(
            pattern,
            handler,
            self._dispatch.free_name(name, owner, name_of(handler)),
            durable=durable,
            ordered=ordered_by == "subscription",
            where=as_filter(where),
            allow=allow,
            owner=owner,
            tenant=tenant or self._tenant,
            priority=priority,
            concurrency=1 if ordered_by == "subscription" else concurrency,
            buffer=buffer,
            overflow=overflow,
            timeout=timeout,
            ignore_self=ignore_self,
        )

    def _listen(
        self,
        pattern: str,
        handler: Callable[[Event], Any],
        name: str,
        *,
        label: str | None = None,
        durable: Durable | None = None,
        ordered: bool = False,
        **options: Any,
    ) -> Subscription:
        kind: Callable[..., Subscription] = Subscription
        if durable is not None:
            stored = stored_name(name, options["owner"])
            kind = partial(DurableSubscription, durable=durable, ordered=ordered, stored=stored, host=self.durables)
        subscription = kind(
            name=name,
            label=label or name,
            pattern=canonical_pattern(pattern),
            handler=handler,
            clock=self._clock,
            bus=self,
            watchdog=self._watchdog,
            read=self._store.events,
            expected=self._dispatch.expected,
            on_outcome=self._on_outcome,
            on_overflow=self._on_overflow,
            **options,
        )
        self._dispatch.add(subscription)
        if isinstance(subscription, DurableSubscription):
            self.durables.add(subscription)
        elif self._tasks is not None:
            subscription.start(self._tasks)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop delivering to it. What is buffered ends as `cancelled`; doing it twice is no error.

        The place of a durable one is kept: subscribed again under the same name, it goes on from there.
        """
        if self._dispatch.remove(subscription):
            self._tally.gone(subscription)
        if isinstance(subscription, DurableSubscription):
            self.durables.remove(subscription)

    def subscriptions(self) -> list[Subscription]:
        """All live subscriptions, in order of subscription."""
        return list(self._dispatch.subscriptions)

    def _subscription(self, name: str) -> Subscription:
        tenant = self.context().tenant
        mine = {one.name: one for one in self._dispatch.subscriptions if one.tenant == tenant}
        found = mine.get(name) or self.durables.find(tenant, name)
        if found is None:
            raise NotFound(f"this engine has no subscription {name!r}{did_you_mean(name, mine)}")
        return found

    def stream(self, pattern: str, *, buffer: int = 256, where: Where | None = None) -> EventStream:
        """`async for event in bus.stream("order_*"): ...` — events from this call on.

        A reader that falls `buffer` events behind holds emits back for at most one second each and then misses
        events, which `bus_overflow` reports. Use it as an async context manager, or call `aclose`, to end it early.
        """
        return EventStream(partial(self._tap, pattern, "stream", buffer=buffer, where=where))

    async def find(
        self, pattern: str, *, where: Where | None = None, past: float = 5.0, future: float = 5.0
    ) -> Event | None:
        """The oldest event that matches, of the last `past` seconds or else of the next `future` seconds; or None.

        It listens before it looks back, so that nothing falls between the two. Transient events are found only in the
        future.

        Args:
            where: as for `subscribe`; what it raises comes out here.
            past, future: seconds; 0 looks only the other way.

        Raises:
            InvalidName: it is no pattern.
            InvalidInput: a time is below 0.
        """
        if past < 0 or future < 0:
            raise InvalidInput("past and future are seconds, at least 0")
        since = self._clock.now() - past if past else None
        tenant = self.context().tenant
        begin = partial(self._tap, pattern, "find", buffer=1024, tenant=tenant, overflow="drop_newest")
        return await find_event(self._store, canonical_pattern(pattern), tenant, as_filter(where), since, future, begin)

    def _tap(
        self,
        pattern: str,
        label: str,
        take: Callable[[Event], Any],
        *,
        buffer: int,
        where: Where | None = None,
        tenant: str | None = None,
        overflow: Overflow = "block",
    ) -> Callable[[], None]:
        """Subscribe something short-lived; what is returned ends it. All of one label are one in the metrics."""
        subscription = self._listen(
            pattern,
            take,
            f"{label}-{self._ids.new()}",
            label=label,
            where=as_filter(where),
            allow=None,
            owner=None,
            tenant=tenant or self._tenant,
            priority=0,
            concurrency=1,
            buffer=buffer,
            overflow=overflow,
            timeout=STREAM_SECONDS,
            ignore_self=True,
        )
        return partial(self.unsubscribe, subscription)

    @property
    def idle(self) -> bool:
        """Whether nothing is pending or buffered and no handler runs."""
        return self._dispatch.idle and self._outbox.idle and self._notices.idle

    async def drain(self) -> None:
        """Return when nothing is pending or buffered and no handler runs: for stopping, and for tests."""
        while not self.idle:  # noqa: ASYNC110 - pumps signal nothing when idle, to keep deliveries cheap
            await anyio.sleep(0.002)

    def _on_outcome(self, subscription: Subscription, event: Event, outcome: Outcome) -> None:
        self._tally.settled(subscription, outcome)
        self._dispatch.settled(event, outcome)
        if outcome.status in ("error", "timeout"):
            self._notices.failed(subscription, event, outcome)

    def _on_overflow(self, subscription: Subscription, event: Event) -> None:
        self._tally.overflowed(subscription)
        self._notices.overflow(subscription, event)
