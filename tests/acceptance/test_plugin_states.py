"""D1, D2: states of plugins, over restarts; initialize and cleanup within their time."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import PluginFailed
from tests.acceptance.conftest import QuickHome

OK = "def run(params):\n    return 1\n"

CLASS = """
class Thing:
    async def initialize(self):
        {initialize}

    async def execute(self, context):
        return {{"ok": True}}

    def cleanup(self):
        {cleanup}
"""
YAML = "name: thing\nversion: 1.0.0\nmain: main.py\nclass: Thing\n"


def changes(home: QuickHome) -> list[str]:
    """The events of plugins' states, in order, as `plugin state`."""
    said = ("installed", "enabled", "disabled", "degraded", "failed", "uninstalled")
    rows = home.json("events", "list", "--type", "plugin_*")
    kinds = [(row["data"].get("plugin"), row["type"].removeprefix("plugin_")) for row in rows]
    return [f"{plugin} {kind}" for plugin, kind in kinds if kind in said]


def state(home: QuickHome, slug: str) -> tuple[str, str | None]:
    row = home.json("plugins", "info", slug)
    assert row["since"] or row["state"] == "discovered"
    return row["state"], row["reason"]


@pytest.mark.req("D1")
def test_states_survive_restarts_and_every_change_is_an_event(quick: QuickHome, tmp_path: Path) -> None:
    source = tmp_path / "src/box"
    source.mkdir(parents=True)
    (source / "plugin_manifest.json").write_text('{"name": "box", "version": "1.0.0", "module": "handler"}')
    (source / "handler.py").write_text(OK)
    quick.plugin("hand-made", OK)
    assert state(quick, "hand-made") == ("discovered", None)

    quick.run("plugins", "install", str(source), "--yes")
    assert state(quick, "box") == ("installed", None)
    quick.run("plugins", "enable", "box")
    assert state(quick, "box") == ("enabled", None)
    quick.run("plugins", "disable", "box")
    assert state(quick, "box") == ("disabled", None)
    quick.run("plugins", "enable", "box")

    handler = quick.root / "plugins/box/handler.py"
    handler.write_text("def run(params:\n")
    assert quick.run("run", "box").returncode == 1  # a restart finds out
    failed, reason = state(quick, "box")
    assert failed == "failed"
    assert "handler.py, line 1" in str(reason)
    before = changes(quick)
    quick.run("plugins", "list")
    quick.run("run", "hand-made")
    assert changes(quick) == before, "what had failed and fails again is no change"
    handler.write_text(OK)
    assert quick.json("run", "box")["result"] == 1
    assert state(quick, "box") == ("enabled", None)
    quick.run("plugins", "uninstall", "box", "--yes")
    assert changes(quick) == [
        *("box installed", "box enabled", "box disabled", "box enabled", "box failed", "box enabled"),
        "box uninstalled",
    ]


@pytest.mark.anyio
async def test_every_change_is_in_the_audit_log(quick: QuickHome) -> None:
    quick.plugin("seen", OK)
    async with EventCore(quick.root) as core:
        await core.plugins.enable("seen")
        await core.plugins.disable("seen")
        entries = await core.engine.store.audit(core.engine.tenant)
    assert [(row.action, row.target) for row in entries] == [("plugin_disabled", "seen"), ("plugin_enabled", "seen")]
    assert json.loads(entries[0].raw_old or b"")["state"] == "enabled"
    assert json.loads(entries[0].raw_new or b"")["state"] == "disabled"


def test_a_plugin_in_use_whose_folder_is_gone_is_shown(quick: QuickHome) -> None:
    quick.plugin("lost", OK)
    quick.run("plugins", "enable", "lost")
    shutil.rmtree(quick.root / "plugins/lost")
    row = next(row for row in quick.json("plugins", "list") if row["slug"] == "lost")
    assert (row["state"], row["reason"]) == ("failed", "its folder is gone; it was enabled")
    quick.plugin("lost", OK)
    assert quick.json("run", "lost")["result"] == 1


def thing(home: QuickHome, *, initialize: str = "return True", cleanup: str = "pass") -> None:
    home.write("plugins/thing/plugin.yaml", YAML)
    home.write("plugins/thing/main.py", CLASS.format(initialize=initialize, cleanup=cleanup))


@pytest.mark.req("D2")
@pytest.mark.anyio
async def test_initialize_and_cleanup(quick: QuickHome) -> None:
    thing(quick, initialize="return False")
    refused = quick.run("plugins", "enable", "thing")
    assert refused.returncode == 1
    row = quick.json("plugins", "info", "thing")
    assert f"{row['state']}: {row['reason']}" == "failed: initialize returned False"

    thing(quick, cleanup="import time; time.sleep(600)")
    quick.settings("[plugins]\nstop_timeout = 0.5\n")
    async with EventCore(quick.root) as core:
        record = await core.plugins.enable("thing")
        assert core.plugins.lifecycle.running(record)
        began = time.monotonic()
        await core.plugins.disable("thing")
        assert time.monotonic() - began < 60, "a hanging cleanup is killed"
        assert not core.plugins.lifecycle.running(record)
        assert record.state == "disabled"


@pytest.mark.anyio
async def test_a_hanging_initialize_is_cut_off(quick: QuickHome) -> None:
    quick.settings("[plugins]\nstart_timeout = 0.5\n")
    thing(quick, initialize="import asyncio; await asyncio.sleep(600)")
    async with EventCore(quick.root) as core:
        began = time.monotonic()
        with pytest.raises(PluginFailed):
            await core.plugins.enable("thing")
        assert time.monotonic() - began < 60
        record = core.plugins.get("thing")
        assert record.state == "failed"
        assert not core.plugins.lifecycle.running(record)


@pytest.mark.anyio
async def test_cleanup_runs_when_a_plugin_is_disabled(quick: QuickHome) -> None:
    thing(quick, cleanup="import sys; sys.stderr.write('cleaned')")
    async with EventCore(quick.root) as core:
        record = await core.plugins.enable("thing")
        await core.plugins.disable("thing")
        assert not core.plugins.lifecycle.running(record)
