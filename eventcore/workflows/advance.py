"""What may begin now, and what is over now: the moves of the reducer that follow from others."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.quick import maker
from eventcore.workflows.decision import MAX_GATHERED, Decision
from eventcore.workflows.definition import MAX_ITEMS
from eventcore.workflows.plan import StepPlan
from eventcore.workflows.state import SETTLED, UNDO, StepState, alive, parent_of
from eventcore.workflows.ticks import Call, End, Listen, Publish, Wait
from eventcore.workflows.undo import begin_undoing, undo_next

#: What an approval is asked for and given with.
REQUESTED, DECIDED = "approval_requested", "approval_decided"
#: How many failed items an error names.
_NAMED = 10

_new_call = maker(Call)


_KINDS = {dict: "an object", str: "text", int: "a number", float: "a number", bool: "a boolean", type(None): "nothing"}


def advance(decision: Decision, at: float) -> None:
    """Go on wherever something changed, until nothing more follows."""
    if decision.state.phase != "forward":
        if not decision.state.ended:
            _back(decision, at)
        return
    dirty = decision.dirty
    while dirty and not decision.state.ended:
        path = dirty.pop()
        if not path:
            _block(decision, "", decision.plan.steps, at)
            continue
        step = decision.state.steps[path]
        if step.status == "running" and step.inside:
            if step.items is not None:
                _items(decision, path, at)
            else:
                _block(decision, path, decision.plan.node(path).children, at)


def _back(decision: Decision, at: float) -> None:
    """Cancelled or failed: wait for children to end, then undo."""
    if decision.state.phase == "cancelling":
        steps = decision.state.steps
        if any(step.status == "waiting" and alive(decision.state, path) for path, step in steps.items()):
            return
        outcome = decision.state.outcome or {}
        begin_undoing(decision, outcome["status"], outcome["error"])
    undo_next(decision, at, start)


# -- blocks -----------------------------------------------------------------------------------------------------------


def _block(decision: Decision, path: str, nodes: tuple[StepPlan, ...], at: float) -> None:
    """Begin what may begin in a group (or the run), and see whether it is over."""
    steps, prefix = decision.state.steps, f"{path}/" if path else ""
    failed = None
    for node in nodes:
        state = steps.get(prefix + node.id)
        if state is not None and state.status == "failed" and not node.step.continue_on_error:
            failed = node
            break
    if failed is None and not _held(decision, path):
        failed = _begin_ready(decision, prefix, nodes, at)
    if failed is not None:
        if not decision.busy(path):
            decision.drop(path)
            _over(decision, path, _error_in(steps[prefix + failed.id], prefix + failed.id), at)
        return
    for node in reversed(nodes):  # the last ones are those that are not over
        state = steps.get(prefix + node.id)
        if state is None or state.status not in SETTLED:
            return
    _over(decision, path, None, at)


def _held(decision: Decision, path: str) -> bool:
    """Whether nothing may begin in a container: the run is paused, or something around it has failed already."""
    if decision.state.paused:
        return True
    steps = decision.state.steps
    while path:
        path = parent_of(path)
        prefix = f"{path}/" if path else ""
        if path and (items := steps[path]).items is not None:
            if items.failed and decision.plan.node(path).step.on_item_error == "stop":
                return True
        else:
            nodes = decision.plan.node(path).children if path else decision.plan.steps
            if any(_blocks(node, steps.get(prefix + node.id)) for node in nodes):
                return True
    return False


def _begin_ready(decision: Decision, prefix: str, nodes: tuple[StepPlan, ...], at: float) -> StepPlan | None:
    """Begin every step whose needs are met; return the one that failed at once, if any."""
    steps = decision.state.steps
    for node in nodes:
        path = prefix + node.id
        if path in steps:
            continue
        for need in node.needs:
            state = steps.get(prefix + need)
            if state is None or state.status not in SETTLED:
                break
        else:
            begin(decision, node, path, at)
            if _blocks(node, steps.get(path)):
                return node
    return None


def _blocks(node: StepPlan, state: StepState | None) -> bool:
    return state is not None and state.status == "failed" and not node.step.continue_on_error


def _error_in(state: StepState, path: str) -> dict[str, Any]:
    error = state.error or {}
    return {**error, "step": error.get("step") or path}


def _over(decision: Decision, path: str, error: dict[str, Any] | None, at: float) -> None:
    if not path:
        _run_over(decision, error, at)
    elif error is not None:
        fail(decision, path, decision.state.steps[path].attempt, error)
    else:
        prefix = f"{path}/"
        steps = decision.state.steps
        inner = {one.id: steps[prefix + one.id].output for one in decision.plan.node(path).children}
        _completed(decision, path, inner)
    if path and decision.state.steps[path].deadline:
        decision.waits_done.append(path)


def _completed(decision: Decision, path: str, output: Any) -> None:
    """A container is over; `outputs` may say what it comes to."""
    node = decision.plan.node(path)
    step = decision.state.steps[path]
    try:
        if node.outputs is not None and step.items is None:
            seen = {**decision.scope(f"{path}/"), "output": output}
            output = node.outputs(seen)
        output = decision.json(output, f"the output of {path}", MAX_GATHERED)
    except InvalidInput as error:
        fail(decision, path, step.attempt, _error_of(error))
        return
    decision.write("step_completed", path, step.attempt, status="completed", output=output)


def _run_over(decision: Decision, error: dict[str, Any] | None, at: float) -> None:
    if error is None:
        try:
            output = decision.json(decision.plan.outputs(decision.state.scope()), "outputs", MAX_GATHERED)
        except InvalidInput as wrong:
            error = {"step": None, **_error_of(wrong)}
        else:
            decision.finish(End("completed", output=output))
            return
    begin_undoing(decision, "failed", error)
    undo_next(decision, at, start)


# -- foreach ----------------------------------------------------------------------------------------------------------


def _items(decision: Decision, path: str, at: float) -> None:
    """Begin as many items as may go on at once, and see whether all are over."""
    node, steps = decision.plan.node(path), decision.state.steps
    count, most = len(steps[path].items or ()), node.step.max_parallel
    stops = node.step.on_item_error == "stop"
    while not _held(decision, path):
        step = steps[path]
        if step.begun >= count or step.begun - step.settled >= most or (stops and step.failed):
            break
        _begin_once(decision, node, f"{path}[{step.begun}]", at)
    step = steps[path]
    if step.failed and stops:
        if decision.busy(path):
            return
        decision.drop(path)
    elif step.settled < count:
        return
    _gather(decision, path, node, step)


def _gather(decision: Decision, path: str, node: StepPlan, step: StepState) -> None:
    steps = decision.state.steps
    if step.deadline:
        decision.waits_done.append(path)
    if step.failed and node.step.on_item_error != "ignore":
        failed = [i for i in range(step.begun) if steps[f"{path}[{i}]"].status == "failed"]
        named = {str(i): steps[f"{path}[{i}]"].error for i in failed[:_NAMED]}
        first = (steps[f"{path}[{failed[0]}]"].error or {}).get("message", "")
        message = f"{len(failed)} of {len(step.items or ())} items failed; item {failed[0]}: {first}"
        error = {"type": "ItemsFailed", "message": message, "items": named, "step": f"{path}[{failed[0]}]"}
        fail(decision, path, step.attempt, error)
    else:
        _completed(decision, path, [steps[f"{path}[{i}]"].output for i in range(step.begun)])


# -- beginnings -------------------------------------------------------------------------------------------------------


def begin(decision: Decision, node: StepPlan, path: str, at: float) -> None:
    """Begin a step whose needs are met: look at its condition, and at what it goes through."""
    try:
        if node.condition is not None and not node.condition(decision.scope(path)):
            decision.write("step_completed", path, 1, status="skipped")
            return
        if node.items is None:
            _begin_once(decision, node, path, at)
            return
        items = decision.json(node.items(decision.scope(path)), f"`foreach` of {path}", MAX_GATHERED)
        if not isinstance(items, list):
            raise InvalidInput(f"`foreach` of {path} is no list but {_KINDS.get(type(items), 'something else')}")
        if len(items) > MAX_ITEMS:
            raise InvalidInput(f"`foreach` of {path} has {len(items):,} items; at most {MAX_ITEMS:,}")
    except InvalidInput as error:
        fail(decision, path, 1, _error_of(error))
        return
    decision.write("step_started", path, 1, items=items, **_deadline(decision, node, path, at))
    decision.dirty.append(path)


def _deadline(decision: Decision, node: StepPlan, path: str, at: float) -> dict[str, float]:
    """When all attempts have run over; stored for containers, whose limit nothing else looks at."""
    if node.step.total_timeout is None or path.endswith(UNDO) or (node.items is not None and path.endswith("]")):
        return {}
    deadline = at + node.step.total_timeout
    if node.items is not None or node.children:
        decision.waits.append(Wait(path, deadline))
    return {"deadline": deadline}


def _begin_once(decision: Decision, node: StepPlan, path: str, at: float) -> None:
    if not node.children:
        start(decision, node, path, 1, at)
        return
    decision.write("step_started", path, 1, group=True, **_deadline(decision, node, path, at))
    decision.dirty.append(path)


def start(decision: Decision, node: StepPlan, path: str, attempt: int, at: float, *, interrupted: bool = False) -> None:
    """Begin an attempt of a step that is no container; of one, begin it anew."""
    if node.children or (node.items is not None and not path.endswith("]")):
        begin(decision, node, path, at)
        return
    scope = decision.scope(path)
    if path.endswith(UNDO):
        scope["output"] = decision.state.steps[path.removesuffix(UNDO)].output
    try:
        params = decision.json(node.params(scope), f"`with` of {path}")
    except InvalidInput as error:
        fail(decision, path, attempt, _error_of(error))
        return
    mark: dict[str, Any] = {"interrupted": True} if interrupted else {}
    _STARTS[node.kind](decision, node, path, attempt, at, params, mark)


def _call(
    decision: Decision, node: StepPlan, path: str, attempt: int, at: float, params: Any, mark: dict[str, Any]
) -> None:
    before = decision.state.steps.get(path)
    if node.step.total_timeout is not None:
        mark |= {"deadline": before.deadline} if before and before.deadline else _deadline(decision, node, path, at)
    decision.write("step_started", path, attempt, **{node.kind: node.target, "input": params}, **mark)
    timeout = node.timeout
    if left := mark.get("deadline"):
        timeout = min(max(0.001, left - at), node.timeout or left - at)
    epoch = decision.state.epochs.get(path, 0)
    decision.calls.append(_new_call(path, attempt, node.target, params, timeout, node.kind, epoch, node.secrets))


def _emit(
    decision: Decision, node: StepPlan, path: str, attempt: int, at: float, params: Any, mark: dict[str, Any]
) -> None:
    decision.write("step_started", path, attempt, emit=node.target, input=params, **mark)
    decision.publishes.append(Publish(path, node.target, params))
    decision.write("step_completed", path, attempt, status="completed", output=params)


def _sleep(
    decision: Decision, node: StepPlan, path: str, attempt: int, at: float, params: Any, mark: dict[str, Any]
) -> None:
    seconds = node.step.sleep or 0.0
    decision.write("step_started", path, attempt, sleep=seconds, due=at + seconds, **mark)
    decision.waits.append(Wait(path, at + seconds))


def _wait_for(
    decision: Decision, node: StepPlan, path: str, attempt: int, at: float, params: Any, mark: dict[str, Any]
) -> None:
    wait = node.step.wait_for
    assert wait is not None
    match = {"run": decision.state.run["id"], "signal": wait.signal, **params} if wait.signal else params
    listen = {"kind": "event", "event": node.target, "match": match}
    _listen(decision, path, attempt, at, node.patience, {"wait_for": wait.signal or node.target, **mark}, listen)


def _approve(
    decision: Decision, node: StepPlan, path: str, attempt: int, at: float, params: Any, mark: dict[str, Any]
) -> None:
    ask = node.step.approve
    assert ask is not None
    run = decision.state.run["id"]
    message = str(params["message"])
    about = {"message": message, "roles": list(ask.roles), "input": params["input"]}
    listen = {"kind": "approval", "event": DECIDED, "match": {"run": run, "step": path}, "about": about}
    _listen(decision, path, attempt, at, node.patience, {"approve": message, **mark}, listen)
    decision.publishes.append(Publish(path, REQUESTED, {"run": run, "step": path, **about}))


def _listen(
    decision: Decision,
    path: str,
    attempt: int,
    at: float,
    timeout: float | None,
    mark: dict[str, Any],
    listen: dict[str, Any],
) -> None:
    due = {} if timeout is None else {"due": at + timeout}
    decision.write("step_started", path, attempt, listen=listen, **due, **mark)
    resume_waits(decision, path, decision.state.steps[path])


def resume_waits(decision: Decision, path: str, step: StepState) -> None:
    """Store (again) what a waiting step waits for."""
    if step.timed and not (step.waits == "retry" and decision.state.paused):
        decision.waits.append(Wait(path, step.due))
    if step.listen is not None:
        listen = step.listen
        about, consumed = listen.get("about", {}), decision.state.consumed
        decision.listens.append(Listen(path, listen["kind"], listen["event"], listen["match"], about, consumed))


_STARTS = {
    "plugin": _call,
    "workflow": _call,
    "hook": _call,
    "emit": _emit,
    "sleep": _sleep,
    "wait_for": _wait_for,
    "approve": _approve,
}


def fail(decision: Decision, path: str, attempt: int, error: dict[str, Any]) -> None:
    """A step failed for good."""
    decision.write("step_failed", path, attempt, error=error)
    decision.write("step_completed", path, attempt, status="failed", error=error)


def _error_of(error: InvalidInput) -> dict[str, Any]:
    return {"type": type(error).__name__, "message": str(error)}
