"""The reducer: any run ends, whatever the order of things, and a journal's prefix is the state it was written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventcore.workflows.plan import Plan
from eventcore.workflows.reducer import (
    Begun,
    Decision,
    Entry,
    Resumed,
    State,
    StepBroke,
    StepSucceeded,
    Tick,
    TimerFired,
    fold,
    reduce,
)
from eventcore.workflows.registry import Registry

#: A busy machine takes long to make examples, which says nothing of them.
ANY_PACE: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def plan_of(steps: list[dict[str, Any]], **more: Any) -> Plan:
    return Registry().compile({"slug": "w", "steps": steps, **more})


def fresh(inputs: dict[str, Any] | None = None) -> State:
    return State(inputs=inputs or {}, run={"id": "r"})


@dataclass
class World:
    """Everything outside the reducer: a journal, calls that are under way, timers, a clock.

    Attributes:
        fails: how often each step fails before it succeeds.
    """

    plan: Plan
    fails: dict[str, int]
    state: State = field(default_factory=fresh)
    journal: list[Entry] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    made: list[tuple[str, int]] = field(default_factory=list)
    broke: dict[str, int] = field(default_factory=dict)
    timers: dict[str, float] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    ends: list[Any] = field(default_factory=list)
    now: float = 0.0

    def tick(self, tick: Tick) -> Decision:
        decision = reduce(self.plan, self.state, tick)
        self.state = decision.state
        self.journal += decision.entries
        for path in decision.waits_done:
            self.timers.pop(path, None)
        for wait in decision.waits:
            self.timers[wait.path] = wait.due
        for call in decision.calls:
            assert call.path not in self.calls, f"{call.path} is called while it is being called"
            self.calls[call.path] = call.attempt
            self.made.append((call.path, call.attempt))
        self.published += [one.path for one in decision.publishes]
        if decision.end:
            self.ends.append(decision.end)
        replayed = fold(fresh(), self.journal)
        assert replayed.steps == self.state.steps
        self._nothing_lost()
        return decision

    def _nothing_lost(self) -> None:
        for path, step in self.state.steps.items():
            if step.status == "running":
                assert self.calls.get(path) == step.attempt, f"{path} runs but nobody calls it"
            if step.status == "waiting" and not self.ends:  # a run that has failed waits for nothing any more
                assert self.timers.get(path) == step.due, f"{path} waits but no timer would wake it"
        if self.ends:
            assert not self.timers, "a timer would wake a run that is over"
        else:
            assert self.calls or self.timers, "nothing is under way and the run has not ended"

    def choices(self) -> list[tuple[str, str]]:
        return [("call", path) for path in sorted(self.calls)] + [("timer", path) for path in sorted(self.timers)]

    def happen(self, kind: str, path: str) -> None:
        if kind == "timer":
            self.now = max(self.now, self.timers[path])
            self.tick(TimerFired(path, self.now))
            return
        attempt = self.calls.pop(path)
        if self.broke.get(path, 0) < self.fails.get(path, 0):
            self.broke[path] = self.broke.get(path, 0) + 1
            self.tick(StepBroke(path, attempt, {"type": "Error", "message": "no"}, self.now, 0.5))
        else:
            self.tick(StepSucceeded(path, attempt, {"of": path}, self.now))

    def crash(self) -> None:
        """The process dies: calls are forgotten, journal and timers stay."""
        self.calls.clear()
        self.state = fold(fresh(), self.journal)
        self.tick(Resumed(self.now))


@st.composite
def worlds(draw: st.DrawFn, *, blocking: bool) -> World:
    count = draw(st.integers(1, 8))
    steps: list[dict[str, Any]] = []
    fails: dict[str, int] = {}
    for number in range(count):
        name = f"s{number}"
        step: dict[str, Any] = {"id": name}
        kind = draw(st.sampled_from(["plugin", "plugin", "plugin", "emit", "sleep"]))
        step[kind] = {"plugin": "p", "emit": "e", "sleep": draw(st.integers(0, 5))}[kind]
        if number == 0 or draw(st.booleans()):
            before = [f"s{n}" for n in range(number)]
            step["needs"] = draw(st.lists(st.sampled_from(before), max_size=3, unique=True)) if before else []
        if draw(st.integers(0, 4)) == 0:
            step["if"] = draw(st.sampled_from(["true", "false", "inputs.missing"]))
        if kind == "plugin":
            fails[name] = draw(st.integers(0, 3))
            if draw(st.booleans()):
                step["retry"] = {"attempts": draw(st.integers(1, 3)), "initial": 1, "jitter": draw(st.booleans())}
        if not blocking or draw(st.booleans()):
            step["continue_on_error"] = True
        steps.append(step)
    return World(plan_of(steps), fails)


@given(worlds(blocking=True), st.data())
@settings(max_examples=150, **ANY_PACE)
def test_every_run_ends_and_calls_are_neither_lost_nor_doubled(world: World, data: st.DataObject) -> None:
    crashes = data.draw(st.integers(0, 5))
    world.tick(Begun(0.0))
    while not world.ends:
        if crashes and data.draw(st.booleans()):
            crashes -= 1
            world.crash()
        else:
            world.happen(*data.draw(st.sampled_from(world.choices())))
    assert len(world.ends) == 1
    assert len(set(world.made)) == len(world.made)  # no attempt is made twice
    assert len(set(world.published)) == len(world.published)
    assert world.state.ended
    for late in (Resumed(9.0), TimerFired("s0", 9.0), StepSucceeded("s0", 1, None, 9.0)):
        decision = reduce(world.plan, world.state, late)
        assert not (decision.entries)
        assert not (decision.calls)
        assert not (decision.end)
        assert not (decision.publishes)


@given(worlds(blocking=False), st.data())
@settings(max_examples=150, **ANY_PACE)
def test_any_order_of_parallel_branches_ends_the_same(world: World, data: st.DataObject) -> None:
    def run(choose: Any) -> Any:
        one = World(world.plan, world.fails)
        one.tick(Begun(0.0))
        while not one.ends:
            one.happen(*choose(one.choices()))
        return one.ends[0], {path: (step.status, step.output, step.attempt) for path, step in one.state.steps.items()}

    plain = run(lambda choices: choices[0])
    assert run(lambda choices: choices[-1]) == plain
    assert run(lambda choices: data.draw(st.sampled_from(choices))) == plain


@given(worlds(blocking=True), st.data())
@settings(max_examples=100, **ANY_PACE)
def test_a_prefix_of_the_journal_is_the_state_it_was_written_in(world: World, data: st.DataObject) -> None:
    states = [(0, fresh())]
    world.tick(Begun(0.0))
    states.append((len(world.journal), world.state))
    while not world.ends:
        world.happen(*data.draw(st.sampled_from(world.choices())))
        states.append((len(world.journal), world.state))
    for length, state in states:
        assert fold(fresh(), world.journal[:length]).steps == state.steps
        half = data.draw(st.integers(0, length))
        assert fold(fold(fresh(), world.journal[:half]), world.journal[half:length]).steps == state.steps


@given(worlds(blocking=True), st.data())
@settings(max_examples=100, **ANY_PACE)
def test_the_reducer_is_pure(world: World, data: st.DataObject) -> None:
    world.tick(Begun(0.0))
    while not world.ends:
        before = repr(world.state)
        kind, path = data.draw(st.sampled_from(world.choices()))
        tick: Tick = TimerFired(path, 99.0) if kind == "timer" else StepSucceeded(path, world.calls[path], 1, 99.0)
        once, again = reduce(world.plan, world.state, tick), reduce(world.plan, world.state, tick)
        assert repr(once) == repr(again)
        assert repr(world.state) == before
        world.happen(kind, path)


# -- one by one -------------------------------------------------------------------------------------------------------


def wait_after(retry: dict[str, Any], failures: int, jitter: float = 1.0, retry_after: float | None = None) -> float:
    plan = plan_of([{"id": "a", "plugin": "p", "retry": {"attempts": 50, "initial": 2, "max": 100, **retry}}])
    world = World(plan, {})
    world.tick(Begun(0.0))
    for number in range(1, failures + 1):
        world.calls.clear()
        error = {"type": "E", "message": ""}
        decision = world.tick(StepBroke("a", number, error, 1000.0, jitter, retry_after))
        if number < failures:
            world.tick(TimerFired("a", decision.waits[0].due))
    return decision.waits[0].due - 1000.0


def test_backoff() -> None:
    plain = {"jitter": False}
    assert [wait_after(plain, n) for n in (1, 2, 3, 6, 7, 40)] == [2, 4, 8, 64, 100, 100]
    assert [wait_after({**plain, "backoff": "constant"}, n) for n in (1, 2, 5)] == [2, 2, 2]
    assert wait_after({**plain, "backoff": "constant", "initial": 500}, 1) == 100  # never more than `max`
    assert wait_after({}, 3, jitter=0.25) == 2  # full jitter: a random part of 8
    assert wait_after({}, 3, jitter=0.0) == 0
    assert wait_after(plain, 1, retry_after=17.0) == 17  # what the error itself asks for


@pytest.mark.parametrize(
    ("rule", "error", "again"),
    [
        ({}, "ValueError", True),
        ({"unless": ["ValueError"]}, "ValueError", False),
        ({"unless": ["ValueError"]}, "KeyError", True),
        ({"only": ["KeyError"]}, "ValueError", False),
        ({"only": ["KeyError"]}, "KeyError", True),
        ({"attempts": 1}, "KeyError", False),
    ],
)
def test_what_is_tried_again(rule: dict[str, Any], error: str, again: bool) -> None:
    world = World(plan_of([{"id": "a", "plugin": "p", "retry": rule}]), {})
    world.tick(Begun(0.0))
    world.calls.clear()
    decision = world.tick(StepBroke("a", 1, {"type": error, "message": ""}, 0.0, 0.5))
    assert decision.entries[0].type == ("step_retrying" if again else "step_failed")


def test_interruptions_do_not_use_up_the_retries() -> None:
    world = World(plan_of([{"id": "a", "plugin": "p", "retry": {"attempts": 2, "jitter": False}}]), {"a": 1})
    world.tick(Begun(0.0))
    for _ in range(5):
        world.crash()
    world.happen("call", "a")
    assert world.state.steps["a"].status == "waiting"
    world.happen("timer", "a")
    world.happen("call", "a")
    assert world.ends[0].status == "completed"
    assert [attempt for _, attempt in world.made] == [*range(1, 8)]
    interrupted = [entry.data.get("interrupted", False) for entry in world.journal if entry.type == "step_started"]
    assert interrupted == [False, *[True] * 5, False]


def test_a_timer_that_fires_for_an_older_wait_does_nothing() -> None:
    world = World(plan_of([{"id": "a", "plugin": "p", "retry": {"jitter": False, "initial": 10}}]), {"a": 2})
    world.tick(Begun(0.0))
    world.happen("call", "a")
    world.happen("timer", "a")
    world.happen("call", "a")  # waits again, 20 s this time
    due = world.timers["a"]
    decision = reduce(world.plan, world.state, TimerFired("a", world.now))
    assert not decision.entries
    assert not decision.waits_done  # the newer timer stays
    world.tick(TimerFired("a", world.now))
    assert world.timers == {"a": due}


def test_late_and_foreign_completions_are_ignored() -> None:
    world = World(plan_of([{"id": "a", "plugin": "p"}, {"id": "b", "plugin": "p"}]), {})
    world.tick(Begun(0.0))
    world.crash()
    assert not reduce(world.plan, world.state, StepSucceeded("a", 1, "late", 1.0)).entries
    assert not reduce(world.plan, world.state, StepSucceeded("b", 1, "early", 1.0)).entries
    assert not reduce(world.plan, world.state, StepSucceeded("nobody", 1, "x", 1.0)).entries
    assert not reduce(world.plan, world.state, StepBroke("a", 1, {"type": "E", "message": ""}, 1.0, 0.5)).entries
    assert not reduce(world.plan, world.state, TimerFired("nobody", 1.0)).entries


def test_a_failure_stops_what_has_not_begun_and_lets_the_rest_finish() -> None:
    steps = [
        {"id": "a", "plugin": "p"},
        {"id": "after_a", "plugin": "p"},
        {"id": "b", "plugin": "p", "needs": []},
        {"id": "after_b", "plugin": "p"},
    ]
    world = World(plan_of(steps), {"a": 1})
    world.tick(Begun(0.0))
    world.happen("call", "a")
    assert not world.ends
    world.happen("call", "b")
    assert world.ends[0].status == "failed"
    assert world.ends[0].error == {"step": "a", "type": "Error", "message": "no"}
    assert set(world.state.steps) == {"a", "b"}


def test_outputs() -> None:
    plan = plan_of([{"id": "a", "plugin": "p"}], outputs={"x": "{{ steps.a.output.of }}", "s": "{{ steps.a.status }}"})
    world = World(plan, {})
    world.tick(Begun(0.0))
    world.happen("call", "a")
    assert world.ends[0].output == {"x": "a", "s": "completed"}

    world = World(plan_of([{"id": "a", "plugin": "p"}], outputs="{{ steps.a.output.missing }}"), {})
    world.tick(Begun(0.0))
    world.happen("call", "a")
    assert (world.ends[0].status, world.ends[0].error["type"]) == ("failed", "ExpressionError")


def test_a_skipped_step_satisfies_needs_and_its_output_is_null() -> None:
    steps = [
        {"id": "a", "plugin": "p", "if": "false"},
        {"id": "b", "emit": "e", "with": {"was": "{{ steps.a.output }}", "status": "{{ steps.a.status }}"}},
    ]
    world = World(plan_of(steps), {})
    world.tick(Begun(0.0))
    assert world.state.steps["b"].output == {"was": None, "status": "skipped"}
    assert world.ends[0].status == "completed"
    assert world.made == []


def test_a_failed_run_does_not_wait_for_what_only_sleeps() -> None:
    plan = plan_of(
        [{"id": "nap", "sleep": "2d", "needs": []}, {"id": "work", "plugin": "p", "needs": []}],
    )
    begun = reduce(plan, fresh(), Begun(0.0))
    failed = reduce(plan, begun.state, StepBroke("work", 1, {"type": "E", "message": "no"}, 1.0, 0.5))
    assert failed.end is not None
    assert failed.end.status == "failed"
    assert failed.waits_done == ["nap"], "its timer goes with it"
