"""Hostile configuration for everything: both event loops, each in its strictest mode.

asyncio runs in debug mode (it finds calls from the wrong thread and coroutines nobody awaited), trio shuffles the order
of tasks that are ready. Tests of what needs one loop (SQLite) override the fixture.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from eventcore import EventCore


@pytest.fixture(scope="module", params=[("asyncio", {"debug": True}), ("trio", {})], ids=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def core(anyio_backend: Any) -> AsyncIterator[EventCore]:
    """An engine in memory; whatever a test does with it is over within 100 seconds."""
    with anyio.fail_after(100):
        async with EventCore() as engine:
            yield engine


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Runs of pytest that tests start have their folders elsewhere: each run closes the one above to other users, and
    those of the sandbox's tests that are no root are in it."""
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    place = tempfile.mkdtemp(prefix="nested-")
    os.environ["PYTEST_DEBUG_TEMPROOT"] = place
    config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))


#: Folders whose tests start processes, some of them dozens: on a busy machine a minute of that takes several.
_PATIENT = frozenset(("acceptance", "architecture", "e2e", "recovery", "sandbox", "seeds"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in _PATIENT and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Reports go from process to process as UTF-8, and some tests log what is none: lone surrogates."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report
