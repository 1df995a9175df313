"""Random workflows with groups, foreach, waits, and undoing: every one ends, replays, and loses or doubles nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from eventcore.kernel.records import Run
from eventcore.workflows.reducer import Decision, Entry, fold, reduce
from eventcore.workflows.registry import Registry
from eventcore.workflows.snapshots import restore, snapshot_of
from eventcore.workflows.state import UNDO, State
from eventcore.workflows.ticks import (
    Answered,
    Asked,
    Begun,
    Resumed,
    StepBroke,
    StepParked,
    StepSucceeded,
    Tick,
    TimerFired,
)

RUN = Run("r", "default", "w", "d", "running", b"{}", "me", (), 0.0, 0.0)
FRESH = State({"items": [1, 2, 3]}, {"id": "r"})


@st.composite
def blocks(draw: st.DrawFn, depth: int = 0, *, limits: bool = True) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 4))):
        kinds = ["plugin", "plugin", "sleep", "wait_for", "approve", "workflow"] + (["steps"] if depth < 2 else [])
        kind = draw(st.sampled_from(kinds))
        step: dict[str, Any] = {"id": f"s{number}"}
        if kind == "steps":
            step["steps"] = draw(blocks(depth + 1, limits=limits))
        else:
            given = {"plugin": "p", "sleep": 1, "wait_for": {"event": "e"}, "approve": "ok?", "workflow": "child"}
            step[kind] = given[kind]
        if limits and kind in ("workflow", "wait_for", "steps") and draw(st.integers(0, 3)) == 0:
            limit = draw(st.integers(1, 3))
            step |= {"workflow": {"timeout": limit}, "steps": {"total_timeout": limit}}.get(
                kind, {"wait_for": {"event": "e", "timeout": limit}}
            )
        if draw(st.integers(0, 3)) == 0:
            step |= {"foreach": "{{ inputs.items }}", "max_parallel": draw(st.integers(1, 3))}
            step["on_item_error"] = draw(st.sampled_from(["stop", "finish", "ignore"]))
        if number and draw(st.booleans()):
            step["needs"] = draw(st.lists(st.sampled_from([f"s{n}" for n in range(number)]), unique=True, max_size=2))
        if kind == "plugin" and draw(st.booleans()):
            step["retry"] = {"attempts": 2, "initial": 1, "jitter": False}
        if draw(st.booleans()):
            step["compensate"] = {"plugin": "undo", "retry": {"attempts": 2, "initial": 1, "jitter": False}}
        if draw(st.integers(0, 3)) == 0:
            step["continue_on_error"] = True
        steps.append(step)
    return steps


class World:
    """What is outside the reducer: calls, timers, waits, the journal."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self.plan = Registry().compile({"slug": "w", "steps": steps})
        self.state, self.journal, self.now = FRESH, list[Entry](), 0.0
        self.calls, self.timers, self.listens = dict[str, int](), dict[str, float](), set[str]()
        self.kinds: dict[str, str] = {}
        #: Child runs that are under way, with the path of the step that waits; and those that were told to end.
        self.children, self.told = dict[str, str](), set[str]()
        self.done: Counter[str] = Counter()
        self.ended = 0

    def tick(self, tick: Tick) -> Decision:
        before = self.state
        frozen = dict(before.steps)
        decision = reduce(self.plan, before, tick)
        assert before.steps == frozen, "the reducer changed the state it was given"
        self.state = decision.state
        self.journal += decision.entries
        for path in decision.waits_done:
            self.timers.pop(path, None)
        self.listens -= {*decision.listens_done}
        self.timers |= {wait.path: wait.due for wait in decision.waits}
        self.listens |= {listen.path for listen in decision.listens}
        for path in decision.dropped:
            self.calls.pop(path, None)
        for call in decision.calls:
            assert call.path not in self.calls, f"{call.path} is called twice at once"
            self.calls[call.path], self.kinds[call.path] = call.attempt, call.kind
        self.told |= {ref for ref, _ in decision.children}
        for entry in decision.entries:
            if entry.type == "step_completed" and entry.data["status"] == "completed":
                self.done[entry.path] += 1
                assert self.done[entry.path] == 1, f"{entry.path} was completed twice"
        self.ended += decision.end is not None
        assert fold(FRESH, self.journal).steps == self.state.steps
        under_way = self.calls or self.timers or self.listens or self.children or self.state.paused
        assert self.ended or under_way, "nothing is under way and nothing is over"
        if self.ended:
            left = [*self.calls, *self.timers, *self.listens]
            assert not left, "something is left of a run that is over"
            assert self.children.keys() <= self.told, "a child goes on that nobody waits for"
        return decision

    def choices(self) -> list[tuple[str, str]]:
        kinds = (("call", self.calls), ("timer", self.timers), ("event", self.listens), ("child", self.children))
        return [(kind, path) for kind, paths in kinds for path in sorted(paths)]

    def happen(self, kind: str, path: str, *, fails: bool) -> None:
        if kind == "timer":
            self.now = max(self.now, self.timers[path])
            self.tick(TimerFired(path, self.now))
        elif kind == "event":
            self.tick(Answered(path, "e1", {}, None, self.now))
        elif kind == "child":
            step, ended = self.children.pop(path), {"type": "ChildCancelled", "message": "no"}
            self.tick(Answered(step, path, "child", ended if fails or path in self.told else None, self.now))
        else:
            attempt = self.calls.pop(path)
            error = {"type": "Error", "message": "no"}
            if self.kinds[path] == "workflow":
                ref = f"{path}#{attempt}"
                self.children[ref] = path
                self.tick(StepParked(path, attempt, "child", ref, self.now))
            elif fails:
                self.tick(StepBroke(path, attempt, error, self.now, 0.5))
            else:
                self.tick(StepSucceeded(path, attempt, path, self.now))

    def crash(self) -> None:
        self.calls.clear()
        self.listens.clear()
        self.state = fold(FRESH, self.journal)
        self.tick(Resumed(self.now))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(steps=blocks(), data=st.data())
def test_any_workflow_ends_whatever_happens(steps: list[dict[str, Any]], data: st.DataObject) -> None:
    world = World(steps)
    world.tick(Begun(0.0))
    crashes = 0
    while not world.ended:
        what = data.draw(st.integers(0, 19))
        if what == 19 and crashes < 3:
            crashes += 1
            world.crash()
        elif what == 18 and world.state.phase == "forward":
            world.tick(Asked("cancel", "me", world.now))
        elif world.state.paused and (what > 12 or not world.choices()):
            world.tick(Asked("resume", "me", world.now))
        elif what == 17:
            world.tick(Asked("pause", "me", world.now))
        else:
            kind, path = data.draw(st.sampled_from(world.choices()))
            world.happen(kind, path, fails=what < 6)
    assert world.ended == 1
    undone = {entry.path.removesuffix(UNDO) for entry in world.journal if entry.path.endswith(UNDO)}
    assert undone <= {*world.done}, "what never completed was undone"
    if world.state.phase == "undoing":
        wanted = {
            path
            for path, step in world.state.steps.items()
            if step.order and step.items is None and world.plan.node(path).undo is not None
        }
        assert undone == wanted


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(steps=blocks(), data=st.data())
def test_a_snapshot_and_the_rest_are_the_whole_journal(steps: list[dict[str, Any]], data: st.DataObject) -> None:
    """Cut any journal anywhere, also in the middle of a commit."""
    world = World(steps)
    world.tick(Begun(0.0))
    for _ in range(data.draw(st.integers(0, 30))):
        what = data.draw(st.integers(0, 19))
        if world.ended:
            break
        if what == 19 and world.state.phase == "forward":
            world.tick(Asked("cancel", "me", world.now))
        elif what == 18 or not world.choices():
            world.tick(Asked("resume" if world.state.paused else "pause", "me", world.now))
        else:
            kind, path = data.draw(st.sampled_from(world.choices()))
            world.happen(kind, path, fails=what < 6)
    if world.ended and world.state.phase == "forward" and data.draw(st.booleans()):
        world.ended = 0
        world.tick(Asked("retry", "me", world.now))
    cut = data.draw(st.integers(0, len(world.journal)))
    head, rest = world.journal[:cut], world.journal[cut:]
    started = {entry.path: f"e{number}" for number, entry in enumerate(head) if entry.type == "step_started"}
    kept, back = snapshot_of(RUN, fold(FRESH, head), started, cut), FRESH.copy()
    assert restore(kept, back) == started
    whole, resumed = fold(FRESH, world.journal), fold(back, rest)
    assert resumed == whole
    assert ([*resumed.steps], [*resumed.views]) == ([*whole.steps], [*whole.views])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(steps=blocks(limits=False), data=st.data())
def test_any_order_of_things_ends_the_same(steps: list[dict[str, Any]], data: st.DataObject) -> None:
    outputs = []
    for _ in range(2):
        world = World(steps)
        world.tick(Begun(0.0))
        while not world.ended:
            kind, path = data.draw(st.sampled_from(world.choices()))
            world.happen(kind, path, fails=False)
        outputs.append({path: (step.status, step.output) for path, step in world.state.steps.items()})
    assert outputs[0] == outputs[1]
