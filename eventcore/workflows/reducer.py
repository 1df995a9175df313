"""The engine as a pure reducer: (plan, state, tick) -> decision.

Time, randomness and results arrive inside the tick; nothing here reads a clock, draws a number or does I/O. State
changes only by folding journal entries (`evolve`), live and on recovery alike, so replaying any prefix of a journal
gives the state that the engine had when it wrote that prefix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.json import decode, encode
from eventcore.workflows.definition import Retry
from eventcore.workflows.plan import Plan, StepPlan

StepStatus = Literal["running", "waiting", "completed", "failed", "skipped"]

_SETTLED = frozenset({"completed", "failed", "skipped"})


# -- state ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepState:
    """How far one step has come. A step that has not begun has no state.

    Attributes:
        attempt: the latest try, from 1.
        failures: tries that failed by themselves; interruptions do not use up the retry budget.
        due: when a waiting step goes on, seconds since the epoch.
    """

    status: StepStatus
    attempt: int = 1
    failures: int = 0
    output: Any = None
    error: dict[str, Any] | None = None
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """A run as the reducer sees it. `run` and `event` are what expressions see under these names."""

    inputs: dict[str, Any]
    run: dict[str, Any]
    event: dict[str, Any] | None = None
    steps: dict[str, StepState] = field(default_factory=dict)
    ended: bool = False

    def scope(self) -> dict[str, Any]:
        """The names that expressions may use."""
        steps = {
            path: {"output": step.output, "status": step.status, "error": step.error}
            for path, step in self.steps.items()
        }
        return {"inputs": self.inputs, "steps": steps, "event": self.event, "run": self.run}


# -- ticks: what happened ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """The run starts."""

    at: float


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """An attempt ended well."""

    path: str
    attempt: int
    output: Any
    at: float


@dataclass(frozen=True, slots=True)
class StepBroke:
    """An attempt failed.

    Attributes:
        error: `type` and `message`, as JSON.
        jitter: a random number in [0, 1), for the retry's wait.
        retry_after: seconds that the error itself asks to wait, or None.
    """

    path: str
    attempt: int
    error: dict[str, Any]
    at: float
    jitter: float
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A step's wait is over."""

    path: str
    at: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The engine took the run over (after a crash, or because what it waited for is there)."""

    at: float


Tick: TypeAlias = Begun | StepSucceeded | StepBroke | TimerFired | Resumed


# -- decisions: what follows ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A journal entry to write; it is a `step_*` event at the same time."""

    type: str
    path: str
    attempt: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Call an intent, and tick with what comes of it."""

    path: str
    attempt: int
    intent: str
    params: Any
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Publish:
    """Emit an event in the same commit."""

    path: str
    type: str
    data: Any


@dataclass(frozen=True, slots=True)
class Wait:
    """Tick `TimerFired` at `due`; stored in the same commit."""

    path: str
    due: float


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    status: Literal["completed", "failed"]
    output: Any = None
    error: dict[str, Any] | None = None


@dataclass(slots=True)
class Decision:
    """The state after a tick, and everything to commit or to do because of it."""

    state: State
    entries: list[Entry] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    publishes: list[Publish] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    waits_done: list[str] = field(default_factory=list)
    end: End | None = None

    def write(self, type: str, path: str, attempt: int, **data: Any) -> None:
        entry = Entry(type, path, attempt, data)
        self.entries.append(entry)
        self.state = evolve(self.state, entry)


# -- folding ----------------------------------------------------------------------------------------------------------


def evolve(state: State, entry: Entry) -> State:
    """The state after one more journal entry."""
    before = state.steps.get(entry.path)
    data = entry.data
    failures = before.failures if before else 0
    if entry.type == "step_started":
        waits = "due" in data
        step = StepState("waiting" if waits else "running", entry.attempt, failures, due=data.get("due", 0.0))
    elif entry.type == "step_retrying":
        step = StepState("waiting", entry.attempt, failures + 1, error=data["error"], due=data["due"])
    elif entry.type == "step_failed":
        step = StepState("failed", entry.attempt, failures + 1, error=data["error"])
    elif data["status"] == "failed":  # step_completed tells the end of a failed step too
        return state
    else:
        step = StepState(data["status"], entry.attempt, failures, output=data.get("output"))
    return replace(state, steps={**state.steps, entry.path: step})


def fold(state: State, entries: Iterable[Entry]) -> State:
    """The state after all these entries."""
    for entry in entries:
        state = evolve(state, entry)
    return state


# -- reducing ---------------------------------------------------------------------------------------------------------


def reduce(plan: Plan, state: State, tick: Tick) -> Decision:
    """What follows from `tick`. A tick that comes too late (for a step or a run that is over) decides nothing."""
    decision = Decision(state)
    if state.ended:
        return decision
    match tick:
        case Begun():
            pass
        case Resumed():
            _resume(plan, decision, tick)
        case StepSucceeded():
            if _current(state, tick.path, tick.attempt):
                decision.write("step_completed", tick.path, tick.attempt, status="completed", output=tick.output)
        case StepBroke():
            if _current(state, tick.path, tick.attempt):
                _broke(plan.by_id[tick.path], decision, tick)
        case TimerFired():
            _fired(plan, decision, tick)
    _advance(plan, decision, tick.at)
    return decision


def _current(state: State, path: str, attempt: int) -> bool:
    step = state.steps.get(path)
    return step is not None and step.status == "running" and step.attempt == attempt


def _broke(step: StepPlan, decision: Decision, tick: StepBroke) -> None:
    failures = decision.state.steps[step.id].failures + 1
    if step.retry and _may_retry(step.retry, failures, tick.error):
        wait = _backoff(step.retry, failures, tick.jitter) if tick.retry_after is None else tick.retry_after
        due = tick.at + wait
        decision.write("step_retrying", step.id, tick.attempt, error=tick.error, due=due, wait=wait)
        decision.waits.append(Wait(step.id, due))
    else:
        _fail(decision, step.id, tick.attempt, tick.error)


def _fail(decision: Decision, path: str, attempt: int, error: dict[str, Any]) -> None:
    decision.write("step_failed", path, attempt, error=error)
    decision.write("step_completed", path, attempt, status="failed", error=error)


def _may_retry(retry: Retry, failures: int, error: dict[str, Any]) -> bool:
    if failures >= retry.attempts or error["type"] in retry.unless:
        return False
    return not retry.only or error["type"] in retry.only


def _backoff(retry: Retry, failures: int, jitter: float) -> float:
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015)."""
    wait = min(retry.initial if retry.backoff == "constant" else retry.initial * 2.0 ** (failures - 1), retry.max)
    return wait * jitter if retry.jitter else wait


def _fired(plan: Plan, decision: Decision, tick: TimerFired) -> None:
    step = decision.state.steps.get(tick.path)
    if step is not None and step.status == "waiting" and tick.at < step.due:
        return  # the timer of an earlier wait: the one that is stored now is for later, and has to stay
    decision.waits_done.append(tick.path)
    if step is None or step.status != "waiting":
        return
    if plan.by_id[tick.path].kind == "sleep":
        decision.write("step_completed", tick.path, step.attempt, status="completed", output=None)
    else:
        _start(plan, decision, plan.by_id[tick.path], step.attempt + 1, tick.at)


def _resume(plan: Plan, decision: Decision, tick: Resumed) -> None:
    """Call again what was being called; wait on for what was being waited for."""
    for path, step in list(decision.state.steps.items()):
        if step.status == "running":
            _start(plan, decision, plan.by_id[path], step.attempt + 1, tick.at, interrupted=True)
        elif step.status == "waiting":
            decision.waits.append(Wait(path, step.due))


def _advance(plan: Plan, decision: Decision, at: float) -> None:
    """Start whatever may start now, until nothing more can; then see whether the run is over."""
    moved = True
    while moved and _blocking_failure(plan, decision.state) is None:
        moved = False
        for step in plan.steps:
            steps = decision.state.steps
            if step.id not in steps and all(need in steps and steps[need].status in _SETTLED for need in step.needs):
                _begin(plan, decision, step, at)
                # What settles at once (skipped, published, failed) may let others start.
                moved = moved or decision.state.steps[step.id].status in _SETTLED
                if _blocking_failure(plan, decision.state):
                    break
    _end_if_over(plan, decision)


def _blocking_failure(plan: Plan, state: State) -> str | None:
    for path, step in state.steps.items():
        if step.status == "failed" and not plan.by_id[path].continue_on_error:
            return path
    return None


def _begin(plan: Plan, decision: Decision, step: StepPlan, at: float) -> None:
    if step.condition is not None:
        try:
            wanted = bool(step.condition(decision.state.scope()))
        except InvalidInput as error:
            _fail(decision, step.id, 1, _error_of(error))
            return
        if not wanted:
            decision.write("step_completed", step.id, 1, status="skipped")
            return
    _start(plan, decision, step, 1, at)


def _start(
    plan: Plan, decision: Decision, step: StepPlan, attempt: int, at: float, *, interrupted: bool = False
) -> None:
    try:
        params = _as_json(step.params(decision.state.scope()), f"`with` of {step.id}")
    except InvalidInput as error:
        _fail(decision, step.id, attempt, _error_of(error))
        return
    mark = {"interrupted": True} if interrupted else {}
    if step.kind == "plugin":
        decision.write("step_started", step.id, attempt, plugin=step.target, input=params, **mark)
        decision.calls.append(Call(step.id, attempt, step.target, params, step.timeout))
    elif step.kind == "emit":
        decision.write("step_started", step.id, attempt, emit=step.target, input=params, **mark)
        decision.publishes.append(Publish(step.id, step.target, params))
        decision.write("step_completed", step.id, attempt, status="completed", output=params)
    else:
        due = at + step.sleep
        decision.write("step_started", step.id, attempt, sleep=step.sleep, due=due, **mark)
        decision.waits.append(Wait(step.id, due))


def _end_if_over(plan: Plan, decision: Decision) -> None:
    steps = decision.state.steps
    failed = _blocking_failure(plan, decision.state)
    if any(step.status == "running" or (step.status == "waiting" and failed is None) for step in steps.values()):
        return
    if failed is not None:
        # What only waits (a sleep, a retry in a day) has nothing to wait for any more.
        decision.waits.clear()
        decision.waits_done.extend(path for path, step in steps.items() if step.status == "waiting")
        error = {"step": failed, **(steps[failed].error or {})}
        decision.end = End("failed", error=error)
    elif len(steps) == len(plan.steps):
        decision.end = _finish(plan, decision.state)
    if decision.end is not None:
        decision.state = replace(decision.state, ended=True)


def _finish(plan: Plan, state: State) -> End:
    try:
        return End("completed", output=_as_json(plan.outputs(state.scope()), "outputs"))
    except InvalidInput as error:
        return End("failed", error={"step": None, **_error_of(error)})


def _as_json(value: Any, what: str) -> Any:
    """The value as it will be read back from the journal, so that a live run and a replayed one see the same."""
    return decode(encode(value, limit=MAX_PAYLOAD, what=what))


def _error_of(error: InvalidInput) -> dict[str, Any]:
    return {"type": type(error).__name__, "message": str(error)}
