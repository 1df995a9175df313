"""Testing workflows without an engine: the real reducer, a clock that skips time, and fakes for everything outside.

    rehearsal = Rehearsal(definition, intents={"classify_text": lambda params: {"label": "question"}})
    run = rehearsal.run({"text": "why?"}, events=[At(86400, "approval_given", {"run": "run-1"})])
    assert run.status == "completed" and run.seconds == 86400
    rehearsal.crash_everywhere({"text": "why?"}, events=[...])   # from every prefix of the journal, the same end

What is rehearsed is the definition and what the engine decides. Storage, workers and the network are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventcore.kernel.json import decode, encode
from eventcore.workflows.definition import Workflow
from eventcore.workflows.listening import fits
from eventcore.workflows.plan import SIGNALLED, Plan
from eventcore.workflows.reducer import Decision, reduce
from eventcore.workflows.registry import Registry
from eventcore.workflows.state import Entry, State, fold
from eventcore.workflows.ticks import (
    Answered,
    Begun,
    Call,
    End,
    Listen,
    Resumed,
    StepBroke,
    StepSucceeded,
    Tick,
    TimerFired,
)

#: A fake: gets the parameters, returns the result or raises.
Fake = Callable[[Any], Any]
_MAX_TICKS = 100_000


@dataclass(frozen=True, slots=True)
class At:
    """An event that comes `after` seconds from the start of the run."""

    after: float
    type: str
    data: Any = None


def signal(after: float, name: str, data: Any = None) -> At:
    """A signal to the run, `after` seconds from its start."""
    return At(after, SIGNALLED, {"run": "run-1", "signal": name, "data": data})


@dataclass(slots=True)
class Rehearsed:
    """How a rehearsed run ended.

    Attributes:
        status: `completed`, `failed`, `cancelled`, `terminated`; `stuck` if nothing that it waits for comes.
        seconds: on the run's own clock.
        journal: entries with the time of each.
        calls: (path, name, params) of every call made, in order.
        emitted: (type, data) of the events that it emitted.
    """

    status: str
    output: Any
    error: dict[str, Any] | None
    seconds: float
    journal: list[tuple[float, Entry]] = field(default_factory=list)
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    emitted: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def end(self) -> tuple[str, Any, dict[str, Any] | None]:
        """What must be the same however often the engine dies on the way."""
        return self.status, self.output, self.error


class Rehearsal:
    """One definition with the fakes that it is played against.

    Args:
        source: as `core.workflows.define` takes it.
        intents: by intent; an intent without a fake fails its step.
        workflows: by slug, for steps that start others, here or in another engine.
        hooks: by hook.
        start: the time at which runs begin, in seconds since the epoch.
    """

    def __init__(
        self,
        source: str | Mapping[str, Any] | Workflow | Path,
        *,
        intents: Mapping[str, Fake] | None = None,
        workflows: Mapping[str, Fake] | None = None,
        hooks: Mapping[str, Fake] | None = None,
        start: float = 1_800_000_000.0,
    ) -> None:
        self.plan: Plan = Registry().compile(source)
        given = {"plugin": intents, "workflow": workflows, "hook": hooks}
        self._fakes = {kind: {} if fakes is None else fakes for kind, fakes in given.items()}
        self._start = start

    def run(self, inputs: Mapping[str, Any] | None = None, *, events: Sequence[At] = ()) -> Rehearsed:
        """Play a whole run.

        Raises:
            InvalidPayload: the inputs do not fit.
        """
        return _Play(self.plan, self._fakes, self._fresh(inputs), self._start, events).begin()

    def resume(
        self,
        journal: Sequence[tuple[float, Entry]],
        inputs: Mapping[str, Any] | None = None,
        *,
        events: Sequence[At] = (),
    ) -> Rehearsed:
        """Go on from a recorded journal, as an engine does that finds it in its store.

        The journal may be that of another form of the definition: what it finished is not done again.
        """
        return _Play(self.plan, self._fakes, self._fresh(inputs), self._start, events).go_on(journal)

    def crash_everywhere(self, inputs: Mapping[str, Any] | None = None, *, events: Sequence[At] = ()) -> Rehearsed:
        """Play the run; then go on from every prefix of its journal that a commit ended with.

        Returns:
            the run without a crash.

        Raises:
            AssertionError: a prefix leads to another end; names it.
        """
        whole = _Play(self.plan, self._fakes, self._fresh(inputs), self._start, events)
        expected = whole.begin()
        for count in whole.commits:
            again = self.resume(expected.journal[:count], inputs, events=events)
            if again.end != expected.end:
                raise AssertionError(
                    f"after a crash behind journal entry {count} the run ends {again.end}, not {expected.end}"
                )
            done = {entry.path for _, entry in expected.journal[:count] if entry.type == "step_completed"}
            if twice := done & {path for path, _, _ in again.calls}:
                raise AssertionError(f"after a crash behind journal entry {count} it runs again: {sorted(twice)}")
        return expected

    def _fresh(self, inputs: Mapping[str, Any] | None) -> State:
        raw = self.plan.check_inputs(inputs or {})
        about = {"id": "run-1", "slug": self.plan.slug, "tenant": "default", "actor": "test", "created": self._start}
        return State(inputs=decode(raw), run=about)


class _Play:
    """One run, from its beginning or from a journal."""

    def __init__(
        self, plan: Plan, fakes: Mapping[str, Mapping[str, Fake]], state: State, start: float, events: Sequence[At]
    ) -> None:
        self._plan, self._fakes, self._state, self._start = plan, fakes, state, start
        self._now = start
        self._events = sorted(events, key=lambda event: event.after)
        self._heard: list[dict[str, Any]] = []
        self._calls: list[Call] = []
        self._timers: dict[str, float] = {}
        self._listens: dict[str, Listen] = {}
        self._end: End | None = None
        self._result = Rehearsed("stuck", None, None, 0.0)
        #: Lengths of the journal at which a commit ended.
        self.commits: list[int] = []

    def begin(self) -> Rehearsed:
        self._tick(Begun(self._now))
        return self._play()

    def go_on(self, journal: Sequence[tuple[float, Entry]]) -> Rehearsed:
        self._result.journal = [*journal]
        self._state = fold(self._state, [entry for _, entry in journal])
        self._now = journal[-1][0] if journal else self._start
        self._hear()
        self._tick(Resumed(self._now))
        return self._play()

    def _play(self) -> Rehearsed:
        for _ in range(_MAX_TICKS):
            if self._end is not None:
                break
            if (tick := self._next()) is None:
                break
            self._tick(tick)
        result = self._result
        result.seconds = self._now - self._start
        if self._end is not None:
            result.status, result.output, result.error = self._end.status, self._end.output, self._end.error
        return result

    def _tick(self, tick: Tick) -> None:
        decision: Decision = reduce(self._plan, self._state, tick)
        self._state = decision.state
        result = self._result
        result.journal += [(self._now, entry) for entry in decision.entries]
        result.emitted += [(one.type, one.data) for one in decision.publishes]
        if decision.entries:
            self.commits.append(len(result.journal))
        dropped = set(decision.dropped)
        self._calls = [call for call in self._calls if call.path not in dropped] + decision.calls
        for path in decision.waits_done:
            self._timers.pop(path, None)
        for path in decision.listens_done:
            self._listens.pop(path, None)
        self._timers |= {wait.path: wait.due for wait in decision.waits}
        self._listens |= {listen.path: listen for listen in decision.listens}
        self._end = decision.end or self._end

    def _next(self) -> Tick | None:
        """The next thing that happens; the clock skips to it."""
        if self._calls:
            return self._called(self._calls.pop(0))
        if (heard := self._answer()) is not None:
            return heard
        path = min(self._timers, key=lambda one: self._timers[one], default=None)
        due = self._timers[path] if path is not None else None
        if self._events and (due is None or self._start + self._events[0].after <= due):
            self._now = max(self._now, self._start + self._events[0].after)
            self._hear()
            return self._next()
        if path is None or due is None:
            return None
        del self._timers[path]
        self._now = max(self._now, due)
        return TimerFired(path, self._now)

    def _called(self, call: Call) -> Tick:
        self._result.calls.append((call.path, call.intent, call.params))
        fake = self._fakes[call.kind].get(call.intent)
        try:
            if fake is None:
                raise LookupError(f"the rehearsal has no fake for the {call.kind} {call.intent!r}")
            output = decode(encode(fake(call.params), what=f"the result of {call.intent}"))
        except Exception as error:  # noqa: BLE001 - a fake fails the way that the real thing would
            return self._broke(call, type(error).__name__, str(error))
        if isinstance(output, dict) and output.get("success") is False:
            return self._broke(call, str(output.get("error") or "PluginFailed"), str(output.get("message", "")))
        return StepSucceeded(call.path, call.attempt, output, self._now)

    def _broke(self, call: Call, kind: str, message: str) -> StepBroke:
        return StepBroke(call.path, call.attempt, {"type": kind, "message": message}, self._now, 0.5)

    def _hear(self) -> None:
        """Take in the events whose time has come."""
        while self._events and self._start + self._events[0].after <= self._now:
            event = self._events.pop(0)
            number = len(self._heard) + 1
            self._heard.append({"id": f"event-{number}", "type": event.type, "data": event.data, "actor": "test"})

    def _answer(self) -> Answered | None:
        """What ends a wait, among all that was heard since the run began."""
        for path, listen in self._listens.items():
            for event in self._heard:
                if (
                    event["id"] not in self._state.consumed
                    and event["type"] == listen.event
                    and fits(event, listen.match)
                ):
                    del self._listens[path]
                    output = event["data"]["data"] if event["type"] == SIGNALLED else event
                    return Answered(path, event["id"], output, None, self._now)
        return None
