"""The engine as a pure reducer: (plan, state, tick) -> decision.

Time, randomness and results arrive inside the tick; nothing here reads a clock, draws a number or does I/O. State
changes only by folding journal entries (`state.apply`), live and on recovery alike, so replaying any prefix of a
journal gives the state that the engine had when it wrote that prefix.
"""

from __future__ import annotations

from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.workflows.advance import advance, fail, resume_waits, start
from eventcore.workflows.decision import Decision as Decision
from eventcore.workflows.definition import Retry
from eventcore.workflows.external.resume import answer_ref
from eventcore.workflows.plan import Plan, StepPlan
from eventcore.workflows.state import SETTLED, UNDO, State, StepState, alive, ancestors
from eventcore.workflows.state import Entry as Entry
from eventcore.workflows.state import evolve as evolve
from eventcore.workflows.state import fold as fold
from eventcore.workflows.ticks import (
    Answered,
    Asked,
    Begun,
    End,
    Resumed,
    StepBroke,
    StepParked,
    StepSucceeded,
    Tick,
    TimerFired,
    Wait,
)
from eventcore.workflows.ticks import Call as Call
from eventcore.workflows.ticks import Publish as Publish
from eventcore.workflows.undo import begin_undoing


def reduce(plan: Plan, state: State, tick: Tick) -> Decision:
    """What follows from `tick`. A tick that comes too late (for a step or a run that is over) decides nothing."""
    decision = Decision(plan, state)
    if state.ended and not (isinstance(tick, Asked) and tick.verb == "retry"):
        return decision  # the copy is made once it is known to be needed
    decision.state = state.copy()
    match tick:
        case StepSucceeded() | StepBroke() | StepParked():
            _attempt_ended(decision, tick)
        case TimerFired():
            _fired(decision, tick)
        case Answered():
            _answered(decision, tick)
        case Begun():
            decision.dirty.append("")
        case Resumed():
            _resume(decision, tick)
        case Asked():
            _asked(decision, tick)
    if decision.entries and isinstance(tick, StepSucceeded | StepBroke | StepParked | Answered | TimerFired):
        decision.touch(tick.path)
    advance(decision, tick.at)
    return decision


def _current(state: State, path: str, attempt: int) -> bool:
    step = state.steps.get(path)
    return step is not None and step.status == "running" and step.attempt == attempt and alive(state, path)


def _attempt_ended(decision: Decision, tick: StepSucceeded | StepBroke | StepParked) -> None:
    if not _current(decision.state, tick.path, tick.attempt):
        return
    if isinstance(tick, StepSucceeded):
        _succeeded(decision, tick.path, tick.attempt, tick.output)
    elif isinstance(tick, StepBroke):
        _broke(decision, tick.path, tick.attempt, tick.error, tick.at, tick.jitter, tick.retry_after)
    else:
        _parked(decision, tick)


def _parked(decision: Decision, tick: StepParked) -> None:
    """The step waits for its child or its answer; not for ever, if anything limits it."""
    timeout, deadline = decision.plan.node(tick.path).timeout, decision.state.steps[tick.path].deadline
    ends = [tick.at + limit for limit in (timeout, tick.limit) if limit is not None]
    due = min([*ends, deadline] if deadline else ends, default=0.0)
    more = {"due": due} if due else {}
    decision.write("step_waiting", tick.path, tick.attempt, waits=tick.waits, ref=tick.ref, **more)
    if due:
        decision.waits.append(Wait(tick.path, due))


# -- ends of attempts -------------------------------------------------------------------------------------------------


def _succeeded(decision: Decision, path: str, attempt: int, output: Any, **more: Any) -> None:
    node = decision.plan.node(path)
    if node.outputs is not None:
        try:
            output = decision.json(node.outputs({**decision.scope(path), "output": output}), f"`outputs` of {path}")
        except InvalidInput as error:
            fail(decision, path, attempt, error_of(error))
            return
    decision.write("step_completed", path, attempt, status="completed", output=output, **more)


def _broke(
    decision: Decision,
    path: str,
    attempt: int,
    error: dict[str, Any],
    at: float,
    jitter: float,
    retry_after: float | None = None,
) -> None:
    step = decision.state.steps[path]
    retry = decision.plan.node(path).retry
    failures = step.failures + 1
    if retry is None or not _worth_retrying(retry, error):
        fail(decision, path, attempt, error)
    elif failures < retry.attempts:
        wait = _backoff(retry, failures, jitter) if retry_after is None else retry_after
        if step.deadline and at + wait >= step.deadline:
            fail(decision, path, attempt, error)
            return
        decision.write("step_retrying", path, attempt, error=error, due=at + wait, wait=wait)
        decision.waits.append(Wait(path, at + wait))
    elif retry.on_exhausted == "pause" and decision.state.phase == "forward":
        decision.write("step_retrying", path, attempt, error=error, due=at, wait=0.0, exhausted=True)
        decision.write("workflow_paused", "", 0, by="system", step=path, error=error)
    else:
        fail(decision, path, attempt, error)


def _worth_retrying(retry: Retry, error: dict[str, Any]) -> bool:
    return error["type"] not in retry.unless and (not retry.only or error["type"] in retry.only)


def _backoff(retry: Retry, failures: int, jitter: float) -> float:
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015)."""
    wait = min(retry.initial if retry.backoff == "constant" else retry.initial * 2.0 ** (failures - 1), retry.max)
    return wait * jitter if retry.jitter else wait


# -- ends of waits ----------------------------------------------------------------------------------------------------


def _fired(decision: Decision, tick: TimerFired) -> None:
    path, state = tick.path, decision.state
    step = state.steps.get(path)
    over = step is None or step.status in SETTLED or not alive(state, path)
    if step is not None and not over and max(tick.at, tick.due) < (step.deadline if step.inside else step.due):
        return  # the timer of an earlier wait: the one that is stored now is for later, and has to stay
    decision.waits_done.append(path)
    if step is None or over:
        return
    if step.inside:
        if step.deadline:
            _run_over(decision, path, step)
    elif step.status != "waiting":
        return
    elif step.waits == "time":
        decision.write("step_completed", path, step.attempt, status="completed", output=None)
    elif step.waits == "retry":
        if not state.paused:
            start(decision, decision.plan.node(path), path, step.attempt + 1, tick.at)
    elif step.waits in ("child", "answer"):
        _never_ended(decision, path, step, tick.at)
    elif step.due:
        _waited_in_vain(decision, path, step)


def _run_over(decision: Decision, path: str, step: StepState) -> None:
    message = f"{path} ran over its {decision.plan.node(path).step.total_timeout:g} s"
    decision.drop(path)
    fail(decision, path, step.attempt, {"type": "StepTimeout", "message": message})


def _never_ended(decision: Decision, path: str, step: StepState, at: float) -> None:
    """A child or another engine did not end in time. The child is not needed any more."""
    if decision.state.phase == "cancelling":
        return  # it was told to end
    if step.waits == "child":
        decision.children.append((step.ref, "cancel"))
    what = "the child run did not end" if step.waits == "child" else "no answer came"
    error = {"type": "StepTimeout", "message": f"{what} in time for {path}"}
    _broke(decision, path, step.attempt, error, at, jitter=1.0)


def _waited_in_vain(decision: Decision, path: str, step: StepState) -> None:
    node = decision.plan.node(path)
    wait = node.step.wait_for or node.step.approve
    decision.listens_done.append(path)
    if wait is not None and wait.on_timeout == "continue":
        decision.write("step_completed", path, step.attempt, status="completed", output=None, timed_out=True)
    else:
        message = f"nothing came within {node.patience or 0.0:g} s"
        fail(decision, path, step.attempt, {"type": "WaitTimeout", "message": message})


def _awaits(step: StepState, ref: str) -> bool:
    if step.status != "waiting":
        return False
    return step.waits in ("event", "approval") or (step.waits in ("child", "answer") and step.ref == ref)


def _answered(decision: Decision, tick: Answered) -> None:
    if tick.timer:
        decision.timers_done.append(tick.timer)
    path, state = tick.path, decision.state
    step = state.steps.get(path)
    if step is None or not alive(state, path):
        return
    if step.status == "running" and tick.ref == answer_ref(state.run["id"], path, step.attempt):
        decision.dropped.append(path)  # the answer has overtaken the response to the call that asks for it
    elif not _awaits(step, tick.ref):
        return
    if step.due:
        decision.waits_done.append(path)
    if step.waits in ("event", "approval"):
        decision.listens_done.append(path)
    if state.phase == "cancelling" and tick.error is not None:
        decision.write("step_completed", path, step.attempt, status="cancelled", error=tick.error)
    elif tick.error is not None:
        _broke(decision, path, step.attempt, tick.error, tick.at, tick.jitter)
    else:
        by_event = {"by_event": tick.ref} if step.waits == "event" else {}
        _succeeded(decision, path, step.attempt, tick.output, **by_event)


def _resume(decision: Decision, tick: Resumed) -> None:
    """Call again what was being called; wait on for what was being waited for."""
    for path, step in list(decision.state.steps.items()):
        if step.status not in ("running", "waiting") or not alive(decision.state, path):
            continue
        if step.inside:
            decision.dirty.append(path)
            if step.deadline:
                decision.waits.append(Wait(path, step.deadline))
        elif step.status == "running":
            start(decision, decision.plan.node(path), path, step.attempt + 1, tick.at, interrupted=True)
        else:
            resume_waits(decision, path, step)
            if step.waits == "child" and decision.state.phase == "cancelling":
                decision.children.append((step.ref, "cancel"))
    decision.dirty.append("")


# -- verbs ------------------------------------------------------------------------------------------------------------


def _asked(decision: Decision, tick: Asked) -> None:
    if tick.timer:
        decision.timers_done.append(tick.timer)
    match tick.verb:
        case "pause":
            if not decision.state.paused and decision.state.phase == "forward":
                decision.write("workflow_paused", "", 0, by=tick.by, reason=tick.reason)
        case "resume":
            if decision.state.paused:
                _unpause(decision, tick)
        case "cancel":
            if decision.state.phase == "forward":
                _cancel(decision, tick)
        case "terminate":
            _terminate(decision, tick)
        case "retry":
            if decision.state.ended:  # another one may have come first
                _retry(decision, tick)


def _unpause(decision: Decision, tick: Asked) -> None:
    # What stands in a container that is over was given up: it waits for nothing any more.
    waiting = {
        path: step
        for path, step in decision.state.steps.items()
        if step.status == "waiting" and step.waits == "retry" and alive(decision.state, path)
    }
    fresh = [path for path, step in waiting.items() if _used_up(decision.plan.node(path), step)]
    due = [path for path, step in waiting.items() if step.due <= tick.at or path in fresh]
    decision.write("workflow_resumed", "", 0, by=tick.by, fresh=fresh)
    for path in waiting.keys() - {*due}:
        decision.waits.append(Wait(path, waiting[path].due))
    for path in due:
        decision.waits_done.append(path)
        start(decision, decision.plan.node(path), path, waiting[path].attempt + 1, tick.at)
    decision.dirty += ["", *(path for path, step in decision.state.steps.items() if step.inside)]


def _used_up(node: StepPlan, step: StepState) -> bool:
    return node.retry is not None and step.failures >= node.retry.attempts


def _cancel(decision: Decision, tick: Asked) -> None:
    """Stop what is under way; children first. What was finished is undone once they are over."""
    message = f"cancelled by {tick.by}" + (f": {tick.reason}" if tick.reason else "")
    outcome = {"status": "cancelled", "error": {"type": "Cancelled", "message": message, "step": None}}
    decision.write("workflow_cancelling", "", 0, by=tick.by, outcome=outcome)
    for path, step in list(decision.state.steps.items()):
        if step.status == "running" and not step.inside:
            decision.dropped.append(path)
            decision.write("step_completed", path, step.attempt, status="cancelled")
    decision.drop("", children="cancel", settle=True)


def _terminate(decision: Decision, tick: Asked) -> None:
    message = f"terminated by {tick.by}" + (f": {tick.reason}" if tick.reason else "")
    decision.dropped += [path for path, step in decision.state.steps.items() if step.status == "running"]
    decision.drop("", children="terminate")
    decision.finish(End("terminated", error={"type": "Terminated", "message": message, "step": None}))


def _retry(decision: Decision, tick: Asked) -> None:
    """Begin again with what failed or was cut off. The face has seen to it that nothing was undone."""
    steps = decision.state.steps
    broken = [path for path, step in steps.items() if _is_broken(step) and not _tolerated(decision, path)]
    around = dict.fromkeys(one for path in broken for one in ancestors(path))
    containers = [path for path in around if steps[path].status in SETTLED]
    outer_first = sorted(containers, key=len)
    decision.write("workflow_retried", "", 0, by=tick.by, paths=broken, containers=outer_first, same_key=tick.same_key)
    for path in broken:
        node, attempt = decision.plan.node(path), decision.state.steps[path].attempt + 1
        start(decision, node, path, attempt, tick.at)
    for path, step in list(decision.state.steps.items()):
        if step.status == "waiting" and path not in broken and alive(decision.state, path):
            resume_waits(decision, path, step)
    decision.dirty += ["", *(path for path, step in decision.state.steps.items() if step.inside)]


def _is_broken(step: StepState) -> bool:
    """Whether a step is to be begun again. A child that it waited for was cancelled along with the run."""
    if step.inside and step.begun:
        return False  # what is in it is looked at by itself
    return step.status in ("failed", "cancelled", "running") or (step.status == "waiting" and step.waits == "child")


def _tolerated(decision: Decision, path: str) -> bool:
    """Whether the run has gone on all the same: `continue_on_error`, or an item whose failure is ignored."""
    if path.endswith(UNDO):
        return True
    for one in (path, *ancestors(path)):
        step = decision.state.steps[one]
        if step.status == "failed" and not one.endswith("]") and decision.plan.node(one).continue_on_error:
            return True
        if one != path and step.status == "completed":
            return True
    return False


def error_of(error: InvalidInput) -> dict[str, Any]:
    """An error of the engine's own as a step's."""
    return {"type": type(error).__name__, "message": str(error)}


__all__ = ["Decision", "Entry", "State", "begin_undoing", "evolve", "fold", "reduce"]
