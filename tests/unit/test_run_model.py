"""Random lives of runs; `tests/prove/test_run_lives.py` lives many more of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite.store import SqliteStore
from tests.unit.run_model import Life

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio"  # what SQLite runs on


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_random_life(kind: str, seed: int, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "store.db")
    await Life(seed, store, Counter()).live_through(30)
