"""A clock that tests put forward, in place of limits so short that a busy machine overtakes them."""

from __future__ import annotations

from eventcore import EventCore
from eventcore.kernel.clock import SystemClock


class Ahead(SystemClock):
    """The system's clock; the time of day moves forward by hand, durations stay as they are."""

    seconds = 0.0

    def now(self) -> float:
        return super().now() + self.seconds


#: Seconds that no stall of the machine uses up; yet less than what is left of a lease at any time (20 of its 30), so
#: that letting them pass takes nobody's runs away.
LIMIT = 12.0


def pass_limit(core: EventCore) -> None:
    """Let `LIMIT` pass, and the engine, whose clock has to be an `Ahead`, look for stored timers that are due now."""
    clock = core.engine.clock
    assert isinstance(clock, Ahead)
    clock.seconds += LIMIT + 1
    core.engine.runner._timers.expect(0.0)
