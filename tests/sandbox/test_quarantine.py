"""Quarantine, from the third broken rule to the operator's word; and what a killed host leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import EventCoreError, PluginFailed
from eventcore.plugins.sandbox import places
from tests.sandbox.tier import HERE

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]
CODE = """
import os, sys, time
def run(params):
    if params.get("break"):
        os.write(int(sys.argv[1]), b"\\xff" * 64)
        time.sleep(30)
    return "well"
"""


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[EventCore]:
    """A home whose store is a file, so that a second opening finds what the first has left."""
    async with EventCore(folder) as core:
        yield core


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "plugins" / "bad"
    place.mkdir(parents=True)
    (place / "plugin_manifest.json").write_text('{"name": "bad", "version": "1.0.0", "module": "handler"}')
    (place / "handler.py").write_text(CODE)
    (tmp_path / "eventcore.toml").write_text('[plugins]\nenabled = ["bad"]\n')
    return tmp_path


async def _in_quarantine(core: EventCore, times: int) -> None:
    """Wait until it is stored: that happens behind the call."""
    with anyio.fail_after(60):
        found: list[str] = []
        while len(found) < times:
            found = [event.data["error"]["kind"] async for event in core.history.query(type="plugin_failed")]
            await anyio.sleep(0.01)
    assert found == ["Quarantined"] * times
    assert core.plugins.get("bad").state == "failed"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_quarantine_survives_a_restart_and_ends_by_the_operator_or_with_other_code(home: Path) -> None:
    async with opened(home) as core:
        assert await core.plugins.run("bad", {}) == "well"
        for _ in range(3):
            with pytest.raises(PluginFailed) as caught:
                await core.plugins.run("bad", {"break": True})
            assert caught.value.kind == "ProtocolViolation"
        await _in_quarantine(core, 1)
        with pytest.raises(EventCoreError, match="quarantine"):
            await core.plugins.run("bad", {})
    async with opened(home) as core:
        found = core.plugins.get("bad")
        assert (found.state, "quarantine" in str(found.reason)) == ("failed", True)
        with pytest.raises(EventCoreError, match="quarantine"):
            await core.plugins.run("bad", {})
        await core.plugins.enable("bad")
        assert await core.plugins.run("bad", {}) == "well"
        for _ in range(3):
            with pytest.raises(PluginFailed):
                await core.plugins.run("bad", {"break": True})
        await _in_quarantine(core, 2)
    (home / "plugins" / "bad" / "handler.py").write_text(CODE + "\n# mended\n")
    async with opened(home) as core:
        assert core.plugins.get("bad").state == "enabled"
        assert await core.plugins.run("bad", {}) == "well"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_plugin_that_breaks_a_rule_at_each_start_comes_into_quarantine(home: Path) -> None:
    async def broken_once(core: EventCore) -> None:
        with pytest.raises(PluginFailed) as caught:
            await core.plugins.run("bad", {"break": True})
        assert caught.value.kind == "ProtocolViolation"

    for number in (1, 2):
        async with opened(home) as core:
            assert await core.plugins.run("bad", {}) == "well"
            await broken_once(core)
            with anyio.fail_after(60):
                while core.plugins.get("bad").strikes < number:
                    await anyio.sleep(0.01)
    async with opened(home) as core:
        await broken_once(core)
        await _in_quarantine(core, 1)
        await core.plugins.enable("bad")  # which forgets them
        assert core.plugins.get("bad").strikes == 0
        await broken_once(core)
        assert await core.plugins.run("bad", {}) == "well"
    (home / "plugins" / "bad" / "handler.py").write_text(CODE + "\n# mended\n")
    async with opened(home) as core:
        assert core.plugins.get("bad").strikes == 0


def test_what_a_killed_host_leaves_is_swept_and_what_lives_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handler.py").write_text("import time\ndef run(p):\n    open('mine', 'w')\n    time.sleep(60)\n")
    base = tmp_path / "tmp"
    base.mkdir()
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    monkeypatch.setattr(places, "_YOUNG", 0.0)
    command = [sys.executable, str(HERE / "lone_host.py"), str(tmp_path), "reduced"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (base / f"{places.PREFIX}link").symlink_to(elsewhere)
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as dead,
        subprocess.Popen(command, stdout=subprocess.PIPE) as alive,
    ):
        assert dead.stdout is not None
        assert alive.stdout is not None
        dead.stdout.readline()
        alive.stdout.readline()
        _until_both_have_written(base)
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert len([name for name in os.listdir(base) if name != f"{places.PREFIX}link"]) == 2
        _until_unlocked(base)
        left = [name for name in os.listdir(base) if not (base / name).is_symlink()]
        assert len(left) == 1
        assert os.listdir(base / left[0])  # the living one's
        assert (elsewhere / "precious").read_text() == "x"
        alive.kill()


def _until_both_have_written(base: Path) -> None:
    """They say that they are there before they call what writes."""
    until = time.monotonic() + 60
    while len(list(base.glob("*/**/mine"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)


def _until_unlocked(base: Path) -> None:
    until = time.monotonic() + 60
    while not places.sweep() and time.monotonic() < until:
        time.sleep(0.01)
