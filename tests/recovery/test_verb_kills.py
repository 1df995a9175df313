"""Killed between what is asked of runs and its effect; `tests/prove/test_run_lives.py` has the full counts."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.recovery.verbs_site import VerbsSite

pytestmark = [pytest.mark.violent, pytest.mark.timeout(900)]

POINTS = ["emit.before_commit", "emit.after_commit", "store.before_commit", "store.after_commit", "step.before_call"]
POINTS += ["step.after_call", "step.before_commit", "step.after_commit", "run.before_start", "run.before_end"]


def test_what_is_asked_of_runs_survives_a_few_kills(
    tmp_path: Path, dice: random.Random, prove: bool, report: list[str]
) -> None:
    if prove:
        pytest.skip("tests/prove does it in full")
    counts: Counter[str] = Counter()
    site = VerbsSite(tmp_path / "home", dice.randrange(10**6), counts)
    for _ in range(2):
        site.live(60, f"{dice.choice(POINTS)}:{dice.randint(1, 25)}")
    for _ in range(2):
        site.live(200, kill_after=dice.uniform(0.0, 0.6))
    site.finish()
    report.append(f"seed {site.seed}: {dict(counts)}")
    assert counts["kills"]
