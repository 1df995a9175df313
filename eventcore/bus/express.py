"""The way of most transient events, with all that can be known before an emit looked up before it.

An emit of a transient type from outside of any handler, of which nothing is said but type and data, has nobody to ask
if every subscription that listens takes whatever there is room for. What that rests on is worked out at the first such
emit and holds until something changes: whoever changes it (a subscription, a tap, something else put into the buffers)
calls `close`. Buffers only get emptier meanwhile.
"""

from __future__ import annotations

import os
import threading

from eventcore.bus.current import served_now
from eventcore.bus.fresh import FreshEvents, TransientReceipt
from eventcore.bus.outcome import Receipt
from eventcore.bus.pump import Lane
from eventcore.bus.tally import Tally
from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.json import encode_plainly
from eventcore.kernel.ports import Clock

#: How many events may go this way in a row: the others get a turn when it is opened anew.
_ROW = 256


class Express:
    """Open for one type at a time.

    Args:
        fresh: makes the events.
        tally: counts what is emitted.
    """

    __slots__ = ("_counted", "_forks", "_fresh", "_lanes", "_left", "_now", "_tally", "_thread", "_type")

    def __init__(self, clock: Clock, fresh: FreshEvents, tally: Tally) -> None:
        self._now, self._fresh, self._tally = clock.now, fresh, tally
        self._type = ""
        self._left = self._counted = 0
        self._lanes: list[Lane] = []
        self._forks = self._thread = 0

    def open(self, type: str, lanes: list[Lane], room: int) -> None:
        """From now on `room` events of this type may be put into each of these lanes by this thread."""
        self.close()
        self._type, self._lanes = type, lanes
        self._left = self._counted = min(room, _ROW)
        self._forks, self._thread = forks(), threading.get_ident()

    def close(self) -> None:
        """What it rests on has changed."""
        self.count()
        self._left = self._counted = 0

    def count(self) -> int:
        """Count in the tally how many events went this way since the last time; return that number."""
        if taken := self._counted - self._left:
            self._tally.emitted(self._type, taken)
            self._counted = self._left
        return taken

    def emit(self, type: str, data: object) -> Receipt | None:
        """Hand out an event; None: it cannot go this way, and nothing was done."""
        if (
            not self._left
            or type != self._type
            or served_now() is not None
            or _get_ident() != self._thread
            or _forks[0] != self._forks
            or (raw := encode_plainly(data, MAX_PAYLOAD)) is None
        ):
            return None
        self._left -= 1
        event = self._fresh(type, self._now(), raw)
        for lane in self._lanes:
            lane.queue.append(event)
            if lane.ring is not None:
                lane.wake()
        return TransientReceipt(event)


def forks() -> int:
    """How many forks lie between the first process and this one. To ask for the process id at each emit costs more."""
    return _forks[0]


def _count_fork() -> None:
    _forks[0] += 1


_get_ident = threading.get_ident
_forks = [0]
os.register_at_fork(after_in_child=_count_fork)
