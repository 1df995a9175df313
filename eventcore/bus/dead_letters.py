"""`core.bus.dead_letters`: events that a durable subscription gave up on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eventcore.bus.durable_room import DurableRoom
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import Conflict, InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.json import encode
from eventcore.kernel.records import Audit, Batch, CursorHeld, DeadLetter, Delivery, EventQuery

#: How long a redrive may hold a subscription that nobody consumes, in seconds.
_HOLD = 10.0


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter with the event it is about.

    Attributes:
        id: its own id.
        subscription: the stored name of the subscription that gave up.
        position: that of the event.
        reason: what went wrong at the last attempt.
        attempts: how many there were.
        at: when it was given up, seconds since the epoch.
        event: the event; None if it is not in the history any more.
    """

    id: str
    subscription: str
    position: int
    reason: str
    attempts: int
    at: float
    event: Event | None


class DeadLetters:
    """Look at dead letters, deliver them again, or drop them. A tenant sees its own."""

    def __init__(self, room: DurableRoom, context: Callable[[], CallContext]) -> None:
        self._room, self._context = room, context

    async def list(self, *, subscription: str | None = None, limit: int = 100) -> list[Letter]:
        """Dead letters, newest first.

        Args:
            subscription: only those of this one.
            limit: at most so many, 1 to 10,000.

        Raises:
            InvalidInput: the limit is out of range.
        """
        if not 1 <= limit <= 10_000:
            raise InvalidInput("limit is between 1 and 10,000")
        tenant = self._context().tenant
        wanted = self._stored(tenant, subscription) if subscription else None
        rows = await self._room.store.dead_letters(tenant, 10_000 if wanted else limit)
        found = [row for row in rows if wanted is None or row.subscription == wanted]
        return [await self._letter(row) for row in found[:limit]]

    async def show(self, letter_id: str) -> Letter:
        """One dead letter.

        Raises:
            NotFound: this tenant has none with that id.
        """
        return await self._letter(await self._row(letter_id))

    async def redrive(self, letter_id: str) -> Letter:
        """Deliver the event to that subscription again, from the first attempt, and return once that is stored.

        It is delivered at once if this engine consumes the subscription; else as soon as an engine does.

        Raises:
            NotFound: there is no such dead letter, or its event is not in the history any more.
            Conflict: another engine consumes the subscription; redrive it there.
        """
        row = await self._row(letter_id)
        letter = await self._letter(row)
        if letter.event is None:
            raise NotFound(f"the event at {row.position} is not in the history any more", hint="drop the dead letter")
        batch = self._gone(row, "dead_letter_redriven")
        subscription = self._room.find(row.tenant, row.subscription)
        if subscription is not None:
            await subscription.settled_in()
        if subscription is not None and subscription.consuming:
            await subscription.redrive(row.position, letter.event, batch)
        else:
            await self._leave_for_later(row, batch)
        return letter

    async def drop(self, letter_id: str) -> Letter:
        """Remove a dead letter for good. The event stays in the history.

        Raises:
            NotFound: this tenant has none with that id.
        """
        row = await self._row(letter_id)
        letter = await self._letter(row)
        await self._room.commit(self._gone(row, "dead_letter_dropped"), ())
        return letter

    async def _leave_for_later(self, row: DeadLetter, batch: Batch) -> None:
        """Nobody consumes it here: note that it is to be delivered, for whoever does next."""
        room, name = self._room, row.subscription
        holder = f"redrive-{room.ids.new()}"
        fence = await room.claim(row.tenant, name, holder, _HOLD)
        if fence is None:
            raise Conflict(f"another engine consumes {name!r} now; redrive {row.id} there")
        batch.deliveries.append(Delivery(row.tenant, name, row.position, "pending", 0, 0.0))
        try:
            await room.commit(batch, (CursorHeld(row.tenant, name, fence),))
        finally:
            await room.store.release_cursor(row.tenant, name, fence)

    def _gone(self, row: DeadLetter, action: str) -> Batch:
        context = self._context()
        old = encode({"subscription": row.subscription, "position": row.position, "reason": row.reason})
        audit = Audit(
            self._room.ids.new(), row.tenant, self._room.clock.now(), context.actor, action, row.id, old, None
        )
        return Batch(dead_letters_done=[row.id], audit=[audit])

    async def _row(self, letter_id: str) -> DeadLetter:
        row = await self._room.store.dead_letter(letter_id)
        if row is None or row.tenant != self._context().tenant:
            raise NotFound(f"there is no dead letter {letter_id}", hint="eventcore deadletters list")
        return row

    async def _letter(self, row: DeadLetter) -> Letter:
        query = EventQuery(tenant=row.tenant, after=row.position - 1, before=row.position + 1, limit=1)
        page = await self._room.store.events(query)
        event = page[0] if page else None
        return Letter(row.id, row.subscription, row.position, row.reason, row.attempts, row.at, event)

    def _stored(self, tenant: str, name: str) -> str:
        found = self._room.find(tenant, name)
        return found.stored if found else name
