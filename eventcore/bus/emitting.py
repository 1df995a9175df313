"""The emitting half of the bus: from a caller's words to an event that is committed or staged, and handed out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio.lowlevel

from eventcore.bus import arguments
from eventcore.bus.admission import Admission, release
from eventcore.bus.current import current_context
from eventcore.bus.foreign import cloudevents_in, received
from eventcore.bus.fresh import TransientReceipt
from eventcore.bus.intake import HOST, Intake, facts_of
from eventcore.bus.listening import Listening
from eventcore.bus.outbox import Pending
from eventcore.bus.outcome import Receipt, Report
from eventcore.bus.staging import current_staging
from eventcore.kernel.cloudevents import from_cloudevent
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode

#: The most events that one `emit_many` takes.
MAX_BATCH = 10_000
#: How many transient events one task may emit before others get a turn.
_TURN = 256


class Emitting(Listening):
    """Who speaks; the part of `Bus` that takes events in."""

    _intake: Intake
    _admission: Admission
    #: How many transient events were emitted since others got a turn.
    _turn = 0

    def check_open(self) -> None:
        """Raises EngineClosed or WrongProcess unless this bus may be used here and now."""
        raise NotImplementedError

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
        plain = source is HOST and subject is key is idempotency_key is None is context
        if plain and (receipt := self._express.emit(type, data)) is not None:
            return receipt
        event = self._fact(type, data, subject, key, source, idempotency_key, context)
        if event.type in self.types.transient:
            await self._take_turns()
            if self._dispatch.hand_out_quickly(event, plain=plain and self.types.is_plain(type)):
                self._tally.emitted(event.type)
                return TransientReceipt(event)
        elif idempotency_key is None and self._admission.is_open(event) and (now or current_staging(self) is None):
            receipt = await self._intake.record_one(event)
            self._tally.emitted(event.type)
            return receipt
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
        arguments.entries("emit_many", entries, MAX_BATCH)
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
        arguments.number("timeout", timeout)
        event = self._fact(type, data, subject, key, source, idempotency_key, context)
        waiting = self._dispatch.expect(event)
        try:
            [receipt] = await self._take_in([event])
            if receipt.duplicate:
                return Report(await self._store.event(receipt.id, event.tenant) or event)
            return await waiting.report(timeout)
        finally:
            waiting.forget()

    async def _take_turns(self) -> None:
        """Let others run now and then: emitting a transient event need not wait for anything."""
        self._turn += 1 + self._express.count()
        if self._turn >= _TURN:
            self._turn = 0
            await anyio.lowlevel.checkpoint()

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

    # -- taking in ---------------------------------------------------------------------------------------------------

    async def _take_in_or_stage(self, events: Sequence[Event], *, now: bool = False) -> list[Receipt]:
        """Take events in; or, where a durable delivery is being served, keep them for its acknowledgement.

        Transient ones are handed out in either case: what is not recorded cannot be a part of a commit.
        """
        staging = None if now else current_staging(self)
        if staging is None:
            return await self._take_in(events)
        recorded = [event for event in events if not self.types.is_transient(event.type)]
        reserved = await self._admission.admit(recorded)
        try:
            staged = await self._intake.stage(recorded, staging)
        except BaseException:
            release(reserved)
            raise
        if staged is None:  # a leftover task of a handler that has ended meanwhile
            release(reserved)
            return await self._take_in(events)
        staging.at_end(partial(release, reserved))
        receipts = {event.id: receipt for event, receipt in zip(recorded, staged, strict=True)}
        for event in events:
            if event.id not in receipts:
                receipts[event.id] = (await self._take_in([event]))[0]
        return [receipts[event.id] for event in events]

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
                    receipts[event.id] = TransientReceipt(event)
                    self._dispatch.hand_out(event)
                if receipt is None or not receipt.duplicate:
                    self._tally.emitted(event.type)
            return [receipts[event.id] for event in events]
        finally:
            release(reserved)
