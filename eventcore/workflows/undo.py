"""Undoing finished steps of a run that failed or was cancelled, last first, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventcore.workflows.decision import Decision
from eventcore.workflows.state import UNDO
from eventcore.workflows.ticks import End


def begin_undoing(decision: Decision, status: str, error: dict[str, Any]) -> None:
    """The run will end so once its finished steps are undone; at once, if there is nothing to undo."""
    if _to_undo(decision) is None and not any(path.endswith(UNDO) for path in decision.state.steps):
        decision.finish(End(status, error=error))  # type: ignore[arg-type]
        return
    decision.write("workflow_undoing", "", 0, outcome={"status": status, "error": error})


def undo_next(decision: Decision, at: float, start: Callable[..., None]) -> None:
    """Begin undoing the next step, unless one is being undone; end the run after the last."""
    state = decision.state
    while not state.ended and not state.paused:
        undoing = [step for path, step in state.steps.items() if path.endswith(UNDO)]
        if any(step.status in ("running", "waiting") for step in undoing):
            return
        path = _to_undo(decision)
        if path is None:
            _end(decision)
            return
        start(decision, decision.plan.node(path).undo, path + UNDO, 1, at)


def _to_undo(decision: Decision) -> str | None:
    """The finished step that is to be undone next."""
    steps = decision.state.steps
    found = [
        (step.order, path)
        for path, step in steps.items()
        if step.order
        and decision.plan.node(path).undo is not None
        and path + UNDO not in steps
        and not (step.items is not None)  # its items are undone one by one
    ]
    return max(found)[1] if found else None


def _end(decision: Decision) -> None:
    outcome = decision.state.outcome or {}
    steps = decision.state.steps
    failed = [path for path, step in steps.items() if path.endswith(UNDO) and step.status == "failed"]
    error = dict(outcome["error"])
    if failed:
        names = [path.removesuffix(UNDO) for path in failed]
        error["compensation_failed"] = names
        for path in names:
            undo = steps[path + UNDO]
            decision.write("compensation_failed", path, undo.attempt, error=undo.error)
    decision.finish(End(outcome["status"], error=error))
