"""A2, C6, C21, C39, C40, E7, E10, E12: what they ask for as far as it is built; the mark is where it is all of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventcore import PluginManager, PluginService
from eventcore.kernel.errors import EventCoreError, InvalidInput
from eventcore.testing import HomeKit
from tests.acceptance.conftest import HomeFolder, QuickHome
from tests.acceptance.test_plugin_install import packed, source
from tests.unit.test_memory import Service

GREET = 'def run(params):\n    return {"said": "hi"}'


# -- C: manifests ------------------------------------------------------------------------------------------------------


@pytest.mark.req("C40")
def test_what_the_code_says_of_itself_is_shown_and_compared(quick: QuickHome) -> None:
    grants = [word for one in ("memory_read", "memory_write", "scheduler") for word in ("--grant", one)]
    assert quick.run("plugins", "enable", "task-scheduler", *grants).returncode == 0
    shown = quick.run("plugins", "info", "task-scheduler").stdout
    for capability in ("task_creation", "reminders", "recurrence"):
        assert capability in shown
    assert "warning" not in shown
    quick.plugin("older", '__plugin_info__ = {"version": "0.9.0", "capabilities": ["greeting"]}\n' + GREET)
    enabled = quick.run("plugins", "enable", "older")
    warning = "__plugin_info__ says version 0.9.0, and the manifest 1.0.0"
    assert (enabled.returncode, warning in enabled.stderr) == (0, True)
    shown = quick.run("plugins", "info", "older").stdout
    assert "greeting" in shown
    assert f"warning: plugins/older/handler.py {warning}" in shown.replace(f"{quick.root}/", "")


def test_a_version_is_semantic_and_compared_by_number(quick: QuickHome, tmp_path: Path) -> None:
    quick.plugin("odd", GREET, version="abc")
    done = quick.run("plugins", "validate", "plugins/odd")
    assert (done.returncode, "must be a semantic version" in done.stdout) == (1, True)
    needy = source(tmp_path, "needy", dependencies=[{"name": "helper", "version": ">=1.10.0"}])
    for version, code in (("1.9.0", 2), ("1.10.0", 0)):
        helper = source(tmp_path / version, "helper", version=version)
        assert quick.run("plugins", "install", str(helper), "--yes").returncode == 0
        assert quick.run("plugins", "install", str(needy), "--yes").returncode == code, version
        quick.run("plugins", "uninstall", "helper", "--yes")


MARKET: dict[str, Any] = {
    "name": "Advanced Box",
    "price": "9 EUR",
    "installation": {
        "dependencies": ["croniter>=1.0.0"],
        "system_requirements": ["python>=3.8", "a GPU"],
        "setup_instructions": "Read the README, then restart",
    },
}


def test_the_marketplace_block_is_read_at_install(quick: QuickHome, tmp_path: Path) -> None:
    place = source(tmp_path / "good", marketplace=MARKET)
    done = quick.run("plugins", "install", str(place), "--yes")
    assert done.returncode == 0, done.stderr
    assert "Read the README, then restart" in done.stdout
    assert "croniter>=1.0.0" in done.stdout  # shown; nothing is fetched yet
    assert "9 EUR" in quick.run("plugins", "info", "box").stdout
    newer = {**MARKET, "installation": {"system_requirements": ["python>=3.99"]}}
    refused = quick.run("plugins", "install", str(source(tmp_path / "bad", "new", marketplace=newer)), "--yes")
    assert (refused.returncode, "needs Python >=3.99" in refused.stderr) == (2, True)


def test_python_packages_are_shown_and_missing_ones_named(quick: QuickHome, tmp_path: Path) -> None:
    """C21 as far as it is built: what is asked for is shown; nothing is installed yet."""
    packages = {"python_packages": ["croniter>=1.0", "surely-not-there>=2"]}
    place = source(tmp_path, dependencies=packages)
    (place / "handler.py").write_text("import surely_not_there\n" + GREET)
    (place / "requirements.txt").write_text("# more\n--index-url https://example.com\npydantic>=99  # new\n")
    shown = quick.run("plugins", "install", str(place), "--yes")
    asked = "croniter>=1.0, surely-not-there>=2 (not here), pydantic>=99 (not here)"
    assert (shown.returncode, asked in shown.stdout) == (0, True)
    assert asked in quick.run("plugins", "info", "box").stdout
    failed = quick.run("plugins", "enable", "box")
    assert failed.returncode == 1
    assert "No module named 'surely_not_there'" in failed.stderr
    assert "pip install 'surely-not-there>=2' 'pydantic>=99'" in failed.stderr
    (place / "handler.py").write_text("import croniter\n" + GREET)
    quick.run("plugins", "uninstall", "box", "--yes")
    assert quick.run("plugins", "install", str(place), "--yes").returncode == 0
    assert quick.run("plugins", "enable", "box").returncode == 0


# -- A, E: events and Python APIs --------------------------------------------------------------------------------------


def test_the_life_of_a_plugin_is_told_by_events(quick: QuickHome, tmp_path: Path) -> None:
    """A2 but for `plugin_updated` and `plugin_reloaded`, which come with updates and reloading."""
    place = source(tmp_path)
    (place / "handler.py").write_text("def run(params):\n    return 1 / params['by']")
    assert quick.run("plugins", "install", str(place), "--yes").returncode == 0
    quick.run("plugins", "enable", "box")
    assert quick.run("run", "box", "--params", '{"by": 0}').returncode == 1
    quick.run("plugins", "disable", "box")
    quick.run("plugins", "uninstall", "box", "--yes")
    rows = quick.json("events", "list", "--type", "plugin_*")
    assert [row["type"].removeprefix("plugin_") for row in rows] == [
        *("installed", "loaded", "enabled", "error", "disabled", "uninstalled", "unloaded"),
    ]
    assert {row["data"]["plugin"] for row in rows} == {"box"}
    assert {row["data"]["version"] for row in rows} == {"1.0.0"}
    [error] = [row["data"] for row in rows if row["type"] == "plugin_error"]
    assert (error["type"], error["message"]) == ("ZeroDivisionError", "division by zero")
    lines = quick.run("events", "list", "--type", "plugin_*").stdout
    assert lines.count("box") >= 7
    assert "division by zero" in lines


@pytest.mark.req("E7")
@pytest.mark.anyio
async def test_the_service_takes_a_plugin_through_its_life(
    eventcore_home: HomeKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(packed(source(tmp_path), "gztar"), tmp_path / "test-plugin.tar.gz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTCORE_HOME", str(eventcore_home.root))
    service = PluginService()
    plugin_id = await service.install_plugin("test-plugin.tar.gz")
    assert (await service.get_plugin_info(plugin_id))["status"] == "installed"
    assert plugin_id in [row["id"] for row in await service.list_plugins("disabled")]
    await service.enable_plugin(plugin_id)
    assert (await service.get_plugin_info(plugin_id))["status"] == "enabled"
    assert [row["id"] for row in await service.list_plugins("enabled")] == [plugin_id]
    await service.disable_plugin(plugin_id)
    assert (await service.get_plugin_info(plugin_id))["status"] == "disabled"
    await service.uninstall_plugin(plugin_id)
    assert plugin_id not in [row["id"] for row in await service.list_plugins()]
    with pytest.raises(InvalidInput, match="nothing is fetched from https://plugins"):
        await service.install_plugin(plugin_url="https://plugins.example.com/box.tar.gz")
    with pytest.raises(InvalidInput, match="one of the two"):
        await service.install_plugin()


@pytest.mark.anyio
async def test_an_update_keeps_settings_and_comes_back_from_a_bad_one(eventcore_home: HomeKit, tmp_path: Path) -> None:
    schema = {"limit": {"type": "integer", "default": 1}}
    code = "from eventcore.sdk import ctx\ndef run(params):\n    return ['{}', ctx.config['limit']]\n"
    places = {}
    for version in ("1.9.0", "1.10.0", "2.0.0", "3.0.0"):
        place = places[version] = source(tmp_path / version, version=version, config_schema=schema)
        (place / "handler.py").write_text(code.format(version))
    service = PluginService()
    plugin_id = await service.install_plugin(places["1.9.0"])
    await service.enable_plugin(plugin_id)
    eventcore_home.perform("plugins.configure", name="box", key="limit", value=7)

    await service.update_plugin(plugin_id=plugin_id, plugin_path=places["1.10.0"])
    assert eventcore_home.call("box") == ["1.10.0", 7]
    (places["2.0.0"] / "handler.py").write_text("def run(params:\n")
    with pytest.raises(EventCoreError, match=r"handler\.py"):
        await service.update_plugin(plugin_id, places["2.0.0"])
    assert eventcore_home.call("box") == ["1.10.0", 7]
    info = await service.get_plugin_info(plugin_id)
    assert (info["status"], info["version"]) == ("enabled", "1.10.0")
    assert info["package"]["source"] == str(places["1.10.0"]), "it is listed with where it came from"
    shutil.rmtree(places["1.10.0"])  # then the copy that was made is what it comes back from
    with pytest.raises(EventCoreError, match=r"handler\.py"):
        await service.update_plugin(plugin_id, places["2.0.0"])
    assert eventcore_home.call("box") == ["1.10.0", 7]
    with pytest.raises(InvalidInput, match="it holds other, not box"):
        await service.update_plugin(plugin_id, source(tmp_path, "other"))


@pytest.fixture
def embeddings() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.mark.req("E10")
@pytest.mark.anyio
async def test_results_are_remembered_and_found_by_text_and_by_likeness(
    eventcore_home: HomeKit, embeddings: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = QuickHome(eventcore_home.root)
    monkeypatch.chdir(home.root)
    home.plugin("planner", "def run(params):\n    return {'task': params['task_title']}", intent="schedule_task")
    user = {"user_id": "ada", "roles": ["user"]}

    async def schedule(*titles: str) -> None:
        manager = PluginManager()
        for title in titles:
            await manager.run_plugin("schedule_task", {"task_title": title}, user)
        eventcore_home.close()

    def found(text: str) -> list[str]:
        return [row["result"]["task"] for row in home.json("memory", "search", text)]

    await schedule("rain", "train")
    assert found("schedule") == ["train", "rain"]
    home.settings("[memory]\nstore_results = false\n")
    await schedule("soup")
    assert found("schedule") == ["train", "rain"]
    home.settings(f'[memory]\nembeddings = "{embeddings.url}"\nmodel = "stub"\n')
    eventcore_home.perform("status")  # from now on an engine runs, as in a host
    deadline = time.monotonic() + 60
    while (order := found("weather")) != ["rain", "train"] and time.monotonic() < deadline:
        continue  # memories are measured behind
    assert order == ["rain", "train"]


BUSY = """
def run(params):
    while params.get("spin"):
        pass
    return "done"
"""


@pytest.mark.timeout(300)
@pytest.mark.req("E12")
def test_the_environment_decides_folder_cpu_and_widgets(
    quick: QuickHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = HomeFolder(tmp_path / "elsewhere")
    elsewhere.plugin("busy", BUSY, resources={"timeout_seconds": 100})
    elsewhere.write("plugins/busy/ui.py", "def render():\n    return '<p>Busy</p>'\n")
    quick.plugin("at-home", GREET)
    for prefix in ("KARI", "EVENTCORE"):
        with monkeypatch.context() as environ:
            environ.setenv(f"{prefix}_PLUGIN_DIR", str(elsewhere.root / "plugins"))
            slugs = {row["slug"] for row in quick.json("plugins", "list")}
            assert ("busy" in slugs, "at-home" in slugs) == (True, False)
            quick.run("plugins", "enable", "busy")
            environ.setenv(f"{prefix}_CPU_LIMIT", "1" if prefix == "KARI" else "0.5")
            began = time.monotonic()
            spun = quick.run("run", "busy", "--params", '{"spin": true}', "--json")
            assert time.monotonic() - began < 60, "the time limit is 100 s"
            error = json.loads(spun.stderr.splitlines()[-1])["error"]
            assert (spun.returncode, error["details"]["limit"]) == (1, "cpu")
            assert quick.json("run", "busy")["result"] == "done"
        assert "busy" not in {row["slug"] for row in quick.json("plugins", "list") if row["state"] != "failed"}
    monkeypatch.setenv("KARI_PLUGIN_DIR", str(elsewhere.root / "plugins"))
    monkeypatch.delenv("EVENTCORE_ADVANCED_MODE", raising=False)
    for name in ("ADVANCED_MODE", "EVENTCORE_ADVANCED_MODE"):
        for said, on in (("false", False), ("0", False), ("maybe", False), ("true", True), ("Yes", True), ("1", True)):
            monkeypatch.setenv(name, said)
            shown = quick.json("plugins", "info", "busy")["ui"]
            assert shown.startswith("not trusted by manifest")
            assert ("shown, since ADVANCED_MODE is on" in shown) is on, (name, said)
