"""SIGKILL under load, a few times: a thousand emits a second, five durable subscribers. `tests/prove` has the rest."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from eventcore.kernel.faults import FAULT_POINTS
from tests.recovery.load_site import Counts, LoadSite

pytestmark = [pytest.mark.violent, pytest.mark.timeout(900)]


def test_a_few_kills_under_load(tmp_path: Path, dice: random.Random, prove: bool, report: list[str]) -> None:
    if prove:
        pytest.skip("tests/prove does it in full")
    counts = Counts()
    place = LoadSite(tmp_path / "home", counts)
    for _ in range(3):
        place.kill_after(dice.uniform(0.05, 0.8))
    point = dice.choice([point for point in FAULT_POINTS if point.startswith(("delivery.", "emit.", "store."))])
    # It dies within a second; how many commits there are in a second is the machine's affair.
    assert place.die_at(f"{point}:{dice.randint(1, 60)}", 60)
    place.finish()
    report.append(f"under load (fault: {point}): {counts}")
