"""A wall clock that is set back: what was to come in an hour must still come in an hour.

Timers are stored in UTC, so a clock that is set back by a day would make each of them a day late. While a process
lives, the monotonic clock tells how much later it really is. Over a restart nothing does; then no timer waits for
longer than it was meant to when it was set. A clock that is set forward is believed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from eventcore.kernel.json import decode
from eventcore.kernel.ports import Clock
from eventcore.kernel.records import Timer

#: What clocks are adjusted by in the normal course, in seconds.
_TOLERATED = 1.0


@dataclass(frozen=True, slots=True)
class Early:
    """A timer that is due before the time that its row tells."""

    timer: Timer
    at: float


class Setbacks:
    """Which timers are due earlier than their rows tell, because the clock was set back since they were stored."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall, self._mono = clock.now(), clock.monotonic()
        #: By how much the clock was set forward before: to take that back makes nothing late.
        self._ahead = 0.0
        #: Whether the clock was set back, and by how many seconds besides, for `shift` to take in.
        self._back, self._lost = False, 0.0
        #: Times of timers that were stored since then: they are in the new time.
        self._new: set[float] = set()
        self._early: dict[str, Early] = {}

    def look(self) -> bool:
        """Compare the two clocks; return whether timers have to be shifted."""
        wall, mono = self._clock.now(), self._clock.monotonic()
        back = (mono - self._mono) - (wall - self._wall)
        self._wall, self._mono = wall, mono
        if back > _TOLERATED:
            self._back, self._lost = True, self._lost + max(0.0, back - self._ahead)
            self._new.clear()
        if abs(back) > _TOLERATED:
            self._ahead = max(0.0, self._ahead - back)
        return self._back

    def stored(self, due: float) -> bool:
        """A timer for this time was stored; returns as `look` does."""
        if not self.look():
            return False
        self._new.add(due)
        return True

    def shift(self, timers: Collection[Timer]) -> None:
        """Take in what `look` has found: these are the stored timers."""
        lost, self._back, self._lost = self._lost, False, 0.0
        for timer in timers if lost else ():
            known = self._early.get(timer.id)
            if known is not None and known.timer.due == timer.due:
                self._early[timer.id] = Early(timer, known.at - lost)
            elif timer.due not in self._new:
                self._early[timer.id] = Early(timer, timer.due - lost)
        self._new.clear()
        self.resume(timers)

    def resume(self, timers: Iterable[Timer]) -> None:
        """What was set at a time that has not come yet waits for as long as it was to wait."""
        now = self._clock.now()
        for timer in timers:
            told = decode(timer.raw)
            was_set = told.get("set", timer.due if "path" not in told or "ref" in told else 0.0)
            if was_set > now + _TOLERATED and timer.id not in self._early:
                self._early[timer.id] = Early(timer, now + timer.due - was_set)

    @property
    def next(self) -> float:
        """When the first of them is due, in the time of the clock; infinity if there is none."""
        return min((one.at for one in self._early.values()), default=float("inf"))

    def due(self) -> list[Timer]:
        """Those that are due by now, once."""
        now = self._clock.now()
        found = [one for one in self._early.values() if one.at <= now]
        for one in found:
            del self._early[one.timer.id]
        return [one.timer for one in sorted(found, key=lambda one: one.at)]
