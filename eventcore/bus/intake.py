"""Taking facts in: building, checking, committing with whatever they start, and what an idempotency key means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventcore.bus.outbox import Pending
from eventcore.bus.outcome import Receipt
from eventcore.bus.staging import Staging
from eventcore.bus.types import EventTypes, check_word
from eventcore.kernel.context import MAX_HOPS, CallContext
from eventcore.kernel.errors import Conflict, IdempotencyConflict, InvalidInput
from eventcore.kernel.event import MAX_BLOB, MAX_PAYLOAD, Event, split
from eventcore.kernel.json import encode, text_digest
from eventcore.kernel.ports import Clock, Contributor, Faults, Ids, Store
from eventcore.kernel.quick import maker
from eventcore.kernel.records import Batch, Guard, Key, KeyAbsent, LogEntry

#: How long idempotency keys are remembered by default, in seconds.
KEY_WINDOW = 7 * 86400.0
#: Where events of the embedder come from.
HOST = "/host"
#: How many rounds of contributions one commit may set off.
_MAX_ROUNDS = MAX_HOPS
#: How often a batch is looked at again because somebody else used one of its keys meanwhile.
_KEY_TRIES = 5

#: What needs no look at whether it is a model.
_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})

_event = maker(Event)
_receipt = maker(Receipt)


class Intake:
    """Builds events and commits them. Delivers nothing: the store tells its listeners."""

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, faults: Faults, types: EventTypes, key_window: float
    ) -> None:
        self._store, self._clock, self._ids, self._faults = store, clock, ids, faults
        self._types, self._key_window = types, key_window
        self.contributors: list[Contributor] = []

    # -- building ----------------------------------------------------------------------------------------------------

    def fact(
        self,
        type: str,
        data: Any,
        context: CallContext,
        subject: str | None = None,
        key: str | None = None,
        source: str = HOST,
        idempotency_key: str | None = None,
    ) -> Event:
        """An event that somebody other than the host wants to emit.

        Raises:
            InvalidName, InvalidPayload, InvalidInput: the type, the data or another word is not acceptable.
        """
        kind = self._types.emittable(type)
        if kind.model is not None or (data.__class__ not in _PLAIN and hasattr(data, "model_dump")):
            data = self._types.check(kind.name, data)
        more = (source, subject, key, idempotency_key, None, kind.version, kind.blobs)
        return self.build(kind.name, data, context, *more)

    def build(
        self,
        type: str,
        data: Any,
        context: CallContext,
        source: str = HOST,
        subject: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
        event_id: str | None = None,
        schema_version: int | None = None,
        blobs: bool | None = None,
    ) -> Event:
        """An event under `context`, not yet committed. Checks the payload's form, not the right to emit the type.

        Args:
            schema_version, blobs: what is declared of the type; None: this looks for it.
        """
        if schema_version is None or blobs is None:
            kind = self._types.get(type)
            schema_version, blobs = (1, False) if kind is None else (kind.version, kind.blobs)
        raw = encode(data, limit=MAX_BLOB if blobs else MAX_PAYLOAD, what=f"the data of {type}")
        blob = body = None
        if len(raw) > MAX_PAYLOAD:
            raw, blob, body = split(raw)
        # One by one, and only what was given: this runs once an event.
        if source is not HOST:
            check_word("source", source)
        if subject is not None:
            check_word("subject", subject)
        if key is not None:
            check_word("key", key)
        if idempotency_key is not None:
            check_word("idempotency_key", idempotency_key)
        if context.actor != "operator":
            check_word("actor", context.actor)
        cause = context.cause
        event_id = event_id or self._ids.new()
        return _event(
            event_id,
            type,
            source,
            self._clock.now(),
            raw,
            context.tenant,
            context.actor,
            subject,
            key,
            cause.run,
            cause.correlation or event_id,
            cause.event,
            cause.hops,
            cause.path,
            cause.traceparent,
            idempotency_key,
            schema_version,
            blob=blob,
            body=body,
            roles=context.roles,
        )

    # -- committing --------------------------------------------------------------------------------------------------

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        """Commit `batch` together with what contributors add to it; see `Bus.commit`."""
        if batch.log and (found := self._contributions(batch.log)) is not None:
            more, more_guards = found
            batch.add(more)
            guards = [*guards, *more_guards]
        return await self._store.commit(batch, guards)

    def _contributions(self, entries: Sequence[LogEntry]) -> tuple[Batch, list[Guard]] | None:
        """What contributors add to these entries, and to what they add, and so on; None for nothing, as most times."""
        batch: Batch | None = None
        guards: list[Guard] = []
        for _ in range(_MAX_ROUNDS):
            added: list[LogEntry] = []
            for contributor in self.contributors:
                if contribution := contributor.contribute(entries):
                    more, more_guards = contribution
                    batch = Batch() if batch is None else batch
                    batch.add(more)
                    guards.extend(more_guards)
                    added.extend(more.log)
            if not added:
                break
            entries = added
        return None if batch is None else (batch, guards)

    async def record(self, events: Sequence[Event]) -> list[Receipt]:
        """Commit these events in one batch, but for those whose idempotency key is known.

        Raises:
            IdempotencyConflict: a key was used for something else, within the batch or before it. Nothing is stored.
            Conflict: a contributor's guard does not hold. Nothing is stored.
        """
        self._faults.reach("emit.before_commit")
        known: dict[str, Receipt] = {}
        for _ in range(_KEY_TRIES):
            batch, guards = self._batch(events, known)
            if not batch.log:
                break
            try:
                await self.commit(batch, guards)
                break
            except Conflict as conflict:
                if not isinstance(conflict.guard, KeyAbsent) or conflict.guard not in guards:
                    raise
                known |= await self._known(events)
        else:
            raise Conflict("idempotency keys of this batch are being used by others; try again")
        return [known.get(event.id) or self._receipt_in(event, events, known) for event in events]

    async def record_one(self, event: Event) -> Receipt:
        """`record` of one event without an idempotency key: most of all that are recorded."""
        self._faults.reach("emit.before_commit")
        found = self._contributions((event,))
        if found is None:
            await self._store.record(event)
        else:
            batch, guards = found
            batch.log.insert(0, event)
            await self._store.commit(batch, guards)
        return _receipt(event.id, event.position)

    async def stage(self, events: Sequence[Event], staging: Staging) -> list[Receipt] | None:
        """Keep events for the commit that acknowledges the delivery being served, all or none.

        Returns:
            Receipts, those of new events without a position yet; None: the delivery ended meanwhile, nothing is kept.

        Raises:
            IdempotencyConflict: a key was used for something else.
            InvalidInput: the delivery stages too much.
        """
        receipts, fresh, mine = list[Receipt](), list[Event](), dict[tuple[str, str, str], Key]()
        for event in events:
            if event.idempotency_key is not None:
                key = self._key(event)
                name = (key.tenant, key.scope, key.key)
                if earlier := staging.key(*name) or mine.get(name):
                    _check_same(earlier, key)
                    receipts.append(Receipt(earlier.ref, None, duplicate=True))
                    continue
                if known := await self._known([event]):
                    receipts.append(known[event.id])
                    continue
                mine[name] = key
            fresh.append(event)
            receipts.append(Receipt(event.id, None))
        if staging.closed:
            return None
        staging.add(*self._batch(fresh, {}))
        return receipts

    def stage_nowait(self, event: Event, staging: Staging) -> Pending:
        """The same for `emit_nowait`.

        Raises:
            InvalidInput: it has an idempotency key, which has to be looked up first.
        """
        if event.idempotency_key is not None:
            raise InvalidInput(
                "emit_nowait takes no idempotency_key inside a handler of a durable subscription",
                hint="use emit; or leave the key out: the event is recorded only if the handler ends well",
            )
        staging.add(*self._batch([event], {}))
        pending = Pending(event)
        pending.succeed(Receipt(event.id, None))
        return pending

    def _receipt_in(self, event: Event, events: Sequence[Event], known: Mapping[str, Receipt]) -> Receipt:
        """The receipt of an event of this batch; one that repeats the key of an earlier one gets the earlier one's."""
        if event.position:
            return _receipt(event.id, event.position)
        mine = (event.tenant, event.source, event.idempotency_key)
        first = next(one for one in events if (one.tenant, one.source, one.idempotency_key) == mine)
        earlier = known.get(first.id)
        return Receipt(earlier.id if earlier else first.id, earlier.position if earlier else first.position, True)

    def _batch(self, events: Sequence[Event], known: Mapping[str, Receipt]) -> tuple[Batch, list[Guard]]:
        """What is to be committed of these events."""
        batch, guards = Batch(), list[Guard]()
        mine: dict[tuple[str, str, str], Key] = {}
        for event in events:
            if event.id in known:
                continue
            if event.idempotency_key is not None:
                key = self._key(event)
                earlier = mine.setdefault((key.tenant, key.scope, key.key), key)
                if earlier is not key:
                    _check_same(earlier, key)
                    continue
                batch.keys.append(key)
                guards.append(KeyAbsent(key.tenant, key.scope, key.key, self._clock.now()))
            batch.log.append(event)
        return batch, guards

    def _key(self, event: Event) -> Key:
        # The digest covers what makes two emits the same request: the type and the exact payload.
        assert event.idempotency_key is not None
        digest = text_digest(f"{event.type}\0{event.raw.decode()}")
        expires = self._clock.now() + self._key_window
        return Key(event.tenant, f"emit:{event.source}", event.idempotency_key, digest, event.id, expires)

    async def _known(self, events: Sequence[Event]) -> dict[str, Receipt]:
        """The first receipts of those events whose key is in the store, by id.

        Raises:
            IdempotencyConflict: a key was used for something else.
        """
        found = {}
        for event in events:
            if event.idempotency_key is None:
                continue
            mine = self._key(event)
            stored = await self._store.key(mine.tenant, mine.scope, mine.key, self._clock.now())
            if stored is not None:
                _check_same(stored, mine)
                first = await self._store.event(stored.ref, event.tenant, event.source)
                found[event.id] = Receipt(stored.ref, first.position if first else 0, duplicate=True)
        return found


def facts_of(entry: Mapping[str, Any] | tuple[Any, ...]) -> dict[str, Any]:
    """One entry of `emit_many` as the arguments of `emit`.

    Raises:
        InvalidInput: it is neither a mapping with `type` nor a tuple (type, data).
    """
    if isinstance(entry, tuple) and len(entry) == 2:
        return {"type": entry[0], "data": entry[1]}
    allowed = {"type", "data", "subject", "key", "source", "idempotency_key"}
    if not isinstance(entry, Mapping) or "type" not in entry or not entry.keys() <= allowed:
        raise InvalidInput(
            f"an entry of emit_many is (type, data) or a mapping with `type` and any of {', '.join(sorted(allowed))}, "
            f"not {entry!r:.80}"
        )
    return {"data": None, **entry}


def _check_same(known: Key, mine: Key) -> None:
    if known.digest != mine.digest:
        source = mine.scope.removeprefix("emit:")
        raise IdempotencyConflict(
            f"the idempotency key {mine.key!r} of {source} belongs to event {known.ref}, "
            f"which has another type or other data"
        )
