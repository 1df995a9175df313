"""A call may use so many CPU seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import HomeError, PluginTimeout

CODE = """
import time
def run(params):
    end = time.process_time() + params["cpu"]
    while time.process_time() < end:
        pass
    time.sleep(params.get("sleep", 0))
    return "done"
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins/busy"
    folder.mkdir(parents=True)
    (tmp_path / "eventcore.toml").write_text("[sandbox]\ncpu_seconds = 1.5\n")
    (folder / "plugin_manifest.json").write_text('{"name": "busy", "version": "1.0.0", "module": "handler"}')
    (folder / "handler.py").write_text(CODE)
    return tmp_path


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_a_call_that_uses_too_much_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EventCore(home) as core:
        await core.plugins.enable("busy")
        # Waiting costs nothing; and each call begins anew, in the same worker. One alone stays far below the limit: a
        # virtual machine whose processor is taken away may book that time as used.
        assert await core.plugins.run("busy", {"cpu": 0.1, "sleep": 1.5}) == "done"
        for _ in range(8):
            assert await core.plugins.run("busy", {"cpu": 0.2}) == "done"
        with pytest.raises(PluginTimeout) as caught:
            await core.plugins.run("busy", {"cpu": 25})
        assert caught.value.kind == "CpuLimit"
        assert caught.value.details["limit"] == "cpu"
        assert "1.5 s of CPU time" in caught.value.message
        assert await core.plugins.run("busy", {"cpu": 0}) == "done"
    (home / "eventcore.toml").write_text("[sandbox]\ncpu_seconds = 0.1\n")
    monkeypatch.setenv("KARI_CPU_LIMIT", "30")
    async with EventCore(home) as core:
        assert core.plugins.calls.limits.cpu == 30
        assert await core.plugins.run("busy", {"cpu": 0.4}) == "done"
        monkeypatch.setenv("EVENTCORE_CPU_LIMIT", "0.5")
    async with EventCore(home) as core:
        with pytest.raises(PluginTimeout):
            await core.plugins.run("busy", {"cpu": 25})


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["much", "-1", "nan", "1e9"])
async def test_a_limit_that_is_none_is_told(text: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KARI_CPU_LIMIT", text)
    with pytest.raises(HomeError, match="KARI_CPU_LIMIT"):
        async with EventCore(home):
            pass
