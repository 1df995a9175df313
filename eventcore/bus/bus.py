"""The bus: takes facts in, commits them with whatever they start, and hands them to subscriptions.

Nothing reaches a subscription before it is committed. The bus knows nobody: what a commit must also hold (runs that an
event starts) comes from contributors, which the composition root fills in.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.calling import name_of
from eventcore.bus.current import current_context
from eventcore.bus.delivery import Dispatcher
from eventcore.bus.outcome import Outcome, Receipt, Report
from eventcore.bus.signals import Signals
from eventcore.bus.stream import STREAM_SECONDS, EventStream
from eventcore.bus.subscription import OVERFLOWS, Overflow, Subscription
from eventcore.bus.types import EventType, EventTypes, check_words
from eventcore.kernel.context import MAX_HOPS, CallContext, Cause, loop_in
from eventcore.kernel.errors import (
    BusOverflow,
    Conflict,
    EngineClosed,
    EventCoreError,
    IdempotencyConflict,
    InvalidInput,
    InvalidName,
    LoopDetected,
    WrongProcess,
)
from eventcore.kernel.event import MAX_PAYLOAD, Event
from eventcore.kernel.json import encode, text_digest
from eventcore.kernel.names import CORE_EVENTS, canonical_pattern, event_type, is_hook_event
from eventcore.kernel.ports import Clock, Contributor, Faults, Ids, Metrics, Store
from eventcore.kernel.records import Batch, Guard, Key, KeyAbsent, LogEntry

log = logging.getLogger("eventcore.bus")

#: How long idempotency keys are remembered by default, in seconds.
KEY_WINDOW = 7 * 86400.0
#: How many rounds of contributions one commit may set off.
_MAX_ROUNDS = MAX_HOPS
_BLOCK_SECONDS = 1.0


class Bus:
    """Made by the engine; reached as `core.bus`.

    Args:
        tenant: whose bus this is when no context says otherwise.
        key_window: how long idempotency keys are remembered, in seconds.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        faults: Faults,
        tenant: str,
        key_window: float = KEY_WINDOW,
    ) -> None:
        self._store, self._clock, self._ids, self._metrics, self._faults = store, clock, ids, metrics, faults
        self._tenant, self._key_window = tenant, key_window
        self.types = EventTypes()
        self.signals = Signals(self)
        self.contributors: list[Contributor] = []
        self._dispatch = Dispatcher(self.signals, metrics, self._on_outcome)
        self._tasks: TaskGroup | None = None
        self._pid = self._thread = 0

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        """Begin to deliver. The caller owns both the stack and the tasks."""
        self._tasks, self._pid, self._thread = tasks, os.getpid(), threading.get_ident()
        tasks.start_soon(self.signals.run, name="eventcore signals")
        for subscription in self._dispatch.subscriptions:
            subscription.start(tasks)
        stack.callback(self._closed)
        stack.callback(self._store.watch(self._on_commit))

    def _closed(self) -> None:
        self._tasks = None

    def check_open(self) -> None:
        """Raises EngineClosed or WrongProcess unless this bus may be used here and now."""
        if self._tasks is None:
            raise EngineClosed()
        if os.getpid() != self._pid:
            raise WrongProcess(
                "this engine was opened by another process", hint="open an engine of your own after the fork"
            )
        if threading.get_ident() != self._thread:
            raise WrongProcess(
                "this engine belongs to the event loop of another thread",
                hint="in a sync handler use anyio.from_thread.run(core.bus.emit, ...)",
            )

    # -- taking in ---------------------------------------------------------------------------------------------------

    def declare(self, type: str, model: Any = None, *, transient: bool = False) -> EventType:
        """Say what a type's payload looks like and whether it is recorded (default: any JSON, recorded)."""
        return self.types.declare(type, model, transient=transient)

    async def emit(
        self,
        type: str,
        data: Any = None,
        *,
        subject: str | None = None,
        key: str | None = None,
        source: str = "/host",
        idempotency_key: str | None = None,
        context: CallContext | None = None,
    ) -> Receipt:
        """Record a fact and return once it is committed. Subscribers are not waited for.

        Args:
            type: see `eventcore.kernel.names`; core types and `on_*` are the host's own.
            data: JSON, at most 256 KiB; or an instance of the type's model.
            subject: what the event is about, within the source.
            key: events of one key are handled in order.
            source: where it comes from, a URI reference.
            idempotency_key: the same key again, within seven days, returns the first receipt.
            context: on whose behalf; by default that of the handler this is called from, else the operator.

        Raises:
            InvalidName, InvalidPayload: the type or the data are not acceptable.
            IdempotencyConflict: the key was used for something else.
            LoopDetected: too many hops, or the same subscriber too often in the chain of causes.
            BusOverflow: a subscription with `overflow="error"` is full.
        """
        return await self.take_in(self._fact(type, data, subject, key, source, idempotency_key, context))

    async def emit_and_wait(
        self,
        type: str,
        data: Any = None,
        *,
        timeout: float = 30.0,
        subject: str | None = None,
        key: str | None = None,
        source: str = "/host",
        idempotency_key: str | None = None,
        context: CallContext | None = None,
    ) -> Report:
        """Emit, then wait until every live subscription has dealt with the event, or `timeout` seconds are over.

        Subscriptions that are not done in time are reported with status `timeout`; their handlers go on. Those that
        led to this event are not waited for (they may be waiting for this very call) and read `skipped`. If the
        idempotency key was known, nothing is delivered again and the report is empty. The other options, and what is
        raised, are those of `emit`.
        """
        event = self._fact(type, data, subject, key, source, idempotency_key, context)
        waiting = self._dispatch.expect(event)
        try:
            receipt = await self.take_in(event)
            if receipt.duplicate:
                return Report(await self._store.event(receipt.id, event.tenant) or event)
            return await waiting.report(timeout)
        finally:
            waiting.forget()

    async def announce(
        self,
        type: str,
        data: Any,
        context: CallContext,
        *,
        source: str = "/host",
        subject: str | None = None,
    ) -> Event:
        """Record an event of the host itself (a core event or a hook's)."""
        event = self.build(type, data, context, source=source, subject=subject)
        await self.commit(Batch(log=[event]))
        return event

    def build(
        self,
        type: str,
        data: Any,
        context: CallContext,
        *,
        source: str = "/host",
        subject: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
        event_id: str | None = None,
    ) -> Event:
        """An event under `context`, not yet committed. Checks the payload, not the right to emit the type."""
        raw = encode(data, limit=MAX_PAYLOAD, what=f"the data of {type}")
        check_words(source=source, subject=subject, key=key, idempotency_key=idempotency_key, actor=context.actor)
        cause: Cause = context.cause
        event_id = event_id or self._ids.new()
        return Event(
            id=event_id,
            type=type,
            source=source,
            at=self._clock.now(),
            raw=raw,
            tenant=context.tenant,
            actor=context.actor,
            subject=subject,
            key=key,
            run=cause.run,
            correlation_id=cause.correlation or event_id,
            causation_id=cause.event,
            hops=cause.hops,
            path=cause.path,
            traceparent=cause.traceparent,
            idempotency_key=idempotency_key,
            roles=context.roles,
        )

    def context(self) -> CallContext:
        """The context of the call being served, or the operator's where there is none."""
        return current_context(self) or CallContext(tenant=self._tenant)

    def _fact(
        self,
        type: str,
        data: Any,
        subject: str | None,
        key: str | None,
        source: str,
        idempotency_key: str | None,
        context: CallContext | None,
    ) -> Event:
        self.check_open()
        name = event_type(type)
        if name in CORE_EVENTS or is_hook_event(name):
            raise InvalidName(
                f"only the host emits {name}", hint="hook events come from hook calls; use a name of your own"
            )
        checked = self.types.check(name, data)
        return self.build(
            name,
            checked,
            context or self.context(),
            source=source,
            subject=subject,
            key=key,
            idempotency_key=idempotency_key,
        )

    # -- committing --------------------------------------------------------------------------------------------------

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        """Commit `batch` together with what contributors add to it. Returns the first position.

        Raises:
            Conflict: a guard does not hold; nothing is stored.
            StoreError: the store cannot write; nothing is stored.
        """
        all_guards = list(guards)
        if batch.log and self.contributors:
            self._contribute(batch, all_guards)
        return await self._store.commit(batch, all_guards)

    def _contribute(self, batch: Batch, guards: list[Guard]) -> None:
        fresh: list[LogEntry] = list(batch.log)
        for _ in range(_MAX_ROUNDS):
            added: list[LogEntry] = []
            for contributor in self.contributors:
                if contribution := contributor.contribute(fresh):
                    more, more_guards = contribution
                    batch.add(more)
                    guards.extend(more_guards)
                    added.extend(more.log)
            if not added:
                return
            fresh = added

    async def check_loop(self, event: Event) -> None:
        """Refuse an event of a handler or step that would close a causal loop, and record that.

        Raises:
            LoopDetected: too many hops, or the same subscriber too often in the chain of causes.
        """
        if event.hops and (why := loop_in(Cause(hops=event.hops, path=event.path))):
            await self._refuse_loop(event, why)

    async def take_in(self, event: Event) -> Receipt:
        """Commit an event that was made with `build`, as `emit` does: loops refused, buffers respected."""
        await self.check_loop(event)
        reserved = await self._admit(event)
        try:
            if (declared := self.types.get(event.type)) and declared.transient:
                self._dispatch.hand_out(event)
                return Receipt(event.id, 0)
            return await self._record(event)
        finally:
            for subscription in reserved:
                subscription.release()

    async def _record(self, event: Event) -> Receipt:
        batch, guards = Batch(log=[event]), list[Guard]()
        if event.idempotency_key is not None:
            key = self._key(event, event.idempotency_key)
            batch.keys.append(key)
            guards.append(KeyAbsent(key.tenant, key.scope, key.key, self._clock.now()))
        self._faults.reach("emit.before_commit")
        try:
            await self.commit(batch, guards)
        except Conflict as conflict:
            if not isinstance(conflict.guard, KeyAbsent) or event.idempotency_key is None:
                raise
            return await self._first_receipt(event, event.idempotency_key)
        self._metrics.count("eventcore_emits_total", type=event.type)
        return Receipt(event.id, event.position)

    def _key(self, event: Event, key: str) -> Key:
        # The digest covers what makes two emits the same request: the type and the exact payload.
        digest = text_digest(f"{event.type}\0{event.raw.decode()}")
        return Key(event.tenant, f"emit:{event.source}", key, digest, event.id, self._clock.now() + self._key_window)

    async def _first_receipt(self, event: Event, idempotency_key: str) -> Receipt:
        mine = self._key(event, idempotency_key)
        known = await self._store.key(mine.tenant, mine.scope, mine.key, self._clock.now())
        if known is None:
            return await self._record(event)
        if known.digest != mine.digest:
            raise IdempotencyConflict(
                f"the idempotency key {idempotency_key!r} of {event.source} belongs to event {known.ref}, "
                f"which has another type or other data"
            )
        first = await self._store.event(known.ref, event.tenant)
        return Receipt(known.ref, first.position if first else 0, duplicate=True)

    async def _refuse_loop(self, event: Event, why: str) -> None:
        members = sorted({entry[0] for entry in event.path})
        host = CallContext(
            tenant=event.tenant, actor="system", cause=Cause(event.causation_id, event.correlation_id, 0)
        )
        await self.announce("bus_loop_detected", {"type": event.type, "members": members, "why": why}, host)
        raise LoopDetected(f"{event.type} would close a loop of {', '.join(members)}: {why}")

    # -- handing out -------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        handler: Callable[[Event], Any],
        *,
        name: str | None = None,
        where: Callable[[Event], bool] | None = None,
        allow: Callable[[Event], bool] | None = None,
        owner: str | None = None,
        tenant: str | None = None,
        priority: int = 0,
        concurrency: int = 1,
        buffer: int = 1024,
        overflow: Overflow = "block",
        timeout: float = 30.0,
        ignore_self: bool = True,
    ) -> Subscription:
        """Call `handler` with every later event that matches `pattern`, in commit order.

        Args:
            pattern: a type, `workflow_*`, `my-plugin.*` or `**`.
            handler: sync (run in a thread) or async; gets the event. Its emits carry on the chain of causes.
            name: unique name; default the handler's, with a number if that is taken.
            where: a filter on the event; one that raises counts as a failed delivery.
            allow: the host's own check at delivery (grants).
            owner: the plugin it belongs to.
            tenant: whose events; default the engine's tenant.
            priority: higher ones are served first when an event is handed out.
            concurrency: how many events at once; above 1 the order holds within each key.
            buffer: how many events may wait.
            overflow: what happens when that many wait: `block` holds an emit back for at most one second and then
                drops, `error` refuses the emit, `drop_oldest` and `drop_newest` drop. Drops are reported by
                `bus_overflow`.
            timeout: seconds a handler may take.
            ignore_self: do not deliver the subscription's own emits to itself.

        Raises:
            InvalidInput: an argument is out of range, or the name is taken.
        """
        canonical = canonical_pattern(pattern)
        if overflow not in OVERFLOWS:
            raise InvalidInput(f"overflow {overflow!r} is none of {', '.join(OVERFLOWS)}")
        if concurrency < 1 or buffer < 1 or timeout <= 0:
            raise InvalidInput("concurrency and buffer are at least 1, timeout is above 0")
        subscription = Subscription(
            name=self._dispatch.free_name(name, owner, name_of(handler)),
            pattern=canonical,
            handler=handler,
            tenant=tenant or self._tenant,
            owner=owner,
            where=where,
            allow=allow,
            priority=priority,
            concurrency=concurrency,
            buffer=buffer,
            overflow=overflow,
            timeout=timeout,
            ignore_self=ignore_self,
            clock=self._clock,
            bus=self,
            on_outcome=self._on_outcome,
        )
        self._dispatch.add(subscription)
        if self._tasks is not None:
            subscription.start(self._tasks)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop delivering to it. What is buffered ends as `cancelled`; doing it twice is no error."""
        self._dispatch.remove(subscription)

    def subscriptions(self) -> list[Subscription]:
        """All live subscriptions, in order of subscription."""
        return list(self._dispatch.subscriptions)

    def stream(self, pattern: str, *, buffer: int = 256, where: Callable[[Event], bool] | None = None) -> EventStream:
        """`async for event in bus.stream("order_*"): ...` — events from this call on.

        A reader that falls `buffer` events behind holds emits back for at most one second each and then misses
        events, which `bus_overflow` reports. Use it as an async context manager, or call `aclose`, to end it early.
        """

        def begin(take: Callable[[Event], Any]) -> Callable[[], None]:
            name = f"stream-{self._ids.new()}"
            subscription = self.subscribe(pattern, take, name=name, where=where, buffer=buffer, timeout=STREAM_SECONDS)
            return partial(self.unsubscribe, subscription)

        return EventStream(begin)

    @property
    def idle(self) -> bool:
        """Whether nothing is buffered and no handler runs."""
        return self._dispatch.idle

    async def drain(self) -> None:
        """Return when nothing is buffered and no handler runs: for stopping, and for tests."""
        while not self.idle:  # noqa: ASYNC110 - pumps signal nothing when idle, to keep deliveries cheap
            await anyio.sleep(0.002)

    async def _admit(self, event: Event) -> list[Subscription]:
        """Let the event in only where the full buffers' policies allow it, before anything is stored.

        Returns where a place was reserved for it; the caller gives the places back after the event was handed out.
        """
        reserved: list[Subscription] = []
        try:
            for subscription in self._dispatch.listeners(event.type, event.tenant):
                if subscription.overflow not in ("error", "block") or not self._dispatch.wanted(subscription, event):
                    continue
                if subscription.reserve() or await self._wait_for_room(subscription, event):
                    reserved.append(subscription)
        except BaseException:
            for subscription in reserved:
                subscription.release()
            raise
        return reserved

    async def _wait_for_room(self, subscription: Subscription, event: Event) -> bool:
        """Whether a place could be reserved within the second that `block` allows."""
        if subscription.overflow == "error":
            raise BusOverflow(
                f"the buffer of {subscription.name} ({subscription.buffer} events) is full; {event.type} is refused"
            )
        # A handler that waits for room in its own buffer would wait for itself, also at the end of a chain of others.
        if event.actor == subscription.actor or any(who == subscription.name for who, _, _ in event.path):
            return False
        with anyio.move_on_after(_BLOCK_SECONDS):
            while True:
                await subscription.wait_for_room()
                if subscription.reserve():
                    return True
        return False

    def _on_commit(self, entries: Sequence[LogEntry]) -> None:
        self._faults.reach("emit.after_commit")
        for entry in entries:
            self._dispatch.hand_out(entry)

    def _on_outcome(self, subscription: Subscription, event: Event, outcome: Outcome) -> None:
        self._metrics.count("eventcore_deliveries_total", subscription=subscription.name, outcome=outcome.status)
        self._metrics.gauge("eventcore_subscription_backlog", subscription.backlog, subscription=subscription.name)
        self._dispatch.settled(event, outcome)
        if outcome.status == "skipped":
            self._note_overflow(subscription, event)
        elif outcome.status in ("error", "timeout") and event.type != "plugin_error":
            failure = {
                "plugin": subscription.owner,
                "subscription": subscription.name,
                "event": event.id,
                "type": event.type,
                "status": outcome.status,
                "error": outcome.error,
            }
            self._announce_soon("plugin_error", failure, event)

    def _note_overflow(self, subscription: Subscription, event: Event) -> None:
        """Say once for each stretch of overflow that events are being dropped."""
        if subscription.overflowing or event.type.startswith("bus_"):
            return
        subscription.overflowing = True
        data = {
            "subscription": subscription.name,
            "buffer": subscription.buffer,
            "policy": subscription.overflow,
            "dropped": subscription.dropped,
            "type": event.type,
        }
        self._announce_soon("bus_overflow", data, event)

    def _announce_soon(self, type: str, data: dict[str, Any], event: Event) -> None:
        if self._tasks is None:
            return
        context = CallContext(tenant=event.tenant, actor="system", cause=event.cause())
        self._tasks.start_soon(self._announce_quietly, type, data, context, name=f"eventcore {type}")

    async def _announce_quietly(self, type: str, data: dict[str, Any], context: CallContext) -> None:
        try:
            await self.announce(type, data, context)
        except EventCoreError as error:
            # Nobody waits for this one, and an exception here would end every task of the engine.
            log.error("%s could not be recorded: %s", type, error)
