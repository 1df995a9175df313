"""`core.bus.places`: where durable subscriptions stand, also those that nobody consumes any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from eventcore.bus.durable_room import DurableRoom
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import Conflict, NotFound
from eventcore.kernel.json import encode
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.records import Audit, Batch

#: At most so many unsettled events are counted for one subscription.
MAX_OPEN = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a durable subscription stands.

    Attributes:
        name: what its cursor is called: `shop/on_order_created` for the plugin `shop`, else as it was subscribed.
        subscription: what it is called in this engine; None: this engine has no such subscription.
        pattern: what it listens to; None where this engine does not know.
        position: everything up to here is settled, but for what is open.
        behind: how many entries the log has after that. Not all of them are for this subscription.
        open: how many events wait for another attempt or for their turn; counted up to 1,000.
        state: `consuming` here, `standby` while another engine consumes it, `unused` if this engine does not know it.
    """

    name: str
    subscription: str | None
    pattern: str | None
    position: int
    behind: int
    open: int
    state: Literal["consuming", "standby", "unused"]


class Places:
    """Look at the places of durable subscriptions, and give up those that are of no use. A tenant sees its own."""

    def __init__(self, room: DurableRoom, context: Callable[[], CallContext]) -> None:
        self._room, self._context = room, context

    async def list(self) -> list[Place]:
        """Every durable subscription that ever began and was not given up, by name."""
        tenant, room = self._context().tenant, self._room
        last = await room.store.last_position()
        found = []
        for cursor in await room.store.cursors(tenant):
            here = room.find(tenant, cursor.name)
            rows = await room.store.deliveries(tenant, cursor.name, MAX_OPEN)
            found.append(
                Place(
                    cursor.name,
                    here.name if here else None,
                    here.pattern if here else None,
                    cursor.position,
                    max(0, last - cursor.position),
                    sum(row.state != "settled" for row in rows),
                    "unused" if here is None else "consuming" if here.consuming else "standby",
                )
            )
        return found

    async def drop(self, name: str) -> None:
        """Give up a durable subscription that nobody consumes: retention need not keep events for it any more.

        One of the same name that is made later begins as a new one. Its dead letters stay.

        Args:
            name: as `list` gives it.

        Raises:
            NotFound: this tenant has no such durable subscription.
            Conflict: it is consumed, here or by another engine.
        """
        context, room = self._context(), self._room
        cursor = await room.store.cursor(context.tenant, name)
        if cursor is None:
            known = [row.name for row in await room.store.cursors(context.tenant)]
            raise NotFound(
                f"there is no durable subscription {name!r}{did_you_mean(name, known)}",
                hint="eventcore subscriptions list",
            )
        if room.find(context.tenant, name) is not None:
            raise Conflict(f"{name!r} is subscribed here; unsubscribe it, or disable its plugin, before you drop it")
        await room.ended(context.tenant, name)
        if not await room.store.forget_cursor(context.tenant, name, room.clock.now()):
            raise Conflict(f"another engine consumes {name!r} now; end it there before you drop it")
        at, old = room.clock.now(), encode({"position": cursor.position})
        audit = Audit(room.ids.new(), context.tenant, at, context.actor, "subscription_dropped", name, old, None)
        await room.commit(Batch(audit=[audit]), ())
