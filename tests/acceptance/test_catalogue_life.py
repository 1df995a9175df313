"""G24, G26, G31, K2: the catalogue's plugins that ask their host for something, from their tests to a restart."""

from __future__ import annotations

import json
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest

from eventcore.testing import HomeKit, StubEndpoint, VirtualClock
from tests.acceptance.conftest import HomeFolder, QuickHome

CATALOGUE = Path(__file__).resolve().parents[2] / "plugins"


def own_tests(home: HomeFolder, *names: str) -> None:
    """The tests that lie beside plugins pass, as their authors run them."""
    for name in names:
        done = home.run("plugins", "test", name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout


# -- task-scheduler ----------------------------------------------------------------------------------------------------

SCHEDULER = ["memory_read", "memory_write", "scheduler"]


@pytest.mark.req("G26")
def test_the_task_scheduler_passes_its_tests_and_reminds_after_a_restart(
    home: HomeFolder, eventcore_home: HomeKit
) -> None:
    own_tests(home, "task-scheduler")
    clock = eventcore_home.virtual_time(VirtualClock(time.time()))  # the plugin's own clock is the real one
    eventcore_home.perform("plugins.enable", name="task-scheduler", grants=SCHEDULER)
    done = eventcore_home.call(
        "schedule_task", {"task_title": "Call Grace", "due_date": "2040-12-31T18:00:00Z", "priority": "urgent"}
    )
    assert (done["success"], done["task"]["due_date"]) == (True, "2040-12-31T18:00:00+00:00")
    eventcore_home.restart()
    wait = datetime.fromisoformat(done["next_reminder"]).timestamp() - clock.now()
    assert wait >= 3600
    eventcore_home.advance(wait - 1)
    assert eventcore_home.events("task_reminder") == []
    eventcore_home.advance(2)
    [event] = eventcore_home.events("task_reminder")
    assert (event["data"]["task_id"], event["data"]["title"]) == (done["task_id"], "Call Grace")
    [remembered] = eventcore_home.perform("memory.search", text="Call Grace", plugin="task-scheduler")[:1]
    assert remembered["result"]["id"] == done["task_id"]


def test_a_recurring_task_is_reminded_of_again(eventcore_home: HomeKit, virtual_clock: VirtualClock) -> None:
    eventcore_home.perform("plugins.enable", name="task-scheduler", grants=SCHEDULER)
    eventcore_home.call("schedule_task", {"task_title": "Drink", "recurrence": "hourly"})
    for count in (1, 2, 3):
        eventcore_home.advance(3600)
        assert len(eventcore_home.events("task_reminder")) == count


# -- my-plugin ---------------------------------------------------------------------------------------------------------

GRANTS = ["network_access", "chat_access", "api_access"]


@pytest.mark.req("G24")
def test_my_plugin_asks_its_service_and_explains_a_missing_key(quick: QuickHome, stub_endpoint: StubEndpoint) -> None:
    grants = [word for one in GRANTS for word in ("--grant", one)]
    without = quick.run("plugins", "enable", "my-plugin", *grants)
    assert without.returncode == 2
    assert "api_key" in without.stderr
    assert "eventcore plugins config my-plugin api_key" in without.stderr
    local = stub_endpoint.url.removeprefix("http://")
    quick.settings(f'[plugins.scopes.my-plugin]\nlocal = ["{local}"]\n')
    quick.run("plugins", "config", "my-plugin", "api_key", "test_key")
    quick.run("plugins", "config", "my-plugin", "endpoint", f"{stub_endpoint.url}/ask")
    assert quick.run("plugins", "enable", "my-plugin", *grants).returncode == 0
    stub_endpoint.answer("/ask", {"result": "HELLO THERE"})
    assert "HELLO THERE" in quick.run("chat", stdin="/myplugin hello there\n").stdout
    [asked] = stub_endpoint.asked
    assert (asked.json(), asked.headers["authorization"]) == ({"text": "hello there"}, "Bearer test_key")
    stub_endpoint.answer("/ask", {}, status=503)
    assert "The service failed" in quick.run("chat", stdin="/myplugin again\n").stdout


# -- meta --------------------------------------------------------------------------------------------------------------

META = ["chat_access", "api_access", "admin_access", "memory_read"]


@pytest.fixture
def meta(eventcore_home: HomeKit) -> HomeKit:
    eventcore_home.perform("plugins.enable", name="meta", grants=META)
    eventcore_home.perform("memory.write", query="weather", result={"sky": "blue"})
    return eventcore_home


def say(home: HomeKit, text: str, role: str = "user") -> dict[str, object]:
    [reply] = home.perform("chat.say", text=text, user="ada", roles=[role])["replies"]
    assert isinstance(reply, dict)
    return reply


@pytest.mark.req("G31")
def test_purge_is_for_admins(meta: HomeKit) -> None:
    refused = say(meta, "/purge")
    assert "may not use /purge" in str(refused["text"])
    assert meta.perform("memory.list")["memories"] != []
    [denied] = meta.events("permission_denied")
    assert denied["data"]["plugin"] == "meta"
    assert say(meta, "/purge", "admin")["forgotten"] == 1
    assert meta.perform("memory.list")["memories"] == []


def test_help_lists_commands_and_memory_finds(meta: HomeKit) -> None:
    command = {"name": "/myplugin", "description": "Run my plugin", "usage": "/myplugin [args]"}
    HomeFolder(meta.root).plugin("mine", "def on_command(command, args): return {}", commands=[command])
    meta.perform("plugins.rescan")
    meta.perform("plugins.enable", name="mine")
    assert "/myplugin [args]: Run my plugin" in str(say(meta, "/help")["text"])
    assert say(meta, "/memory sky")["text"] == 'weather: {"sky": "blue"}'
    assert say(meta, "/memory green")["found"] == 0


# -- the recipes of the documents that plugins came from ---------------------------------------------------------------

#: The unit tests that seed 000 prints: names, parameters and assertions are its own, the module path is ours.
UNIT_000 = """
import pytest
from unittest.mock import AsyncMock, patch
from task_scheduler.handler import run


@pytest.mark.asyncio
async def test_plugin_success():
    params = {"task_title": "Test Task", "priority": "high", "due_date": "2024-12-31T23:59:59"}
    result = await run(params)
    assert result["success"] is True
    assert "task_id" in result
    assert result["task"]["title"] == "Test Task"
    assert result["task"]["priority"] == "high"


@pytest.mark.asyncio
async def test_plugin_validation_error():
    params = {}
    result = await run(params)
    assert result["success"] is False
    assert "task_title is required" in result["error"]


@pytest.mark.asyncio
async def test_plugin_with_mocked_dependencies():
    params = {"task_title": "Test Task", "priority": "medium"}
    with patch('task_scheduler.handler._store_task') as mock_store:
        mock_store.return_value = AsyncMock()
        result = await run(params)
        assert result["success"] is True
        mock_store.assert_called_once()
"""

#: Those that seed 003 prints; the endpoint is a stub's.
UNIT_003 = """
import pytest
from my_plugin.main import MyPlugin


@pytest.fixture
def plugin(stub_endpoint):
    stub_endpoint.answer("/", {"result": "ok"})
    config = {"api_key": "test_key", "endpoint": stub_endpoint.url + "/"}
    return MyPlugin(config)


@pytest.mark.asyncio
async def test_initialize(plugin):
    success = await plugin.initialize()
    assert success is True


@pytest.mark.asyncio
async def test_execute(plugin):
    context = {"message": "Test", "user": "testuser"}
    result = await plugin.execute(context)
    assert result["success"] is True


@pytest.mark.asyncio
async def test_cleanup(plugin):
    await plugin.cleanup()
"""

#: Their integration tests: `routing` is seed 000's, `life` is seed 003's.
INTEGRATION = """
import pytest
from ai_karen_engine.plugins.router import PluginRouter
from ai_karen_engine.plugins.manager import PluginManager
from services.plugin_service import PluginService


async def routing():
    router = PluginRouter()
    manager = PluginManager(router)
    intents = router.list_intents()
    assert "schedule_task" in intents
    params = {"task_title": "Integration Test Task", "priority": "low"}
    user_ctx = {"roles": ["user"]}
    result, stdout, stderr = await manager.run_plugin("schedule_task", params, user_ctx)
    assert result["success"] is True
    assert "task_id" in result


async def life():
    service = PluginService()
    plugin_id = await service.install_plugin("test-plugin.tar.gz")
    assert plugin_id is not None
    await service.enable_plugin(plugin_id)
    info = await service.get_plugin_info(plugin_id)
    assert info["status"] == "enabled"
    result = await service.execute_plugin(plugin_id, {})
    assert result["success"] is True
    await service.disable_plugin(plugin_id)
    await service.uninstall_plugin(plugin_id)
"""


def copied(home: HomeFolder, where: str, test: str, text: str) -> None:
    """A catalogue plugin in the home, with one file of tests in place of its own."""
    target = home.root / "plugins" / where
    shutil.copytree(CATALOGUE / where, target, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    home.write(f"plugins/{where}/tests/{test}", text)


@pytest.mark.req("K2")
@pytest.mark.anyio
async def test_the_printed_recipes_pass(
    eventcore_home: HomeKit, stub_endpoint: StubEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventcore.testing import seed_imports

    home = HomeFolder(eventcore_home.root)
    copied(home, "productivity/task-scheduler", "test_task_scheduler.py", UNIT_000)
    copied(home, "examples/my-plugin", "test_plugin.py", UNIT_003)
    own_tests(home, "plugins/productivity/task-scheduler", "plugins/examples/my-plugin")

    stub_endpoint.answer("/ask", {"result": "ok"})
    key, local = 'api_key = "test_key"', stub_endpoint.url.removeprefix("http://")
    home.settings(
        f"[plugins.grants]\ntask-scheduler = {json.dumps(SCHEDULER)}\nmy-plugin = {json.dumps(GRANTS)}\n"
        f'[plugins.settings.my-plugin]\n{key}\nendpoint = "{stub_endpoint.url}/ask"\n'
        f'[plugins.scopes.my-plugin]\nlocal = ["{local}"]\n'
    )
    shutil.make_archive(str(home.root / "test-plugin"), "gztar", home.root / "plugins/examples", "my-plugin")
    shutil.rmtree(home.root / "plugins/examples")
    monkeypatch.chdir(home.root)
    space: dict[str, object] = {}
    with seed_imports():
        exec(INTEGRATION, space)
        for recipe in ("routing", "life"):
            await space[recipe]()  # type: ignore[operator]
    assert len(stub_endpoint.asked) == 1


def test_each_plugin_with_tests_passes_them(home: HomeFolder) -> None:
    names = sorted(path.parent.name for path in CATALOGUE.glob("*/*/tests"))
    assert {"meta", "my-plugin", "task-scheduler"} <= {*names}
    own_tests(home, *(name for name in names if name != "task-scheduler"))  # which G26 runs
