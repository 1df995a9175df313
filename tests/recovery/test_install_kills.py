"""SIGKILL in the middle of an install or uninstall: afterwards the plugin is wholly there or wholly not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eventcore import EventCore
from eventcore.kernel.faults import FAULT_POINTS
from eventcore.kernel.records import Batch, EventQuery, Memory
from eventcore.plugins.packages.archive import digest_of

pytestmark = [pytest.mark.violent, pytest.mark.timeout(300)]

#: Where it is killed, and whether the plugin is there afterwards.
INSTALLS = {"install.staged": False, "install.committed": True, "install.moved": True}
UNINSTALLS = {"uninstall.moved": True, "uninstall.committed": False, "uninstall.forgotten": False}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def eventcore(home: Path, *words: str, fault: str | None = None) -> subprocess.Popen[str]:
    environ = {**os.environ, **({"EVENTCORE_FAULT": fault} if fault else {})}
    return subprocess.Popen(
        [sys.executable, "-m", "eventcore", *words],
        cwd=home,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(home: Path, *words: str, fault: str) -> None:
    done = eventcore(home, *words, fault=fault)
    _, said = done.communicate(timeout=240)
    assert done.returncode == -signal.SIGKILL, said


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "eventcore.toml").write_text("")
    box = tmp_path / "box"
    box.mkdir()
    (box / "plugin_manifest.json").write_text(json.dumps({"name": "box", "version": "1.0.0", "module": "handler"}))
    (box / "handler.py").write_text("def run(params):\n    return 1\n")
    for number in range(50):
        (box / f"data{number}.txt").write_text("x" * number)
    return folder


async def consistent(home: Path, box: Path) -> bool:
    """Whether the plugin is there; everything that tells must tell the same."""
    async with EventCore(home, quiet=True) as core:
        record = core.engine.plugins.registry.records.get("box")
        rows = {row.plugin: row for row in await core.engine.store.packages(core.engine.tenant)}
        types = [event.type for event in await core.engine.store.events(EventQuery(pattern="plugin_*"))]
    plugins = home / "plugins"
    listing = plugins / "manifest.json"
    listed = [one["name"] for one in json.loads(listing.read_text())["plugins"]] if listing.exists() else []
    there = record is not None
    assert ("box" in listed) == there
    assert (rows.get("box") is not None and rows["box"].state == "installed") == there
    assert types.count("plugin_installed") - types.count("plugin_uninstalled") == there
    assert (plugins / "box").exists() == there
    assert [path.name for path in plugins.iterdir() if path.name.startswith(".")] == [] if plugins.exists() else True
    if record is not None:
        assert record.state == "installed"
        assert digest_of(plugins / "box") == digest_of(box)
    return there


def test_every_point_is_killed_at() -> None:
    mine = {point for point in FAULT_POINTS if point.startswith(("install.", "uninstall."))}
    assert mine == {*INSTALLS, *UNINSTALLS}


@pytest.mark.req("D3")
@pytest.mark.anyio
@pytest.mark.parametrize("point", INSTALLS)
async def test_an_install_is_all_or_nothing(point: str, home: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    killed(home, "plugins", "install", str(box), "--yes", fault=f"{point}:1")
    assert await consistent(home, box) == INSTALLS[point]
    if not INSTALLS[point]:
        async with EventCore(home) as core:
            await core.plugins.packages.install(str(box), core.engine.bus.context())
    assert await consistent(home, box)


@pytest.mark.req("D3")
@pytest.mark.anyio
@pytest.mark.parametrize("point", UNINSTALLS)
async def test_an_uninstall_is_all_or_nothing(point: str, home: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    async with EventCore(home) as core:
        await core.plugins.packages.install(str(box), core.engine.bus.context())
        await core.engine.store.commit(Batch(memory=[Memory("m", core.engine.tenant, "box", "a note", b"1", 1.0)]))
    data = home / ".eventcore/data/box"
    data.mkdir(parents=True)
    killed(home, "plugins", "uninstall", "box", "--yes", "--purge", fault=f"{point}:1")
    assert await consistent(home, box) == UNINSTALLS[point]
    assert data.exists() == UNINSTALLS[point]
    async with EventCore(home, quiet=True) as core:
        assert len(await core.engine.store.memories(core.engine.tenant, "")) == UNINSTALLS[point]


@pytest.mark.anyio
async def test_killed_at_any_moment(
    home: Path, tmp_path: Path, dice: random.Random, prove: bool, report: list[str]
) -> None:
    """Without fault points: wherever the kill happens to fall, over and over on one home."""
    box = tmp_path / "box"
    there, ends = False, []
    for _ in range(40 if prove else 4):
        words = ("plugins", "uninstall", "box", "--yes") if there else ("plugins", "install", str(box), "--yes")
        done = eventcore(home, *words)
        try:
            # The deed itself is some tens of milliseconds at the end of the start-up.
            done.wait(dice.uniform(0.4, 1.6))
        except subprocess.TimeoutExpired:
            done.kill()
        done.communicate()
        there = await consistent(home, box)
        ends.append(f"{'killed' if done.returncode < 0 else 'done'}, {'there' if there else 'not there'}")
    report.append(f"installs and uninstalls: {'; '.join(ends)}")
