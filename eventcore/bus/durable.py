"""A durable subscription: its place is kept in the store, and it reads on from there.

One task a lane. While it keeps up, events come straight from the commit that recorded them; when it falls behind, or
begins, it reads them from the store. The rules of order, retry and cursor are `eventcore.bus.ledger`'s; this file calls
the handler and writes down what came of it. Plain acknowledgements are gathered while one commit is under way; one with
staged effects is a commit of its own, in which the event's `settled` row stands beside the effects.
"""

from __future__ import annotations

import logging
from typing import Any

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.acks import DeliveryContext, Durable
from eventcore.bus.attempt import ACK, Interruptions, attempt
from eventcore.bus.books import Books
from eventcore.bus.filters import selects
from eventcore.bus.host import AGAIN, LEASE, Host
from eventcore.bus.ledger import Ack, Bury, Changes, Failed, Item, Ledger, Park, Verdict, decide
from eventcore.bus.outcome import Outcome
from eventcore.bus.staging import Staging
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import Conflict, EventCoreError
from eventcore.kernel.event import Event
from eventcore.kernel.records import Batch, Cursor, CursorHeld, DeadLetter, EventQuery, KeyAbsent

log = logging.getLogger("eventcore.bus")

#: How far the log may run ahead of the cursor of a subscription that none of it is for.
LAG = 1000
_PAGE = 500
_CLOSING = 5.0


class DurableSubscription(Subscription):
    """A subscription that misses nothing. Made by `Bus.subscribe(..., durable=Durable(...))`.

    Attributes:
        durable: how it was asked for.
        stored: the name of its cursor, which with the tenant is its identity over restarts.
        begun: the log's last position when it was subscribed.
    """

    def __init__(self, *, durable: Durable, ordered: bool, stored: str, host: Host, **common: Any) -> None:
        super().__init__(**{**common, "overflow": "drop_newest"})
        self.overflow = "spill"  # to the outside: it reads on from the store, so no emit waits for it
        self.durable, self.stored, self.begun = durable, stored, host.seen
        self._ordered, self._host = ordered, host
        self._concurrency = common["concurrency"]
        self._ledger: Ledger | None = None
        self._events: dict[int, Event] = {}
        self._caught_up = self._reading = self._standby = self._started = False
        self._working = self._fence = 0
        self._interruptions = Interruptions(self._events)
        self._bell = anyio.Event()
        self._opened, self.closed = anyio.Event(), anyio.Event()
        #: The subscription of the same place that was there before, in this engine; it has to finish first.
        self.after: DurableSubscription | None = None
        self._books = Books(self.tenant, stored, host, self.wake)
        self._scope: anyio.CancelScope | None = None
        self._tasks: TaskGroup | None = None

    # -- what the dispatcher sees ------------------------------------------------------------------------------------

    @property
    def lane(self) -> None:
        """`offer` decides."""
        return

    @property
    def backlog(self) -> int:
        """How many events are in hand."""
        return self._ledger.in_hand if self._ledger else 0

    @property
    def full(self) -> bool:
        return False

    def wants(self, event: Event) -> bool:
        """As any subscription; but an event whose filter fails is taken in hand, so that the failure can be retried."""
        try:
            return super().wants(event)
        except Exception:  # noqa: BLE001 - it fails once more when the event is delivered, and is reported there
            return True

    def offer(self, event: Event) -> None:
        """A committed event that matches. Taken in hand if nothing before it is missing; else it is read later."""
        ledger = self._ledger
        if ledger is None or not event.position:
            return
        if not self._caught_up or ledger.room <= 0:
            self._caught_up = False
        elif ledger.admit(event.position, event.key):
            self._events[event.position] = event
        self.wake()

    def missed(self) -> None:
        """There may be events in the store that were not offered."""
        self._caught_up = False
        self.wake()

    def wake(self) -> None:
        """Look again at what there is to do."""
        if not self._bell.is_set():
            self._bell.set()

    def start(self, tasks: TaskGroup) -> None:
        """Nothing: `launch` begins, in the task group that ends first when the engine closes."""

    def launch(self, tasks: TaskGroup) -> None:
        """Begin to consume."""
        self._started = True
        tasks.start_soon(self._consume, name=f"eventcore durable {self.name}")

    def stop(self) -> None:
        """Deliver no more. The cursor stays; what is in hand comes again to whoever takes the same name."""
        self._stopped = True
        self.wake()
        if not self._started:
            self.closed.set()
        if self._scope is not None and not self._working:
            self._scope.cancel()

    @property
    def idle(self) -> bool:
        """Whether nothing can be handled now. Retries that wait for their time are at rest."""
        if not self._started or self._stopped or self._standby:
            return True
        ledger = self._ledger
        if ledger is None or self._working or self._reading or not self._books.idle:
            return False
        return not ledger.ready and (self._caught_up or ledger.room <= 0)

    @property
    def consuming(self) -> bool:
        """Whether this engine holds the subscription now."""
        return self._ledger is not None

    async def settled_in(self) -> None:
        """Return when it is known who consumes the subscription, at most five seconds later."""
        with anyio.move_on_after(_CLOSING):
            await self._opened.wait()

    # -- the task ----------------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        """Hold the subscription and deliver, until it is stopped."""
        with anyio.CancelScope() as self._scope:
            if self.after is not None:
                await self.after.closed.wait()
                self.after = None
            while not self._stopped:
                try:
                    if not await self._open():
                        await self._host.clock.sleep(LEASE / 3)
                        continue
                    await self._run()
                except EventCoreError as error:
                    log.error("%s waits: %s", self.name, error)
                    await self._host.clock.sleep(AGAIN)
                finally:
                    await self._close()
        self.closed.set()

    async def _open(self) -> bool:
        """Claim the subscription and open its books. False: another engine has it."""
        host = self._host
        cursor = await self._cursor()
        fence = await host.claim(self.tenant, self.stored)
        self._standby = fence is None
        if fence is None:
            self._opened.set()
            return False
        # Read again: until it was ours, somebody else may have moved it.
        cursor = await host.store.cursor(self.tenant, self.stored) or cursor
        rows = await host.store.deliveries(self.tenant, self.stored, 100_000)
        ahead = host.clock.monotonic() - host.clock.now()
        limit = self.durable.max_ack_pending
        ledger = Ledger(cursor.position, rows, limit=limit, ordered=self._ordered, ahead=ahead)
        self._events.clear()
        self._caught_up = False
        self._fence = fence
        self._books.open(fence)
        for position in ledger.redriven:
            event = await self._event_at(position)
            if event is None:
                self._books.later(ledger.gone(position))
            elif ledger.admit(position, event.key):
                self._events[position] = event
        self._ledger = ledger
        self._opened.set()
        return True

    async def _cursor(self) -> Cursor:
        """The stored cursor; a new one where the subscription was never there."""
        host = self._host
        found = await host.store.cursor(self.tenant, self.stored)
        if found is None:
            found = Cursor(self.tenant, self.stored, await host.first_position(self))
            await host.commit(Batch(cursors_begun=[found]), [])
        host.has_begun(self)
        return found

    async def _event_at(self, position: int) -> Event | None:
        page = await self._host.store.events(
            EventQuery(tenant=self.tenant, after=position - 1, before=position + 1, limit=1)
        )
        return page[0] if page else None

    async def _run(self) -> None:
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._books.write_on, self._lost, name=f"eventcore acks {self.name}")
            for _ in range(self._concurrency):
                self._tasks.start_soon(self._lane, name=f"eventcore durable {self.name}")

    async def _close(self) -> None:
        """Write down what is settled, and let others have the subscription if it was ended on purpose."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSING):
            try:
                if self._ledger is not None:
                    await self._books.flush()
                if self._stopped and self._fence:
                    await self._host.store.release_cursor(self.tenant, self.stored, self._fence)
            except EventCoreError as error:
                log.warning("%s: the last acknowledgements are not stored: %s", self.name, error)
        self._ledger, self._tasks = None, None

    def _lost(self) -> None:
        """Another engine has claimed the subscription: what is in hand is that one's now."""
        log.warning("%s was taken over by another engine", self.name)
        self._books.drop()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    async def _lane(self) -> None:
        ledger, clock = self._ledger, self._host.clock
        assert ledger is not None
        while not self._stopped:
            room = self._books.waiting < self.durable.max_ack_pending
            if room and (item := ledger.take(clock.monotonic())) is not None:
                self._working += 1
                try:
                    await self._handle(ledger, item)
                finally:
                    self._working -= 1
                    if self._concurrency > 1:
                        self.wake()
            elif not self._caught_up and ledger.room > 0 and not self._reading:
                await self._read_or_wait(ledger)
            else:
                self._keep_up(ledger)
                await self._wait(ledger.next_due if room else None)
        assert self._scope is not None
        if not self._working:
            self._scope.cancel()

    async def _wait(self, due: float | None) -> None:
        """Return after `wake`, or when `due` (monotonic) has come."""
        bell = self._bell = anyio.Event() if self._bell.is_set() else self._bell
        if due is None:
            await bell.wait()
            return

        async def alarm(due: float) -> None:
            await self._host.clock.sleep(max(0.0, due - self._host.clock.monotonic()))
            bell.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alarm, due)
            await bell.wait()
            tasks.cancel_scope.cancel()

    def _keep_up(self, ledger: Ledger) -> None:
        """Move the cursor over what is not for this subscription, so that it does not hold back retention for ever."""
        if self._caught_up and self._host.seen - ledger.cursor >= LAG:
            self._books.later(ledger.passed(self._host.seen))

    async def _read_or_wait(self, ledger: Ledger) -> None:
        try:
            await self._read(ledger)
        except EventCoreError as error:
            log.error("%s cannot read on: %s", self.name, error)
            await self._host.clock.sleep(AGAIN)

    async def _read(self, ledger: Ledger) -> None:
        """Read the next page from the store."""
        self._reading = True
        try:
            horizon, limit = self._host.seen, min(_PAGE, ledger.room)
            query = EventQuery(tenant=self.tenant, **selects(self.pattern), after=ledger.read, limit=limit)
            page = await self._host.store.events(query)
            for event in page:
                if self._for_us(event) and ledger.admit(event.position, event.key):
                    self._events[event.position] = event
            if len(page) < limit:
                last = page[-1].position if page else 0
                self._books.later(ledger.passed(max(horizon, last)))
                self._caught_up = self._host.seen <= ledger.read
            elif page:
                self._books.later(ledger.passed(page[-1].position))
        finally:
            self._reading = False
            self.wake()

    def _for_us(self, event: Event) -> bool:
        return not (self.pattern == "**" and event.type.startswith("bus_")) and self.wants(event)

    # -- one delivery ------------------------------------------------------------------------------------------------

    async def _handle(self, ledger: Ledger, item: Item) -> None:
        event, host = self._events[item.position], self._host
        host.faults.reach("delivery.before_call")
        staging = Staging()
        delivery = DeliveryContext(self.name, item.failed + 1, self.timeout)
        try:
            verdict, outcome = await attempt(self._bus, host, self, event, delivery, staging)
            if verdict is None and not self._stopped:
                verdict = self._interruptions.count(item.position, outcome)
            if verdict is None:
                ledger.give_back(item.position, host.clock.monotonic() + AGAIN)
            elif verdict is ACK and not staging:
                self._done(ledger, item.position)
            elif refused := await self._conclude(ledger, item, event, verdict, staging):
                outcome = Outcome(self.name, "error", outcome.seconds, error=refused.reason)
        finally:
            staging.close()
        self.handled += outcome.ok
        if not outcome.ok or event.id in self._expected:
            self._on_outcome(self, event, outcome)

    async def _conclude(
        self, ledger: Ledger, item: Item, event: Event, verdict: Verdict, staging: Staging
    ) -> Failed | None:
        """Write down the verdict; return why, if the handler ended well but its effects were refused."""
        position, now, policy = item.position, self._host.clock.now(), self.durable
        refused: Failed | None = None
        if isinstance(verdict, Ack) and staging:
            ended = await self._commit_staged(item, staging)
            if not isinstance(ended, Failed):
                if ended is None:
                    self._done(ledger, position, stored=True)
                else:
                    ledger.give_back(position, self._host.clock.monotonic())
                return None
            verdict = refused = ended
        match decide(verdict, item.failed, now, max_deliver=policy.max_deliver, backoff=policy.backoff):
            case Park(failed, due):
                self._host.metrics.count("eventcore_retries_total", subscription=self.name)
                self._books.later(ledger.park(position, failed, self._host.clock.monotonic() + due - now, due))
            case Bury(reason, attempts):
                await self._bury(ledger, item, event, reason, attempts)
            case _:
                self._done(ledger, position)
        return refused

    def _done(self, ledger: Ledger, position: int, *, stored: bool = False) -> None:
        del self._events[position]
        self._books.later(ledger.settle(position, stored=stored))

    async def _commit_staged(self, item: Item, staging: Staging) -> Failed | Ack | None:
        """Commit the effects with the acknowledgement. None: done; Failed: refused for good; Ack: deliver it again."""
        batch = Batch()
        batch.add(staging.batch)
        try:
            await self._books.settle(item.position, item.failed, batch, staging.guards)
        except Conflict as conflict:
            if isinstance(conflict.guard, CursorHeld):
                self._lost()
            # An idempotency key that somebody else used meanwhile: called again, the handler finds it used.
            if isinstance(conflict.guard, KeyAbsent | CursorHeld):
                return Ack()
            return Failed(f"its effects could not be committed: {conflict}")
        except EventCoreError as error:
            return Failed(f"its effects could not be committed: {error}")
        staging.committed = True
        return None

    async def _bury(self, ledger: Ledger, item: Item, event: Event, reason: str, attempts: int) -> None:
        host = self._host
        letter = DeadLetter(host.ids.new(), self.tenant, self.stored, item.position, reason, attempts, host.clock.now())
        data = {
            "id": letter.id,
            "subscription": self.name,
            "event": event.id,
            "type": event.type,
            "position": event.position,
            "attempts": attempts,
            "reason": reason,
        }
        batch = Batch(log=[host.notice("bus_dead_letter", data, event)], dead_letters=[letter])
        try:
            await self._books.settle(item.position, item.failed, batch, ())
        except EventCoreError as error:
            if isinstance(error, Conflict) and isinstance(error.guard, CursorHeld):
                self._lost()
            log.error("%s: the dead letter of %s cannot be stored yet: %s", self.name, event.id, error)
            ledger.give_back(item.position, host.clock.monotonic() + max(AGAIN, self.durable.backoff[-1]))
            return
        host.metrics.count("eventcore_dead_letters_total", subscription=self.name)
        self._done(ledger, item.position, stored=True)

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def redrive(self, position: int, event: Event, extra: Batch) -> None:
        """Deliver an event again, from the first attempt, and store `extra` with that decision."""
        ledger = self._ledger
        assert ledger is not None
        ledger.redrive(position, event.key)
        self._events[position] = event
        self._books.later(Changes(rows={position: ("pending", 0, 0.0)}), extra)
        self.wake()
        await self._books.stored()
