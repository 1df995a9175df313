"""From a committed event to the subscriptions that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio

from eventcore.bus.express import Express
from eventcore.bus.outcome import Outcome, Report
from eventcore.bus.signals import OrderedSignal, Signals
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.names import pattern as compile_pattern
from eventcore.kernel.records import JournalEntry, LogEntry

_CACHE = 4096
#: What nobody listens to fits in any number.
_PLENTY = 1_000_000


class Expectation:
    """Collects the outcomes of one event for `emit_and_wait`."""

    def __init__(self, event: Event, forget: Callable[[str], None]) -> None:
        self._event, self._forget = event, forget
        self._waiting: list[str] = []
        self._outcomes: dict[str, Outcome] = {}
        self._done = anyio.Event()
        self._handed_out = False

    def handed_out(self, names: list[str]) -> None:
        """The event has been offered to these subscriptions."""
        self._waiting, self._handed_out = names, True
        # Whoever stands in the chain of causes may be waiting for this very report: it gets the event, but later.
        waits = {who for who, _, _ in self._event.path}
        for name in names:
            if name in waits and name not in self._outcomes:
                self._outcomes[name] = Outcome(name, "skipped", error="not waited for: it led to this event")
        self._check()

    def forget(self) -> None:
        """Nobody will ask for the report."""
        self._forget(self._event.id)

    def settle(self, outcome: Outcome) -> None:
        self._outcomes[outcome.subscription] = outcome
        self._check()

    def _check(self) -> None:
        if self._handed_out and all(name in self._outcomes for name in self._waiting):
            self._done.set()

    async def report(self, timeout: float) -> Report:
        """The outcomes, in order of delivery; those that are not in after `timeout` seconds read `timeout`."""
        try:
            with anyio.move_on_after(timeout):
                await self._done.wait()
        finally:
            self._forget(self._event.id)
        late = f"not done within {timeout:g} s; the handler goes on"
        return Report(
            self._event,
            [self._outcomes.get(name) or Outcome(name, "timeout", timeout, error=late) for name in self._waiting],
        )


class Route:
    """Who listens to one type of one tenant.

    Attributes:
        listeners: by falling priority, then in order of subscription.
        lanes: the lane of each, if all take every event that there is room for; else None.
        actors: whose own events some of them ignore.
        bounded: those whose full buffer holds an emit back or refuses it.
    """

    __slots__ = ("actors", "bounded", "lanes", "listeners")

    def __init__(self, listeners: tuple[Subscription, ...]) -> None:
        self.listeners = listeners
        lanes = [lane for one in listeners if (lane := one.lane) is not None]
        self.lanes = lanes if len(lanes) == len(listeners) else None
        self.bounded = tuple(one for one in listeners if one.overflow in ("error", "block"))
        self.actors = frozenset(one.actor for one in listeners if one.ignore_self)


class Dispatcher:
    """Who listens to what. blinker signals, one a pattern with the tenant as sender, are the registry."""

    def __init__(self, signals: Signals, express: Express) -> None:
        self._signals = signals
        self._patterns: dict[str, OrderedSignal] = {}
        self._by_name: dict[str, Subscription] = {}
        self._numbers: dict[str, int] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        #: Whose outcomes somebody waits for, by event id.
        self.expected: dict[str, Expectation] = {}
        # Whatever changes who listens, or fills buffers, closes it.
        self._express = express
        signals.watch_receivers(express.close)

    # -- registry ----------------------------------------------------------------------------------------------------

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        return iter(list(self._by_name.values()))

    def free_name(self, wanted: str | None, owner: str | None, fallback: str) -> str:
        """The name a new subscription gets.

        Raises:
            InvalidInput: the wanted name is taken.
        """
        if wanted is not None:
            if wanted in self._by_name:
                raise InvalidInput(f"there is a subscription named {wanted!r} already", hint="unsubscribe it first")
            return wanted
        base = f"{owner}.{fallback}" if owner else fallback
        if base not in self._by_name:
            return base
        # From the last number given, not from 2: ten thousand handlers of one name must not cost fifty million looks.
        number = self._numbers.get(base, 1) + 1
        while f"{base}-{number}" in self._by_name:
            number += 1
        self._numbers[base] = number
        return f"{base}-{number}"

    def add(self, subscription: Subscription) -> None:
        signal = self._patterns.setdefault(subscription.pattern, OrderedSignal(subscription.pattern))
        signal.connect(subscription, sender=subscription.tenant or OrderedSignal.ANY)
        self._by_name[subscription.name] = subscription
        self._forget_routes()

    def remove(self, subscription: Subscription) -> bool:
        """Stop delivering to it; False if it was removed before."""
        if self._by_name.pop(subscription.name, None) is None:
            return False
        signal = self._patterns[subscription.pattern]
        signal.disconnect(subscription)
        if not signal.receivers:
            del self._patterns[subscription.pattern]
        self._forget_routes()
        subscription.stop()
        return True

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._express.close()

    def listeners(self, type: str, tenant: str) -> tuple[Subscription, ...]:
        """Who listens to this type: by falling priority, then in order of subscription."""
        return self._route(type, tenant).listeners

    def bounded(self, event: Event) -> tuple[Subscription, ...]:
        """Who has to have room for this event before it is recorded."""
        return self._route(event.type, event.tenant).bounded

    def _route(self, type: str, tenant: str) -> Route:
        found = self._routes.get((type, tenant))
        if found is None:
            matching = [
                subscription
                for text, signal in self._patterns.items()
                if compile_pattern(text).fullmatch(type)
                for subscription in signal.receivers_for(tenant)
            ]
            order = {name: place for place, name in enumerate(self._by_name)}
            found = Route(tuple(sorted(matching, key=lambda one: (-one.priority, order[one.name]))))
            if len(self._routes) >= _CACHE:
                self._routes.clear()
            self._routes[type, tenant] = found
        return found

    # -- handing out -------------------------------------------------------------------------------------------------

    def expect(self, event: Event) -> Expectation:
        self._express.close()
        expectation = Expectation(event, self._forget)
        self.expected[event.id] = expectation
        return expectation

    def _forget(self, event_id: str) -> None:
        self.expected.pop(event_id, None)

    def hand_out(self, entry: LogEntry) -> None:
        """Offer a committed entry to everyone it is for."""
        event = entry.event if isinstance(entry, JournalEntry) else entry
        if event.raw_extensions is not None and event.imported:
            return
        if self._signals.heard(event.type):
            self._signals.put(event)
        listeners = self.listeners(event.type, event.tenant)
        expectation = self.expected.get(event.id) if self.expected else None
        if not listeners and expectation is None:
            return
        self._express.close()
        if expectation is not None:
            expectation.handed_out([one.name for one in listeners if self._offer(one, event)])
            return
        for one in listeners:
            self._offer(one, event)

    def hand_out_quickly(self, event: Event, *, plain: bool) -> bool:
        """Hand out an event that needs no commit, if all have room and no filter to ask; False: nothing was done.

        Args:
            plain: whether later events like it can go the express way.
        """
        route = self._route(event.type, event.tenant)
        if route.lanes is None or self.expected or event.actor in route.actors or self._signals.heard(event.type):
            return False
        room = min([one.room for one in route.listeners], default=_PLENTY)
        if room <= 0:
            return False
        for one in route.listeners:
            one.overflowing = False
        for lane in route.lanes:
            lane.put(event)
        if plain:
            self._express.open(event.type, route.lanes, room - 1)
        else:
            self._express.close()
        return True

    def reserve(self, subscription: Subscription) -> bool:
        """Keep a place in the buffer for an event that is about to be committed. False: there is none."""
        self._express.close()
        return subscription.reserve()

    def _offer(self, subscription: Subscription, event: Event) -> bool:
        """Whether the event was for this subscription (even if it then had to be dropped, or its filter failed)."""
        try:
            if not subscription.wants(event):
                return False
        except Exception as error:  # noqa: BLE001 - a broken filter is that subscription's failure alone
            subscription.filter_failed(event, error)
            return True
        subscription.offer(event)
        return True

    def wanted(self, subscription: Subscription, event: Event) -> bool:
        """Whether the event will take a place in the buffer. A filter that raises is reported when it is handed out."""
        try:
            return subscription.wants(event)
        except Exception:  # noqa: BLE001 - as in _offer
            return False

    def settled(self, event: Event, outcome: Outcome) -> None:
        """Tell who waits for this event's outcomes."""
        if self.expected and (expectation := self.expected.get(event.id)):
            expectation.settle(outcome)

    @property
    def idle(self) -> bool:
        return self._signals.idle and all(one.idle for one in self._by_name.values())
