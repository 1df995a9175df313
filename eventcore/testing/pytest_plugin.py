"""A pytest plugin for those who build on EventCore: the fixtures `eventcore_home` and `eventcore`.

pytest loads it by itself where EventCore is installed. Loading it imports nothing of the engine; the fixtures do.

    def test_my_home(eventcore_home):
        (eventcore_home / "workflows" / "mine.yaml").write_text(...)

    @pytest.mark.anyio
    async def test_my_intent(eventcore):
        await eventcore.bus.emit("order_created", {"id": 1})
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from eventcore.app import EventCore


@pytest.fixture
def eventcore_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new home: a folder with `eventcore.toml`, `hooks/`, `plugins/` and `workflows/`, gone after the test.

    `EVENTCORE_HOME` names it, so that commands and the Python faces find it; other settings from the environment that
    would change where plugins come from are taken away.
    """
    from eventcore.home.layout import Home

    home, _ = Home.init(tmp_path / "home")
    monkeypatch.setenv("EVENTCORE_HOME", str(home.root))
    for name in ("EVENTCORE_PLUGIN_DIR", "KARI_PLUGIN_DIR"):
        monkeypatch.delenv(name, raising=False)
    return home.root


@pytest.fixture
async def eventcore(anyio_backend: Any) -> AsyncIterator[EventCore]:
    """An open engine in memory, for tests under anyio's pytest plugin (`@pytest.mark.anyio`)."""
    from eventcore.app import EventCore

    async with EventCore() as core:
        yield core
