"""Keeps the time for runs that wait: one task for all stored timers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from eventcore.kernel.errors import StoreError
from eventcore.kernel.json import decode
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import Timer
from eventcore.workflows.setbacks import Setbacks
from eventcore.workflows.ticks import Answered, Asked, TimerFired

log = logging.getLogger("eventcore.workflows")

#: A wait is measured monotonically, so a wall clock set forward is seen only at the next look.
_LOOK_EVERY = 30.0
_AFTER_FIRING = 0.005
_NOTHING_OURS = 1.0
#: Later than any timer; and how many timers, the next ones, are looked at where a clock was set back.
_EVER, _MOST = 9e15, 10_000


def tick_of(timer: Timer, at: float, jitter: float) -> TimerFired | Answered | Asked:
    """What a timer row tells its run: that a time has come, what it waited for, or what its parent wants of it."""
    told = decode(timer.raw)
    if "ask" in told:
        return Asked(told["ask"], told["by"], at, timer=timer.id)
    if "ref" in told:
        return Answered(told["path"], told["ref"], told.get("output"), told.get("error"), at, timer.id, jitter)
    return TimerFired(told["path"], at, timer.due)


class TimerKeeper:
    """Sleeps until the next stored timer is due and fires it.

    Args:
        fire: deals with a due timer; returns whether it was this engine's.
        look_every: the longest sleep between two looks at the clock, in seconds.
    """

    def __init__(
        self, store: Store, clock: Clock, fire: Callable[[Timer], Awaitable[bool]], *, look_every: float = _LOOK_EVERY
    ) -> None:
        self._store, self._clock, self._fire, self._look_every = store, clock, fire, look_every
        self._bell = anyio.Event()
        self._next_due = float("inf")
        self._setbacks = Setbacks(clock)
        #: Whether something is due that was not looked at yet.
        self.behind = False

    def expect(self, due: float) -> None:
        """A timer was stored; wake up if it is the next one."""
        self.behind |= due <= self._clock.now()
        if self._setbacks.stored(due) or due < self._next_due:
            self._bell.set()

    async def keep(self) -> None:
        """Keep the time until cancelled."""
        begun = False
        while True:
            self._bell = anyio.Event()
            try:
                if not begun:
                    self._setbacks.resume(await self._store.timers(_EVER, _MOST))
                    begun = True
                if self._setbacks.look():
                    log.warning("the clock was set back; timers keep to what they were to wait")
                    self._setbacks.shift(await self._store.timers(_EVER, _MOST))
                self._next_due = min(await self._store.next_timer() or float("inf"), self._setbacks.next)
                wait = min(self._next_due - self._clock.now(), self._look_every)
            except StoreError as error:
                log.error("timers cannot be read: %s", error)
                wait = _NOTHING_OURS
            if wait > 0:
                self.behind = self._bell.is_set()
            else:
                # What is due but not ours, or not yet committed as done, must not make this loop spin.
                self.behind = await self._fire_due() > 0
                wait = _AFTER_FIRING if self.behind else _NOTHING_OURS
            with anyio.move_on_after(wait):
                await self._bell.wait()

    async def _fire_due(self) -> int:
        """Fire what is due; return how many timers were ours."""
        fired = 0
        try:
            for timer in [*self._setbacks.due(), *await self._store.timers(self._clock.now())]:
                fired += await self._fire(timer)
        except StoreError as error:
            log.error("timers could not fire: %s", error)
        return fired
