"""A run that is being driven, and what comes in for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import anyio

from eventcore.kernel.records import Batch, Guard
from eventcore.workflows.reducer import Call, Tick, TimerFired
from eventcore.workflows.scribe import Active


@dataclass(slots=True)
class Arrival:
    """A tick, with what has to be committed along with it."""

    tick: Tick
    effects: Batch | None = None
    guards: tuple[Guard, ...] = ()


@dataclass(slots=True)
class Driven:
    """An active run with its inbox."""

    active: Active
    inbox: deque[Arrival] = field(default_factory=deque)
    bell: anyio.Event = field(default_factory=anyio.Event)
    calls: int = 0
    parked: list[Call] = field(default_factory=list)
    #: The missing intents that the run's row names as what it waits for.
    told: frozenset[str] = frozenset()

    #: Steps whose timers are in the inbox or being committed: they are due in the store until then.
    firing: set[str] = field(default_factory=set)

    @property
    def only_one_unsettled(self) -> bool:
        """Whether nothing else of the run can come in while its one step is being called."""
        return sum(step.status in ("running", "waiting") for step in self.active.state.steps.values()) == 1

    def put(self, arrival: Arrival) -> None:
        self.inbox.append(arrival)
        self.bell.set()

    def fire(self, tick: TimerFired) -> None:
        """Put the tick of a timer, unless it is on its way already."""
        if tick.path not in self.firing:
            self.firing.add(tick.path)
            self.put(Arrival(tick))

    async def next(self) -> Arrival:
        while not self.inbox:
            self.bell = anyio.Event()
            await self.bell.wait()
        return self.inbox.popleft()
