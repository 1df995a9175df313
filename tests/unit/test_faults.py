"""Fault points."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import eventcore
from eventcore.kernel.faults import FAULT_POINTS, FaultPlan, NoFaults

ROOT = Path(eventcore.__file__).parent


def test_no_faults_does_nothing() -> None:
    NoFaults().reach("store.before_commit")


def test_plan_counts_and_acts() -> None:
    acted: list[int] = []
    plan = FaultPlan({"store.before_commit": acted.append})
    for _ in range(3):
        plan.reach("store.before_commit")
    plan.reach("store.after_commit")
    assert acted == [1, 2, 3]
    assert plan.hits == {"store.before_commit": 3, "store.after_commit": 1}


def test_unknown_point_is_refused() -> None:
    with pytest.raises(ValueError, match=r"store\.somewhere"):
        FaultPlan({"store.somewhere": print})


@pytest.mark.parametrize(("text", "survived"), [("step.after_call:3", 2), ("step.after_call", 0)])
def test_plan_from_text_kills_at_the_hit(text: str, survived: int) -> None:
    program = (
        "from eventcore.kernel.faults import plan_from_text\nimport sys\nplan = plan_from_text(sys.argv[1])\n"
        "for hit in range(9):\n    plan.reach('step.after_call')\n    print(hit, flush=True)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", program, text], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) == survived


def test_points_reached_in_code_are_named() -> None:
    """A misspelt point would never fire."""
    used = {
        point
        for file in ROOT.rglob("*.py")
        for point in re.findall(r"""\breach\(["']([a-z_.]+)["']\)""", file.read_text(encoding="utf-8"))
    }
    assert used
    assert used <= FAULT_POINTS.keys()
