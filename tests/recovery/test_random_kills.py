"""SIGKILL at random moments while twenty runs, their retries and their events are under way."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import pytest

pytestmark = [pytest.mark.violent, pytest.mark.timeout(1800)]


def test_twenty_runs_survive_random_kills(
    site: Any, check: Any, driver: Any, dice: random.Random, prove: bool, report: list[str]
) -> None:
    rounds, kills, midway = 100 if prove else 4, 0, 0
    for _ in range(rounds):
        place = site()
        seen = [place.seen()]
        for _ in range(2):
            process = place.begin("many")
            time.sleep(dice.uniform(0, 0.4))  # the moment of the kill is the input of this test
            process.kill()
            kills += process.wait() == check.killed
            process.stdout.close()
            seen.append(place.seen())
            midway += 0 < len(seen[-1].of("result")) < driver.RUNS
        place.restart("many")
        seen.append(place.seen())
        for before, after in pairwise(seen):
            check.kept(after)
            check.not_repeated(before, after)
        check.finished(seen[-1], driver)
        assert len(seen[-1].stored.runs) == 2 * driver.RUNS
        assert len(seen[-1].stored.of_type("order_placed")) == driver.RUNS
    report.append(f"random kills: {kills} in {rounds} rounds of {driver.RUNS} runs, {midway} while some had ended")
    assert kills
