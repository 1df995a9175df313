"""Keeps the index of waiting steps in step with the store, and wakes whom no commit has woken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventcore.kernel.event import Event
from eventcore.kernel.ports import Store
from eventcore.kernel.records import Batch, Listening
from eventcore.workflows.listening import Listeners, wake_timer
from eventcore.workflows.lookback import overlooked
from eventcore.workflows.saving import Saver
from eventcore.workflows.timers import TimerKeeper


class Waker:
    """One a runner.

    Args:
        spawn: begins a task of the runner.
    """

    def __init__(
        self, store: Store, saver: Saver, listeners: Listeners, timers: TimerKeeper, spawn: Callable[..., None]
    ) -> None:
        self._store, self._saver, self._listeners = store, saver, listeners
        self._timers, self._spawn = timers, spawn

    async def load(self) -> None:
        """Read who waits."""
        after = ""
        while rows := await self._store.listening(after):
            for row in rows:
                self._listeners.add(row)
            after = rows[-1].id

    async def catch_up(self, since: float, wake: Callable[..., Any], *, reload: bool) -> None:
        """Wake those for whom an event is stored that no commit has told them of.

        A step may begin to wait while an event is under way: then the event's commit does not know of it, and an engine
        that dies right after has not told it either.

        Args:
            since: when the oldest of the runs was created, seconds since the epoch.
            wake: goes on with a run, which looks back by itself.
            reload: the rows may be those of another engine.
        """
        if reload:
            await self.load()
        for run in await overlooked(self._store, self._listeners, since):
            self._spawn(wake, run)

    def heard(self, event: Event) -> None:
        """An event was committed: wake who waits for it, if that commit does not do so already.

        It does not if another engine made it, or if the step began to wait while it was under way.
        """
        for row in self._listeners.find(event):
            woken = row.id in self._listeners.woken
            self._listeners.remove(row.id)
            if woken:
                self._timers.expect(event.at)
            else:
                self._spawn(self._wake, row, event)

    async def _wake(self, row: Listening, event: Event) -> None:
        await self._saver.save(Batch(timers=[wake_timer(row, event)], listening_done=[row.id]), [])
        self._timers.expect(event.at)
