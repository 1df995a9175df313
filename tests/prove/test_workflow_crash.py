"""The crash proof of workflows: 200 runs of sixteen shapes at once, killed at every named fault point and 200 times.

Effects are counted outside the engine, by run, step and idempotency key; what is stored is read with plain sqlite3.
`EVENTCORE_SEED` repeats a run; seed and counts are printed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from eventcore.kernel.faults import FAULT_POINTS
from tests.recovery.shapes_site import Counts, ShapesSite

pytestmark = [pytest.mark.prove, pytest.mark.violent, pytest.mark.timeout(3600)]

SEED = os.environ.get("EVENTCORE_SEED") or str(random.SystemRandom().randrange(10**9))
KILLS, RUNS, HITS = 200, 200, 3
#: Kills of one home before it is let finish.
LIVES = 10


@pytest.fixture(autouse=True)
def seed() -> None:
    """Said before anything can fail."""
    print(f"\nrepeat with EVENTCORE_SEED={SEED}", flush=True)


def test_killed_at_every_fault_point(tmp_path: Path) -> None:
    dice, counts = random.Random(f"{SEED}:workflow-points"), Counts()
    points = [point for point in FAULT_POINTS if point.startswith(("emit.", "store.", "run.", "step."))]
    assert len(points) == 12  # those of deliveries and installations have crash tests of their own
    for point in points:
        place = ShapesSite(tmp_path / point, RUNS, counts)
        # The driver emits a dozen events itself; everything else happens by the hundred.
        most = 12 if point.startswith("emit.") else 200
        died = [place.die_at(f"{point}:{hit}") for hit in [1, *dice.sample(range(2, most), HITS - 1)]]
        assert any(died), f"{point} was never reached"
        place.finish()
    print(f"{len(points)} fault points: {counts}")


def test_killed_200_times_at_random(tmp_path: Path) -> None:
    dice, counts, homes = random.Random(f"{SEED}:workflow-random"), Counts(), 0
    while counts.kills < KILLS:
        homes += 1
        place = ShapesSite(tmp_path / str(homes), RUNS, counts)
        for _ in range(min(LIVES, KILLS - counts.kills)):
            if not place.kill_after(dice.uniform(0.0, 0.4)):
                break  # all runs are over
        place.finish()
    print(f"at random, in {homes} homes of {RUNS} runs: {counts}")
    assert counts.kills == KILLS
