"""Every store passes every check that users get."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from eventcore.kernel.ports import Store
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore
from eventcore.testing.store_checks import ALL_CHECKS, Check

pytestmark = pytest.mark.anyio

BACKENDS = {"memory-asyncio": "asyncio", "memory-trio": "trio", "sqlite-asyncio": "asyncio"}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return BACKENDS[backend]


@pytest.fixture
def make_store(backend: str, tmp_path: Path) -> Callable[[], Store]:
    if backend.startswith("memory"):
        return MemoryStore
    numbers = itertools.count()
    return lambda: SqliteStore(tmp_path / f"{next(numbers)}.db")


@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.__name__)
async def test_check(check: Check, make_store: Callable[[], Store]) -> None:
    await check(make_store)
