"""Named fault points: places in production code where a test may count, raise, or kill the process.

They stand between two commits, and on both sides of each commit, because that is where a crash could lose or repeat
something. Outside tests `reach` costs one method call on an object that does nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

#: Every fault point and what has happened when it is reached.
FAULT_POINTS: dict[str, str] = {
    "emit.before_commit": "an event was built and admitted; nothing is stored",
    "emit.after_commit": "the event is stored; no subscriber has it yet",
    "store.before_commit": "a group's rows are written inside the transaction; it is not committed",
    "store.after_commit": "the group is durable; nobody has been told",
    "run.before_start": "a run's first rows are about to be committed",
    "run.after_start": "the run is stored; none of its steps has begun",
    "step.before_call": "step_started is stored; the plugin has not been called",
    "step.after_call": "the plugin has answered; the completion is not stored",
    "step.before_commit": "the completion is about to be committed",
    "step.after_commit": "the completion is stored; the next step has not begun",
    "run.before_end": "the last step is done; the end of the run is about to be committed",
    "run.after_end": "the end of the run is stored; nobody waiting for it has been told",
    "delivery.before_call": "a durable subscription has taken an event in hand; its handler has not been called",
    "delivery.before_ack": "handlers have ended; what came of it, and what they staged, is about to be committed",
    "install.staged": "a package is unpacked and checked beside the plugins; nothing is stored",
    "install.committed": "a package's row is stored; its folder is not in its place",
    "install.moved": "an installed folder is in its place; plugins/manifest.json does not list it",
    "uninstall.moved": "an installed folder is out of its place; nothing is stored",
    "uninstall.committed": "a plugin's removal is stored; its files are still there",
    "uninstall.forgotten": "what was kept for a plugin is gone, if that was asked for; its files are still there",
    "delivery.after_ack": "what came of a delivery is stored; the next commit of the subscription has not begun",
}


class NoFaults:
    """The fault points of an ordinary engine: nothing happens."""

    __slots__ = ()

    def reach(self, point: str) -> None:
        """Do nothing."""


class FaultPlan:
    """Fault points of a test: counts every one, and acts at chosen ones.

    Args:
        actions: what to do, by point; called with the number of the hit, counted from 1.
    """

    def __init__(self, actions: dict[str, Callable[[int], None]] | None = None) -> None:
        self.hits: Counter[str] = Counter()
        self.actions = dict(actions or {})
        unknown = self.actions.keys() - FAULT_POINTS.keys()
        if unknown:
            raise ValueError(f"no such fault points: {sorted(unknown)}")

    def reach(self, point: str) -> None:
        self.hits[point] += 1
        if action := self.actions.get(point):
            action(self.hits[point])


def kill_at(hit: int) -> Callable[[int], None]:
    """An action: SIGKILL this very process at the given hit, as a power cut would."""

    def action(count: int) -> None:
        if count == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    return action


def plan_from_text(text: str) -> FaultPlan:
    """The plan that `EVENTCORE_FAULT=point:hit` asks for."""
    point, _, hit = text.partition(":")
    return FaultPlan({point: kill_at(int(hit or "1"))})
