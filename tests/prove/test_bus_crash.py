"""The crash proof of the bus: killed at every named fault point and 200 times at random, under load.

About 1,000 acknowledged emits a second, five durable subscribers (a slow one, some that fail now and then, two with
keys and concurrency), runs started by some events. `EVENTCORE_SEED` repeats a run; seed and counts are printed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from eventcore.kernel.faults import FAULT_POINTS
from tests.recovery.load_driver import LIFE
from tests.recovery.load_site import Counts, LoadSite

pytestmark = [pytest.mark.prove, pytest.mark.violent, pytest.mark.timeout(1800)]

SEED = os.environ.get("EVENTCORE_SEED") or str(random.SystemRandom().randrange(10**9))
KILLS = 200
#: Kills of one home before it is let finish.
LIVES = 20
HITS = 3


@pytest.fixture(autouse=True)
def seed() -> None:
    """Said before anything can fail."""
    print(f"\nrepeat with EVENTCORE_SEED={SEED}", flush=True)


def test_killed_at_every_fault_point_under_load(tmp_path: Path) -> None:
    dice, counts = random.Random(f"{SEED}:points"), Counts()
    points = [point for point in FAULT_POINTS if not point.startswith(("install.", "uninstall."))]
    for point in points:
        place = LoadSite(tmp_path / point, counts)
        # There are ten runs of each kind a second, and hundreds of the rest.
        most = 12 if point.startswith(("run.", "step.")) else 300
        died = [place.die_at(f"{point}:{hit}", 30) for hit in [1, *dice.sample(range(2, most), HITS - 1)]]
        assert any(died), f"{point} was never reached"
        place.finish()
    print(f"{len(points)} fault points under load: {counts}")


def test_killed_200_times_at_random_under_load(tmp_path: Path) -> None:
    dice, counts = random.Random(f"{SEED}:random"), Counts()
    for number in range(KILLS // LIVES):
        place = LoadSite(tmp_path / str(number), counts)
        for _ in range(LIVES):
            place.kill_after(dice.uniform(0.0, 1.0))
        place.finish()
    print(f"at random, under load: {counts}")
    assert counts.kills == KILLS


def test_the_load_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    """Without a kill: how many emits a second were acknowledged while all five subscribers were at work."""
    place = LoadSite(tmp_path / "home", Counts())
    assert place.begin(5).wait(120) == 0
    place.check()
    numbers = [int(words[1]) for line in place.log.read_text().splitlines() if (words := line.split())[0] == "emitted"]
    rate = sum(number >= LIFE for number in numbers) / 5
    print(f"{rate:,.0f} acknowledged emits a second beside five durable subscribers")
    place.finish()
    assert rate > 500, "too slow a load to prove anything"
