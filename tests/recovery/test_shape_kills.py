"""Runs of sixteen shapes at once, killed a few times; `tests/prove/test_workflow_crash.py` has the full counts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.recovery.shapes import SHAPES
from tests.recovery.shapes_site import Counts, ShapesSite

pytestmark = [pytest.mark.violent, pytest.mark.timeout(900)]


def test_many_shapes_survive_a_few_kills(tmp_path: Path, dice: random.Random, prove: bool, report: list[str]) -> None:
    if prove:
        pytest.skip("tests/prove does it in full")
    counts = Counts()
    place = ShapesSite(tmp_path / "home", 3 * len(SHAPES), counts)
    # First of all, while there is more than forty times of everything left to do: one kill is certain.
    point = dice.choice(
        ["step.before_call", "step.after_call", "step.before_commit", "step.after_commit", "run.before_end"]
    )
    place.die_at(f"{point}:{dice.randint(1, 40)}")
    for _ in range(4):
        place.kill_after(dice.uniform(0.0, 0.5))
    place.finish()
    report.append(f"sixteen shapes (fault: {point}): {counts}")
    assert counts.kills
