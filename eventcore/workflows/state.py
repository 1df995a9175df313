"""What a run has come to: the fold of its journal. Pure, and the same live and on recovery.

Paths: `notify` is a step, `notify[3]` its fourth item, `group/inner` a step inside a group, `pay~undo` what undoes
`pay`. A group and a `foreach` are containers: steps that are over when those inside are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from eventcore.kernel.quick import maker

StepStatus = Literal["running", "waiting", "completed", "failed", "skipped", "cancelled"]
Phase = Literal["forward", "cancelling", "undoing"]

SETTLED = frozenset({"completed", "failed", "skipped", "cancelled"})
UNDO = "~undo"


@dataclass(frozen=True, slots=True)
class Entry:
    """A journal entry to write; it is an event at the same time. `path` is empty where it is about the whole run."""

    type: str
    path: str
    attempt: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StepState:
    """How far one step has come. A step that has not begun has no state.

    Attributes:
        attempt: the latest try, from 1.
        failures: tries that failed by themselves; interruptions do not use up the retry budget.
        due: when a waiting step goes on, seconds since the epoch; 0 if no time ends the wait.
        waits: for what: `time`, `retry`, `event`, `approval`, `child` (a run) or `answer` (another engine).
        deadline: when all attempts together have run over, or 0.
        ref: of what it waits for: the child's run id, or what the other engine was given.
        listen: the event and the values that a waiting step listens for.
        items: what a `foreach` goes through, frozen when it began.
        inside: whether it is a container.
        begun, settled, failed: how many of a container's own steps or items have begun, ended, and failed.
        order: of completed steps, which one it was; undoing goes back in this order.
    """

    status: StepStatus
    attempt: int = 1
    failures: int = 0
    output: Any = None
    error: dict[str, Any] | None = None
    due: float = 0.0
    waits: str = ""
    deadline: float = 0.0
    ref: str = ""
    listen: dict[str, Any] | None = None
    items: list[Any] | None = None
    inside: bool = False
    begun: int = 0
    settled: int = 0
    failed: int = 0
    order: int = 0

    @property
    def timed(self) -> bool:
        """Whether a timer is stored for it while it waits."""
        return self.waits in ("time", "retry") or self.due > 0

    def view(self) -> dict[str, Any]:
        """What expressions see of it."""
        return {"output": self.output, "status": self.status, "error": self.error}

    def but(self, **changes: Any) -> StepState:
        """A copy with changes."""
        values = {name: getattr(self, name) for name in StepState.__slots__}
        return StepState(**(values | changes))


_step_state = maker(StepState)


@dataclass(slots=True)
class State:
    """A run as the reducer sees it. `run` and `event` are what expressions see under these names.

    Attributes:
        views: what expressions see of the steps outside groups.
        outcome: how the run will end once everything is undone.
        epochs: how often a step was retried by hand under a new idempotency key.
        consumed: ids of events that ended waits of this run; no later wait is ended by them again.
        count: journal entries.
    """

    inputs: dict[str, Any]
    run: dict[str, Any]
    event: dict[str, Any] | None = None
    steps: dict[str, StepState] = field(default_factory=dict)
    ended: bool = False
    views: dict[str, Any] = field(default_factory=dict)
    phase: Phase = "forward"
    outcome: dict[str, Any] | None = None
    paused: bool = False
    epochs: dict[str, int] = field(default_factory=dict)
    consumed: frozenset[str] = frozenset()
    count: int = 0

    def copy(self) -> State:
        """A state of its own; the steps' states are shared, for they never change."""
        return State(
            self.inputs,
            self.run,
            self.event,
            self.steps.copy(),
            self.ended,
            self.views.copy(),
            self.phase,
            self.outcome,
            self.paused,
            self.epochs,
            self.consumed,
            self.count,
        )

    def scope(self) -> dict[str, Any]:
        """The names that expressions outside groups may use."""
        return {"inputs": self.inputs, "steps": self.views, "event": self.event, "run": self.run}


def parent_of(path: str) -> str:
    """The container of a step, or the empty path."""
    if path[-1:] == "]":
        return path[: path.rindex("[")]
    cut = path.rfind("/")
    return path[:cut] if cut > 0 else ""


def ancestors(path: str) -> Iterable[str]:
    """The containers around a step, innermost first."""
    while path := parent_of(path):
        yield path


def alive(state: State, path: str) -> bool:
    """Whether everything around the step is still going on; what undoes a step does not ask that."""
    if path.endswith(UNDO):
        return True
    return all(state.steps[one].status == "running" for one in ancestors(path)) if "/" in path or "[" in path else True


def fold(state: State, entries: Iterable[Entry]) -> State:
    """The state after all these entries; `state` stays as it is."""
    state = state.copy()
    for entry in entries:
        apply(state, entry)
    return state


def evolve(state: State, entry: Entry) -> State:
    """The state after one more journal entry; `state` stays as it is."""
    return fold(state, (entry,))


def apply(state: State, entry: Entry) -> None:
    """Change `state` by one more journal entry."""
    state.count += 1
    if entry.path and entry.type.startswith("step_"):
        before = state.steps.get(entry.path)
        after = _step_after(state, before, entry)
        if after is not None:
            put(state, entry.path, before, after)
    else:
        _run_after(state, entry)


def _step_after(state: State, before: StepState | None, entry: Entry) -> StepState | None:
    data, attempt = entry.data, entry.attempt
    failures = before.failures if before else 0
    deadline = before.deadline if before else 0.0
    match entry.type:
        case "step_started":
            return _started(data, attempt, failures, data.get("deadline", deadline))
        case "step_waiting":
            due, waits, ref = data.get("due", 0.0), data["waits"], data.get("ref", "")
            return StepState("waiting", attempt, failures, due=due, waits=waits, ref=ref, deadline=deadline)
        case "step_retrying":
            due = data["due"]
            return StepState("waiting", attempt, failures + 1, None, data["error"], due, "retry", deadline)
        case "step_failed":
            mine = before.but if before else StepState("failed").but
            return mine(status="failed", attempt=attempt, failures=failures + 1, error=data["error"], waits="", due=0.0)
    if data["status"] == "failed":  # step_completed tells the end of a failed step too
        return None
    if "by_event" in data:
        state.consumed |= {data["by_event"]}
    order = state.count if data["status"] == "completed" else 0
    if before is None or not before.inside:
        return _step_state(data["status"], attempt, failures, data.get("output"), deadline=deadline, order=order)
    return before.but(status=data["status"], output=data.get("output"), order=order)


def _started(data: dict[str, Any], attempt: int, failures: int, deadline: float) -> StepState:
    if "items" in data:
        return StepState("running", attempt, failures, deadline=deadline, items=data["items"], inside=True)
    if "group" in data:
        return StepState("running", attempt, failures, deadline=deadline, inside=True)
    if "wait_for" in data or "approve" in data:
        waits = "event" if "wait_for" in data else "approval"
        due = data.get("due", 0.0)
        return StepState("waiting", attempt, failures, due=due, waits=waits, listen=data["listen"])
    if "due" in data:
        return StepState("waiting", attempt, failures, due=data["due"], waits="time")
    return _step_state("running", attempt, failures, deadline=deadline)


def put(state: State, path: str, before: StepState | None, after: StepState) -> None:
    """Put a step's new state, and count it in its container."""
    state.steps[path] = after
    parent = parent_of(path)
    if not parent:
        if path[-1] != "o" or not path.endswith(UNDO):
            state.views[path] = after.view()
        return
    around = state.steps.get(parent)
    if around is None or path.endswith(UNDO):
        return
    was_settled = before is not None and before.status in SETTLED
    is_settled = after.status in SETTLED
    began = before is None
    failed = (after.status == "failed") - (before is not None and before.status == "failed")
    if began or was_settled != is_settled or failed:
        state.steps[parent] = around.but(
            begun=around.begun + began,
            settled=around.settled + is_settled - was_settled,
            failed=around.failed + failed,
        )


def _run_after(state: State, entry: Entry) -> None:
    data = entry.data
    match entry.type:
        case "workflow_paused":
            state.paused = True
        case "workflow_resumed":
            state.paused = False
            for path in data.get("fresh", ()):
                state.steps[path] = state.steps[path].but(failures=0)
        case "workflow_cancelling":
            state.phase, state.paused, state.outcome = "cancelling", False, data["outcome"]
        case "workflow_undoing":
            state.phase, state.outcome = "undoing", data["outcome"]
        case "workflow_retried":
            _reopen(state, data)


def _reopen(state: State, data: dict[str, Any]) -> None:
    """Take back how a run ended, and how its failed steps did."""
    state.phase, state.outcome, state.paused, state.ended = "forward", None, False, False
    for path in data["containers"]:
        before = state.steps[path]
        put(state, path, before, before.but(status="running", error=None, output=None))
    for path in data["paths"]:
        before = state.steps[path]
        put(state, path, before, StepState("waiting", before.attempt, waits="retry", error=before.error))
    if not data["same_key"]:
        state.epochs = {**state.epochs, **{path: state.epochs.get(path, 0) + 1 for path in data["paths"]}}
