"""A run that is being driven, and what comes in for it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio

from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.records import Batch, Guard
from eventcore.workflows.decision import Decision
from eventcore.workflows.external.resume import answer_ref
from eventcore.workflows.reducer import reduce
from eventcore.workflows.scribe import Active
from eventcore.workflows.ticks import Answered, Asked, Call, StepSucceeded, Tick, TimerFired


@dataclass(slots=True)
class Arrival:
    """A tick, with what has to be committed along with it."""

    tick: Tick
    effects: Batch | None = None
    guards: tuple[Guard, ...] = ()
    #: Set once what it decides is committed.
    done: anyio.Event | None = None
    #: Why what was asked for was not done: one of its guards does not hold.
    refused: EventCoreError | None = None
    #: Whether it was followed by anything; None if nobody came to it: the run was taken over, or was over.
    changed: bool | None = None

    def settled(self, decision: Decision | None) -> None:
        """Tell who asked what came of it. None: nothing, since this copy of the run is out of date."""
        if decision is not None:
            self.changed = bool(decision.entries)
        if self.done is not None:
            self.done.set()

    @property
    def bare(self) -> bool:
        """Whether it is a step's success and nothing else, so that others may share its commit."""
        return type(self.tick) is StepSucceeded and not self.effects and not self.guards and self.done is None


#: How many more may share a commit: it has their journal entries, and all wait for it.
_MOST_JOINED = 99
_UNSETTLED = frozenset({"running", "waiting"})


@dataclass(slots=True)
class Driven:
    """An active run with its inbox."""

    active: Active
    inbox: deque[Arrival] = field(default_factory=deque)
    bell: anyio.Event = field(default_factory=anyio.Event)
    calls: int = 0
    #: The path that the run's own task is calling, without a task beside it.
    inline: str | None = None
    parked: list[Call] = field(default_factory=list)
    #: The missing intents that the run's row names as what it waits for.
    told: frozenset[str] = frozenset()

    #: Calls under way by path, so that they can be cut off.
    scopes: dict[str, anyio.CancelScope] = field(default_factory=dict)
    #: Steps whose timers are in the inbox or being committed: they are due in the store until then.
    firing: set[str] = field(default_factory=set)
    #: Set when what is settled beside a call of the run's own task is committed; None if nothing is.
    aside: anyio.Event | None = None
    closed: bool = False

    @property
    def only_one_unsettled(self) -> bool:
        """Whether nothing else of the run can come in while its one step is being called."""
        found = 0
        for step in self.active.state.steps.values():
            if step.status in _UNSETTLED:
                found += 1
        return found == 1

    @property
    def busy(self) -> bool:
        """Whether anything of it is being called, or has yet to be committed.

        A run that is stored as waiting is not looked at when an engine takes it over, so it must not be said too soon.
        """
        return self.calls > 0 or self.inline is not None or bool(self.inbox or self.parked)

    def join(self, decision: Decision) -> list[Arrival]:
        """Let what has come in meanwhile into the same commit: the steps that succeeded, as long as nothing special
        follows from one. They are taken out of the inbox. Without this a `foreach` would pay a commit an item."""
        joined: list[Arrival] = []
        while self.inbox and decision.end is None and len(joined) < _MOST_JOINED:
            if not self.inbox[0].bare or not decision.plain:
                break
            following = reduce(self.active.plan, decision.state, self.inbox[0].tick)
            if not following.plain:
                break
            decision.join(following)
            joined.append(self.inbox.popleft())
        return joined

    @contextmanager
    def calling(self, path: str) -> Iterator[None]:
        """The run's own task calls a step in the body, which `put` may cut off."""
        scope = self.scopes[path] = anyio.CancelScope()
        self.inline = path
        with scope:
            yield
        self.inline = None
        del self.scopes[path]

    @asynccontextmanager
    async def asides(self) -> AsyncIterator[None]:
        """In the body something is settled while the run's own task is in a call; that task waits before it commits."""
        while self.aside is not None:
            await self.aside.wait()
        over = self.aside = anyio.Event()
        try:
            yield
        finally:
            self.aside = None
            over.set()

    def put(self, arrival: Arrival) -> None:
        self.inbox.append(arrival)
        self.bell.set()
        if self.inline is not None and self.stops(arrival.tick):
            self.scopes[self.inline].cancel()  # the run's own task is in that call, and has to look into its inbox

    def stops(self, tick: Tick) -> bool:
        """Whether the reducer will drop the calls under way; a cancel that comes a second time leaves undoing alone."""
        if isinstance(tick, Answered) and tick.path == self.inline:  # an answer that overtakes the response
            return tick.ref == answer_ref(self.active.run.id, tick.path, self.active.state.steps[tick.path].attempt)
        if not isinstance(tick, Asked):
            return False
        return tick.verb == "terminate" or (tick.verb == "cancel" and self.active.state.phase == "forward")

    def fire(self, tick: TimerFired | Answered | Asked) -> None:
        """Put the tick of a timer, unless it is on its way already."""
        name = timer_name(tick)
        if name not in self.firing:
            self.firing.add(name)
            self.put(Arrival(tick))

    def cut_off(self, paths: Iterable[str]) -> None:
        """End calls whose results are of no use any more."""
        for path in paths:
            if scope := self.scopes.get(path):
                scope.cancel()

    def close(self) -> None:
        """Nobody drives it any more: end its calls, and let go of who asked for something too late."""
        self.closed = True
        self.cut_off([*self.scopes])
        for arrival in self.inbox:
            arrival.settled(None)

    async def next(self) -> Arrival:
        while not self.inbox:
            self.bell = anyio.Event()
            await self.bell.wait()
        return self.inbox.popleft()


def timer_name(tick: Tick) -> str:
    """What tells the timers of a run apart."""
    return tick.timer if isinstance(tick, Answered | Asked) else tick.path if isinstance(tick, TimerFired) else ""
