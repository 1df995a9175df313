"""What a durable subscription has to store: gathered while one commit is under way, then stored with the next.

An acknowledgement with effects (or a dead letter) does not wait for that: it is a commit of its own, in which the
event's `settled` row stands beside the effects. The cursor follows later, as for any settled event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from eventcore.bus.host import AGAIN, Host
from eventcore.bus.ledger import Changes
from eventcore.kernel.errors import Conflict, EventCoreError
from eventcore.kernel.records import Batch, Cursor, CursorHeld, Delivery, Guard

log = logging.getLogger("eventcore.bus")


@dataclass(slots=True)
class _Writes:
    """What is stored in one commit: changes of the ledger, and what goes with them."""

    changes: Changes = field(default_factory=Changes)
    extra: Batch = field(default_factory=Batch)
    count: int = 0

    def add(self, other: _Writes) -> None:
        self.changes.add(other.changes)
        self.extra.add(other.extra)
        self.count += other.count

    def __bool__(self) -> bool:
        return bool(self.changes) or bool(self.extra)


class Books:
    """The writer of one subscription.

    Args:
        written: called after each commit.
    """

    def __init__(self, tenant: str, name: str, host: Host, written: Callable[[], None]) -> None:
        self._tenant, self._name, self._host, self._told = tenant, name, host, written
        self._fence = 0
        self._next, self._writing = _Writes(), _Writes()
        self._bell, self._written = anyio.Event(), anyio.Event()
        #: How many outcomes are not stored yet.
        self.waiting = 0

    def open(self, fence: int) -> None:
        """Begin under a new claim."""
        self._fence = fence
        self.drop()

    def drop(self) -> None:
        """Forget what is not stored: it is somebody else's now."""
        self._next, self._writing, self.waiting = _Writes(), _Writes(), 0

    @property
    def idle(self) -> bool:
        """Whether everything is stored."""
        return not self._next and not self._writing

    def later(self, changes: Changes, extra: Batch | None = None) -> None:
        """Store these with the next commit."""
        if changes or extra is not None:
            # Not by way of a `_Writes` of its own: this runs once a delivery, and a batch is many lists.
            self._next.changes.add(changes)
            if extra is not None:
                self._next.extra.add(extra)
            self._next.count += 1
            self.waiting += 1
            self._bell.set()

    async def write_on(self, lost: Callable[[], None]) -> None:
        """Store what gathers, until cancelled or until the claim is lost."""
        while True:
            await self._bell.wait()
            self._bell = anyio.Event()
            while self._next:
                try:
                    await self.flush()
                except Conflict:
                    lost()
                    return
                except EventCoreError as error:
                    log.error("%s: acknowledgements wait for the store: %s", self._name, error)
                    await self._host.clock.sleep(AGAIN)

    async def stored(self) -> None:
        """Return when nothing waits to be stored."""
        while not self.idle:
            await self._written.wait()

    async def flush(self) -> None:
        """Store what has gathered by now, in one commit."""
        if not self._next:
            return
        writes, self._next = self._next, _Writes()
        self._writing = writes
        self._host.faults.reach("delivery.before_ack")
        try:
            await self._host.commit(self._batch(writes), [self._held])
        except BaseException:
            # Not stored, or nobody knows: once more, before what has come since. Storing it twice changes nothing.
            writes.add(self._next)
            self._next = writes
            raise
        else:
            self.waiting -= writes.count
        finally:
            self._writing = _Writes()
            self._written.set()
            self._written = anyio.Event()
        self._host.faults.reach("delivery.after_ack")
        self._told()

    @property
    def _held(self) -> CursorHeld:
        return CursorHeld(self._tenant, self._name, self._fence)

    def _batch(self, writes: _Writes) -> Batch:
        batch = Batch()
        batch.add(writes.extra)
        if writes.changes.cursor is not None:
            batch.cursors.append(Cursor(self._tenant, self._name, writes.changes.cursor))
        for position, row in writes.changes.rows.items():
            if row is None:
                batch.deliveries_done.append((self._tenant, self._name, position))
            else:
                batch.deliveries.append(Delivery(self._tenant, self._name, position, *row))
        return batch

    async def settle(self, position: int, failed: int, batch: Batch, guards: Sequence[Guard]) -> None:
        """Commit these changes together with the event's `settled` row, all or nothing.

        Raises:
            Conflict: the claim is lost (`guard` is a CursorHeld), or one of the guards does not hold.
            StoreError: the store cannot write.
        """
        # What was said about the event before must not be stored after this.
        while position in self._writing.changes.rows:
            await self._written.wait()
        self._next.changes.rows.pop(position, None)
        batch.deliveries.append(Delivery(self._tenant, self._name, position, "settled", failed, 0.0))
        self._host.faults.reach("delivery.before_ack")
        await self._host.commit(batch, [self._held, *guards])
        self._host.faults.reach("delivery.after_ack")
