"""Random verbs on runs of random workflows: many lives in one process, and many that are killed.

`EVENTCORE_SEED` repeats a run; seed and counts are printed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite.store import SqliteStore
from tests.recovery.test_verb_kills import POINTS
from tests.recovery.verbs_site import VerbsSite
from tests.unit.run_model import Life

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3600)]

SEED = os.environ.get("EVENTCORE_SEED") or str(random.SystemRandom().randrange(10**9))
LIVES, KILLS = {"memory": 1000, "sqlite": 300}, 200


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio"  # what SQLite runs on


@pytest.fixture(autouse=True)
def seed() -> None:
    """Said before anything can fail."""
    print(f"\nrepeat with EVENTCORE_SEED={SEED}", flush=True)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", LIVES)
async def test_many_random_lives(kind: str, tmp_path: Path) -> None:
    dice, counts = random.Random(f"{SEED}:lives"), Counter[str]()
    for number in range(LIVES[kind]):
        store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / f"{number}.db")
        await Life(dice.randrange(10**9), store, counts).live_through(30)
    print(f"{LIVES[kind]} lives on {kind}: {dict(counts)}")


@pytest.mark.violent
def test_what_is_asked_of_runs_survives_kills(tmp_path: Path) -> None:
    dice, counts, homes = random.Random(f"{SEED}:verbs"), Counter[str](), 0
    while counts["kills"] < KILLS:
        homes += 1
        site = VerbsSite(tmp_path / str(homes), dice.randrange(10**6), counts)
        for point in dice.sample(POINTS, 4):
            site.live(60, f"{point}:{dice.randint(1, 40)}")
        for _ in range(6):
            site.live(200, kill_after=dice.uniform(0.0, 0.8))
        site.finish()
    print(f"{homes} homes: {dict(counts)}")
