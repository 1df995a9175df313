"""The bus: takes facts in, commits them with whatever they start, and hands them to subscriptions.

Nothing reaches a subscription before it is committed. The bus knows nobody: what a commit must also hold (runs that an
event starts) comes from contributors, and who answers a request from a responder; the composition root fills in both.

This file is the face; the work is done by `intake` (build, commit), `admission` (room), `delivery` (who listens),
`subscription` and `pump` (handlers), `outbox` (emit_nowait), `guard` (loops), `notices` (what the bus says of itself).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from eventcore.bus.acks import DeliveryContext, Since
from eventcore.bus.admission import Admission, release
from eventcore.bus.current import current_context
from eventcore.bus.dead_letters import DeadLetters
from eventcore.bus.durable_room import DurableRoom
from eventcore.bus.foreign import cloudevents_in, received
from eventcore.bus.guard import EMIT_RATE
from eventcore.bus.intake import HOST, KEY_WINDOW, Intake, facts_of, transient_receipt
from eventcore.bus.listening import Listening
from eventcore.bus.notices import Notices
from eventcore.bus.outbox import MAX_PENDING, Outbox, Pending
from eventcore.bus.outcome import Receipt, Report
from eventcore.bus.replay import Replay, ReplayReport, Speed
from eventcore.bus.staging import Staging, current_delivery, current_staging
from eventcore.bus.types import EventType
from eventcore.kernel.cloudevents import from_cloudevent
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EngineClosed, InvalidInput, NoResponder, WrongProcess
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode
from eventcore.kernel.ports import Clock, Faults, Ids, Metrics, Store
from eventcore.kernel.records import Batch, Guard, LogEntry

#: Answers a request: (target, params, timeout in seconds, context) -> the answer. Raises NoResponder.
Responder = Callable[[str, dict[str, Any], float, CallContext], Awaitable[Any]]

#: The most events that one `emit_many` takes.
MAX_BATCH = 10_000
#: How many transient events one task may emit before others get a turn.
_TURN = 256


class Bus(Listening):
    """Made by the engine; reached as `core.bus`.

    Args:
        tenant: whose bus this is when no context says otherwise.
        key_window: how long idempotency keys are remembered, in seconds.
        emit_rate: events a second that each plugin may emit; twice as many at once.
        max_pending: how many events of `emit_nowait` may wait to be committed.
        owner: names this engine where it claims durable subscriptions.
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
        emit_rate: float = EMIT_RATE,
        max_pending: int = MAX_PENDING,
        owner: str | None = None,
    ) -> None:
        notices, outbox = Notices(self.announce), Outbox(self._take_in, max_pending)
        super().__init__(store, clock, ids, metrics, tenant, notices, outbox, emit_rate=emit_rate)
        self._intake = Intake(store, clock, ids, faults, self.types, key_window)
        self._faults, self.contributors = faults, self._intake.contributors
        self.responder: Responder | None = None
        self._admission = Admission(self._dispatch)
        self.durables = DurableRoom(
            store=store,
            clock=clock,
            ids=ids,
            faults=faults,
            metrics=metrics,
            commit=self.commit,
            build=self.build,
            newest=self.types.newest,
            owner=owner,
        )
        self.contributors.append(self.durables)
        #: Events that durable subscriptions gave up on.
        self.dead_letters = DeadLetters(self.durables, self.context)
        self._forks = self._thread = self._turn = 0

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        """Begin to deliver. The caller owns both the stack and the tasks."""
        self._tasks, self._forks, self._thread = tasks, _forks[0], threading.get_ident()
        self._notices.start(tasks)
        tasks.start_soon(self.signals.run, name="eventcore signals")
        tasks.start_soon(self._watchdog.run, name="eventcore watchdog")
        tasks.start_soon(self._outbox.run, name="eventcore outbox")
        for subscription in self._dispatch.subscriptions:
            subscription.start(tasks)
        stack.callback(self._closed)
        stack.callback(self._store.watch(self._on_commit))
        await self.durables.look()
        stack.push_async_callback(self._outbox.close)

    def _closed(self) -> None:
        self._tasks = None
        self._notices.start(None)

    def check_open(self) -> None:
        """Raises EngineClosed or WrongProcess unless this bus may be used here and now."""
        if self._tasks is None:
            raise EngineClosed()
        if _forks[0] != self._forks:
            raise WrongProcess(
                "this engine was opened by another process", hint="open an engine of your own after the fork"
            )
        if threading.get_ident() != self._thread:
            raise WrongProcess(
                "this engine belongs to the event loop of another thread",
                hint="in a sync handler use anyio.from_thread.run(core.bus.emit, ...)",
            )

    # -- taking in ---------------------------------------------------------------------------------------------------

    def declare(
        self,
        type: str,
        model: Any = None,
        *,
        transient: bool = False,
        max_turns: int | None = None,
        version: int = 1,
        upcast: Mapping[int, Callable[[Any], Any]] | None = None,
    ) -> EventType:
        """Say what a type's payload looks like and whether it is recorded (default: any JSON, recorded).

        Args:
            model: a pydantic model that payloads must satisfy.
            transient: hand it out without recording it.
            max_turns: how often one subscriber may handle this type (of one key) in a chain of causes: permits a
                dialogue that is longer than the loop guard's 3 turns and 16 hops; at most 1,000.
            version: of the payload's schema; stored with each event.
            upcast: for each older version, a pure function that makes its payload one of the next version. The history
                and deliveries then give every event in the newest version; what is stored stays as it was.
        """
        return self.types.declare(type, model, transient=transient, max_turns=max_turns, version=version, upcast=upcast)

    async def emit(
        self,
        type: str,
        data: Any = None,
        *,
        subject: str | None = None,
        key: str | None = None,
        source: str = HOST,
        idempotency_key: str | None = None,
        context: CallContext | None = None,
        now: bool = False,
    ) -> Receipt:
        """Record a fact and return once it is committed. Subscribers are not waited for.

        Inside a handler of a durable subscription the event is staged: it is committed together with the handler's
        acknowledgement, and dropped if the handler fails. The receipt's position is then None.

        Args:
            type: see `eventcore.kernel.names`; core types and `on_*` are the host's own.
            data: JSON, at most 256 KiB; or an instance of the type's model.
            subject: what the event is about, within the source.
            key: events of one key are handled in order.
            source: where it comes from, a URI reference.
            idempotency_key: the same key again, within seven days, returns the first receipt.
            context: on whose behalf; by default that of the handler this is called from, else the operator.
            now: commit at once, also inside a handler of a durable subscription.

        Raises:
            InvalidName, InvalidPayload: the type or the data are not acceptable.
            IdempotencyConflict: the key was used for something else.
            LoopDetected: too many hops, or the same subscriber too often in the chain of causes.
            RateLimited: a plugin emits too fast.
            BusOverflow: a subscription with `overflow="error"` is full.
        """
        if source is HOST and subject is key is idempotency_key is None is context and self.types.is_plain(type):
            event = self._plain_fact(type, data)
        else:
            event = self._fact(type, data, subject, key, source, idempotency_key, context)
        if event.type in self.types.transient:
            self._turn += 1
            if self._turn >= _TURN:
                self._turn = 0
                await anyio.lowlevel.checkpoint()
            if self._dispatch.hand_out_quickly(event):
                self._tally.emitted(event.type)
                return transient_receipt(event)
        return (await self._take_in_or_stage([event], now=now))[0]

    def emit_nowait(
        self,
        type: str,
        data: Any = None,
        *,
        subject: str | None = None,
        key: str | None = None,
        source: str = HOST,
        idempotency_key: str | None = None,
        context: CallContext | None = None,
    ) -> Pending:
        """Accept a fact at once; it is committed with the next group. `await` what is returned to know how it went.

        Events accepted so are committed in order, and closing the engine waits for them. A failure that nobody awaits
        is logged. The arguments are those of `emit`; what it raises for the event itself is raised here, the rest
        (IdempotencyConflict, BusOverflow of a subscription) where the receipt is awaited.

        Raises:
            BusOverflow: too many events wait to be committed.
        """
        event = self._fact(type, data, subject, key, source, idempotency_key, context)
        if (staging := current_staging(self)) is not None and not self.types.is_transient(event.type):
            return self._intake.stage_nowait(event, staging)
        return self._outbox.put(event)

    async def emit_many(
        self, entries: Sequence[Mapping[str, Any] | tuple[str, Any]], *, context: CallContext | None = None
    ) -> list[Receipt]:
        """Record facts in one commit, all or none, in order; return a receipt for each.

        Transient ones among them are handed out after the commit. A batch that does not fit a buffer is held back,
        refused or dropped in part as that subscription's overflow says, before anything is stored.

        Args:
            entries: at most 10,000, each `(type, data)` or a mapping of `emit`'s arguments but `context`.
            context: on whose behalf all of it.

        Raises:
            InvalidInput: an entry is not understood, or there are too many; and what `emit` raises, for any of them.
        """
        if len(entries) > MAX_BATCH:
            raise InvalidInput(f"emit_many takes at most {MAX_BATCH:,} events, not {len(entries):,}")
        facts = [{"subject": None, "key": None, "source": HOST, "idempotency_key": None} | facts_of(e) for e in entries]
        events = [self._fact(**fact, context=context) for fact in facts]
        return await self._take_in_or_stage(events) if events else []

    async def emit_cloudevent(
        self, body: Mapping[str, Any] | str | bytes, *, context: CallContext | None = None
    ) -> Receipt:
        """Record a CloudEvent 1.0 from outside and return once it is committed.

        Its id is kept: the same id of the same source again returns the first receipt. A type that is not in our
        grammar, or is the host's, is mapped to it and kept in `ce_type`. Attributes without a field here are kept in
        `extensions`. What it says of tenant, actor, hops and path does not count.

        Args:
            body: the JSON object in structured mode, as a mapping or as text.
            context: on whose behalf; as for `emit`.

        Raises:
            InvalidPayload: it is no CloudEvent 1.0, or the type's model refuses its data.
            IdempotencyConflict: the id was used for another type or other data.
            LoopDetected, BusOverflow: as for `emit`.
        """
        return (await self._take_in([self._foreign(body, context)]))[0]

    async def emit_cloudevents(
        self, batch: Sequence[Any] | str | bytes, *, context: CallContext | None = None
    ) -> list[Receipt]:
        """Record a batch of CloudEvents, as `emit_cloudevent` each, in order; a receipt for each.

        All are checked before the first is recorded. They are one commit, unless an id stands there twice.
        """
        bodies = cloudevents_in(batch)
        if len(bodies) > MAX_BATCH:
            raise InvalidInput(f"a batch of {len(bodies):,} events is too long; at most {MAX_BATCH:,}")
        events = [self._foreign(body, context) for body in bodies]
        if len({event.id for event in events}) == len(events):
            return await self._take_in(events) if events else []
        return [receipt for event in events for receipt in await self._take_in([event])]

    def _foreign(self, body: Any, context: CallContext | None) -> Event:
        self.check_open()
        value = decode(body, what="the CloudEvent") if isinstance(body, str | bytes) else body
        event = received(from_cloudevent(value), context or self.context(), self.types, self._clock.now())
        self._guard.check(event)
        return event

    async def emit_and_wait(
        self,
        type: str,
        data: Any = None,
        *,
        timeout: float = 30.0,
        subject: str | None = None,
        key: str | None = None,
        source: str = HOST,
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
            [receipt] = await self._take_in([event])
            if receipt.duplicate:
                return Report(await self._store.event(receipt.id, event.tenant) or event)
            return await waiting.report(timeout)
        finally:
            waiting.forget()

    async def request(
        self,
        target: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        context: CallContext | None = None,
    ) -> Any:
        """Ask a plugin (by slug) or whoever answers an intent, and return the answer.

        What was emitted on the way is committed at once. A chain of requests is bounded like a chain of events.

        Args:
            timeout: seconds.
            context: on whose behalf; by default that of the handler this is called from, else the operator.

        Raises:
            NoResponder: nobody answers; known at once.
            LoopDetected: requests have led to this request too often.
            AccessDenied, PluginFailed, PluginTimeout: as for `core.plugins.run`.
        """
        self.check_open()
        if timeout <= 0:
            raise InvalidInput("timeout is above 0")
        if self.responder is None:
            raise NoResponder(f"nobody answers {target!r}")
        context = context or self.context()
        self._guard.check_request(target, context)
        return await self.responder(target, dict(params or {}), timeout, context)

    async def announce(
        self,
        type: str,
        data: Any,
        context: CallContext,
        *,
        source: str = HOST,
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
        source: str = HOST,
        subject: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
        event_id: str | None = None,
    ) -> Event:
        """An event under `context`, not yet committed. Checks the payload, not the right to emit the type."""
        return self._intake.build(type, data, context, source, subject, key, idempotency_key, event_id)

    # -- durable subscriptions ---------------------------------------------------------------------------------------

    @property
    def delivery(self) -> DeliveryContext | None:
        """The delivery that the calling handler serves: attempt, replay, `in_progress()`; None outside of one.

        For handlers of durable subscriptions, and for any handler during a replay.
        """
        return current_delivery(self)

    def staging(self) -> Staging | None:
        """Where changes made now have to go so that they are committed with the delivery's end; None: at once."""
        return current_staging(self)

    async def replay(
        self,
        name: str,
        *,
        since: Since | None = None,
        until: Since | None = None,
        speed: Speed = "instant",
        dry_run: bool = False,
    ) -> ReplayReport:
        """Deliver the past once more to one subscription, live or durable, and return when that is done.

        The job has a cursor of its own: the subscription's stays where it is, and new events go on being delivered
        beside it. The handler sees `core.bus.delivery.replay`. What it emits is committed if it ends well; one that
        fails is counted, not retried. Cancelling ends the job after the event at hand was dropped.

        Args:
            name: of a subscription of this engine.
            since, until: half-open interval of event time: a datetime, seconds since the epoch, or a timedelta back
                from now; None: from the first event, up to the last one recorded before this call.
            speed: `instant` one after the other, or `original` with the pauses that lay between them.
            dry_run: only count.

        Raises:
            NotFound: this engine has no such subscription.
            InvalidInput: the speed is neither.
        """
        self.check_open()
        job = Replay(
            self.durables,
            self,
            self._subscription(name),
            lambda staging: self.commit(staging.batch, staging.guards),
            since=since,
            until=until,
            speed=speed,
            dry_run=dry_run,
        )
        return await job.run()

    def check(self, event: Event) -> None:
        """Refuse an event of a handler, step or plugin that would close a loop or comes too fast, and record that.

        `emit` and its like do so by themselves; this is for those who build an event and commit it later.

        Raises:
            LoopDetected: too many hops, or the same subscriber too often in the chain of causes.
            RateLimited: a plugin emits too fast.
        """
        self._guard.check(event)

    def _plain_fact(self, type: str, data: Any) -> Event:
        """`_fact` of a transient type without a model, said with nothing but type and data: most of all emits."""
        self.check_open()
        context = current_context(self)
        if data.__class__ is not dict:
            data = self.types.check(type, data)
        event = self._intake.build(type, data, context or self._operator)
        if context is not None:
            self._guard.check(event)
        return event

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
        if context is None:
            context = current_context(self) or self._operator
        event = self._intake.fact(type, data, context, subject, key, source, idempotency_key)
        if event.hops or context is not self._operator:
            self._guard.check(event)
        return event

    # -- committing --------------------------------------------------------------------------------------------------

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        """Commit `batch` together with what contributors add to it. Returns the first position.

        Raises:
            Conflict: a guard does not hold; nothing is stored.
            StoreError: the store cannot write; nothing is stored.
        """
        return await self._intake.commit(batch, guards)

    async def _take_in_or_stage(self, events: Sequence[Event], *, now: bool = False) -> list[Receipt]:
        """Take events in; or, where a durable delivery is being served, keep them for its acknowledgement.

        Transient ones are handed out in either case: what is not recorded cannot be a part of a commit.
        """
        staging = None if now else current_staging(self)
        if staging is None:
            return await self._take_in(events)
        receipts = []
        for event in events:
            if self.types.is_transient(event.type):
                receipts += await self._take_in([event])
                continue
            reserved = await self._admission.admit([event])
            staging.at_end(partial(release, reserved))
            receipts.append(await self._intake.stage(event, staging))
        return receipts

    async def take_in(self, event: Event) -> Receipt:
        """Commit an event that was made with `build`, as `emit` does: loops refused, buffers respected."""
        self.check(event)
        return (await self._take_in([event]))[0]

    async def _take_in(self, events: Sequence[Event]) -> list[Receipt]:
        """Admit, record and hand out, all or none."""
        reserved = await self._admission.admit(events)
        try:
            recorded = [event for event in events if not self.types.is_transient(event.type)]
            receipts = {}
            if recorded:
                receipts = {e.id: r for e, r in zip(recorded, await self._intake.record(recorded), strict=True)}
            for event in events:
                receipt = receipts.get(event.id)
                if receipt is None:
                    receipts[event.id] = transient_receipt(event)
                    self._dispatch.hand_out(event)
                if receipt is None or not receipt.duplicate:
                    self._tally.emitted(event.type)
            return [receipts[event.id] for event in events]
        finally:
            release(reserved)

    def _on_commit(self, entries: Sequence[LogEntry]) -> None:
        self._faults.reach("emit.after_commit")
        self.durables.told(entries)
        for entry in entries:
            self._dispatch.hand_out(entry)


def _count_fork() -> None:
    _forks[0] += 1


#: How many forks lie between the first process and this one. To ask for the process id at each emit costs more.
_forks = [0]
os.register_at_fork(after_in_child=_count_fork)
