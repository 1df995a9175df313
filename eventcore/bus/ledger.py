"""The books of one durable subscription: what is in hand, what comes next, where the cursor stands. No I/O, no clock.

The rules, in the words of the contract: the cursor is below every unsettled position; what is settled above it is a
row; a retry parks its key, so later events of that key wait, while other keys go on; an event without a key is its own
key.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from eventcore.kernel.records import Delivery

#: How many settled events may stand above the cursor; with more, the subscription waits for what holds the cursor.
MAX_SETTLED = 5_000


@dataclass(frozen=True, slots=True)
class Ack:
    """The handler returned."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, ran over its time, or asked to be called again after `delay` seconds."""

    reason: str
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The event must not be delivered again."""

    reason: str


Verdict: TypeAlias = Ack | Failed | Ended


@dataclass(frozen=True, slots=True)
class Settle:
    """Done with."""


@dataclass(frozen=True, slots=True)
class Park:
    """Again at `due`, after `attempt` failed attempts."""

    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class Bury:
    """Into the dead letters, after `attempts` attempts."""

    reason: str
    attempts: int


Decision: TypeAlias = Settle | Park | Bury


def decide(verdict: Verdict, failed: int, now: float, *, max_deliver: int, backoff: Sequence[float]) -> Decision:
    """What a verdict leads to.

    Args:
        failed: how many attempts had failed before this one.
        now: seconds since the epoch.
    """
    match verdict:
        case Ack():
            return Settle()
        case Ended(reason):
            return Bury(reason, failed + 1)
        case Failed(reason, delay):
            attempt = failed + 1
            if attempt >= max_deliver:
                return Bury(reason, attempt)
            wait = backoff[min(attempt, len(backoff)) - 1] if delay is None else max(0.0, delay)
            return Park(attempt, now + wait)


@dataclass(slots=True)
class Item:
    """An event in hand.

    Attributes:
        failed: how many attempts have failed.
        due: not before this time, monotonic seconds; 0: at once.
    """

    position: int
    key: Hashable
    failed: int = 0
    due: float = 0.0


#: State, attempt and next_at of a `Delivery`.
Row: TypeAlias = tuple[Literal["pending", "parked", "settled"], int, float]


@dataclass(slots=True)
class Changes:
    """What has to be stored: by position the delivery's new row, or None where it goes; and where the cursor stands."""

    cursor: int | None = None
    rows: dict[int, Row | None] = field(default_factory=dict)

    def add(self, other: Changes) -> None:
        """Take in later changes."""
        self.rows.update(other.rows)
        if other.cursor is not None:
            self.cursor = other.cursor

    def __bool__(self) -> bool:
        return self.cursor is not None or bool(self.rows)


class Ledger:
    """See the module.

    Args:
        cursor: where the stored cursor stands.
        rows: the stored deliveries.
        limit: how many events may be in hand.
        ordered: every event waits for the one before it, whatever its key.
        ahead: by how much monotonic time is ahead of the time of day, by which rows are stored. What is due in this
            process is due by the former: setting the clock back must not make a retry wait longer.
    """

    def __init__(
        self,
        cursor: int,
        rows: Iterable[Delivery] = (),
        *,
        limit: int = 100,
        ordered: bool = False,
        ahead: float = 0.0,
    ) -> None:
        self.cursor = self.read = cursor
        self._limit, self._ordered, self._ahead = limit, ordered, ahead
        self._open: dict[int, Item] = {}
        self._queues: dict[Hashable, deque[int]] = {}
        self._ready: list[int] = []
        self._parked: list[tuple[float, int]] = []
        self._lowest: list[int] = []
        self._settled: set[int] = set()
        self._retries: dict[int, tuple[int, float]] = {}
        self._stored: set[int] = set()
        #: Positions at or below the cursor that are to be delivered all the same.
        self.redriven: list[int] = []
        for row in rows:
            self._take_row(row)

    def _take_row(self, row: Delivery) -> None:
        self._stored.add(row.position)
        if row.state != "settled":
            self._retries[row.position] = (row.attempt, row.next_at + self._ahead if row.next_at else 0.0)
            if row.position <= self.cursor:
                self.redriven.append(row.position)
        elif row.position > self.cursor:
            self._settled.add(row.position)

    # -- taking in ---------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more events may be taken in hand."""
        return 0 if len(self._settled) >= MAX_SETTLED else self._limit - len(self._open)

    @property
    def in_hand(self) -> int:
        return len(self._open)

    def admit(self, position: int, key: str | None) -> bool:
        """Take the next event in hand. False: it was settled before. Events above the cursor come in order."""
        if position > self.cursor:
            self.read = max(self.read, position)
        if position in self._settled or position in self._open:
            return False
        self._take_in_hand(position, key)
        return True

    def _take_in_hand(self, position: int, key: str | None) -> None:
        failed, due = self._retries.pop(position, (0, 0.0))
        ours: Hashable = "" if self._ordered else ("", position) if key is None else key
        item = self._open[position] = Item(position, ours, failed, due)
        if position > self.cursor:
            heapq.heappush(self._lowest, position)
        queue = self._queues.setdefault(ours, deque())
        queue.append(position)
        if len(queue) == 1:
            self._line_up(item)

    def passed(self, position: int) -> Changes:
        """Nothing up to here is for this subscription but what was taken in hand."""
        self.read = max(self.read, position)
        return self._move_cursor()

    def redrive(self, position: int, key: str | None) -> None:
        """Deliver it again from the first attempt, although it was settled.

        After a restart, reading may not have come so far: what lies before it is still to be read.
        """
        self._settled.discard(position)
        self._stored.add(position)
        self._retries[position] = (0, 0.0)
        self._take_in_hand(position, key)

    # -- handing out -------------------------------------------------------------------------------------------------

    def _line_up(self, item: Item) -> None:
        if item.due:
            heapq.heappush(self._parked, (item.due, item.position))
        else:
            heapq.heappush(self._ready, item.position)

    def take(self, now: float) -> Item | None:
        """The next event to handle: the lowest position whose key is free. It is out until it is settled or parked."""
        while self._parked and self._parked[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._parked)[1])
        return self._open[heapq.heappop(self._ready)] if self._ready else None

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, or None."""
        return self._parked[0][0] if self._parked else None

    @property
    def ready(self) -> bool:
        """Whether something can be handled at once, but for retries that have come due."""
        return bool(self._ready)

    # -- settling ----------------------------------------------------------------------------------------------------

    def park(self, position: int, attempt: int, due: float, at: float | None = None) -> Changes:
        """An attempt failed: the event and its key wait until `due`.

        Args:
            at: what `due` is in seconds since the epoch, for the row; None: the same.
        """
        item = self._open[position]
        item.failed, item.due = attempt, due
        self._line_up(item)
        self._stored.add(position)
        return Changes(rows={position: ("parked", attempt, due if at is None else at)})

    def give_back(self, position: int, due: float = 0.0) -> None:
        """The delivery was interrupted: again, not before `due`, and without counting an attempt."""
        item = self._open[position]
        item.due = due
        self._line_up(item)

    def settle(self, position: int, *, stored: bool = False) -> Changes:
        """The event is done with, which frees its key.

        Args:
            stored: its row says `settled` already.
        """
        item = self._open.pop(position)
        if stored:
            self._stored.add(position)
        queue = self._queues[item.key]
        queue.popleft()
        if queue:
            self._line_up(self._open[queue[0]])
        else:
            del self._queues[item.key]
        if position <= self.cursor:
            return Changes(rows=self._forget([position]))
        if position in self._stored:  # its row goes when the cursor passes it
            self._settled.add(position)
        changes = self._move_cursor()
        if position > self.cursor:
            self._settled.add(position)
            self._stored.add(position)
            changes.rows[position] = ("settled", item.failed, 0.0)
        return changes

    def _move_cursor(self) -> Changes:
        while self._lowest and self._lowest[0] not in self._open:
            heapq.heappop(self._lowest)
        target = min(self.read, self._lowest[0] - 1) if self._lowest else self.read
        if target <= self.cursor:
            return Changes()
        self.cursor, before = target, self.cursor
        if not (self._settled or self._retries):  # as with most: they were settled in order
            return Changes(target)
        behind = [position for position in self._settled if position <= target]
        self._settled.difference_update(behind)
        # Retries of events that are gone, or for this subscription no more: it listens to something else now.
        stale = [position for position in self._retries if before < position <= target]
        for position in stale:
            del self._retries[position]
        return Changes(cursor=target, rows=self._forget(behind + stale))

    def gone(self, position: int) -> Changes:
        """An event that was to be redriven is not in the history any more."""
        self._retries.pop(position, None)
        return Changes(rows=self._forget([position]))

    def _forget(self, positions: Iterable[int]) -> dict[int, Row | None]:
        stored = [position for position in positions if position in self._stored]
        self._stored.difference_update(stored)
        return dict.fromkeys(stored)
