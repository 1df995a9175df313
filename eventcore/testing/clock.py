"""Time that stands still until a test moves it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import anyio
from anyio import from_thread
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

#: 2026-01-01T00:00:00Z.
START = 1_767_225_600.0


@dataclass(eq=False, slots=True)
class _Sleeper:
    until: float
    loop: EventLoopToken
    thread: int = field(default_factory=threading.get_ident)
    woken: anyio.Event = field(default_factory=anyio.Event)

    def wake(self) -> None:
        if self.thread == threading.get_ident():
            self.woken.set()
        else:
            from_thread.run_sync(self.woken.set, token=self.loop)


class VirtualClock:
    """The port `Clock`, for tests: `EventCore(clock=VirtualClock())`. Safe to use from several threads.

    Time limits of calls and hooks are measured in real time all the same: what hangs must not hang a test for ever.

    Args:
        start: what `now` begins with, seconds since the epoch.
    """

    def __init__(self, start: float = START) -> None:
        self._start, self._passed = start, 0.0
        self._sleepers: list[_Sleeper] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._start + self._passed

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._passed

    async def sleep(self, seconds: float) -> None:
        """Return once time was moved by so much."""
        if seconds <= 0:
            await checkpoint()
            return
        sleeper = _Sleeper(self._passed + seconds, current_token())
        with self._lock:
            self._sleepers.append(sleeper)
        try:
            await sleeper.woken.wait()
        finally:
            with self._lock:
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Move time forward at one stroke. All that is due by then wakes up, in the order in which it is due; what it
        plans next counts from the new time.

        Raises:
            ValueError: time does not run backwards.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards")
        with self._lock:
            self._passed += seconds
            due = sorted((one for one in self._sleepers if one.until <= self._passed), key=lambda one: one.until)
            self._sleepers = [one for one in self._sleepers if one.until > self._passed]
        for sleeper in due:
            sleeper.wake()
