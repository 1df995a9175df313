"""E1-E6, E8, E9, E11, E13: the plugin classes, used as their rows say, on the current home."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eventcore import MemoryManager, PluginDebugger, PluginManager, PluginRouter, PluginService
from eventcore.app.plugin_api import hosting
from eventcore.kernel.errors import AccessDenied, HomeError, PluginFailed, UnknownIntent
from eventcore.testing import HomeKit, seed_imports
from tests.acceptance.conftest import HomeFolder

pytestmark = pytest.mark.anyio

SCHEDULE = """
import logging

logger = logging.getLogger(__name__)


async def run(params):
    print("scheduling", params["task_title"])
    if params["task_title"] == "broken":
        raise ValueError("no such day")
    if not params["task_title"]:
        return {"success": False, "error": "task_title is required"}
    return {"success": True, "task_id": "task_1", "by": params["user_context"]["user_id"]}
"""


@pytest.fixture
def plugins(eventcore_home: HomeKit) -> HomeFolder:
    """The current home, with a plugin that schedules tasks for users and admins."""
    folder = HomeFolder(eventcore_home.root)
    folder.plugin("task-planner", SCHEDULE, intent="schedule_task", required_roles=["user", "admin"])
    return folder


@pytest.mark.req("E1")
async def test_a_ten_line_script_runs_a_plugin_of_the_current_home(plugins: HomeFolder) -> None:
    script = plugins.write(
        "script.py",
        "import asyncio\n"
        "from eventcore import MemoryManager, PluginDebugger, PluginManager, PluginManifest\n"
        "from eventcore import PluginPermission, PluginRecord, PluginRouter, PluginService\n\n"
        "async def main():\n"
        "    manager = PluginManager()\n"
        "    user = {'user_id': 'ada', 'roles': ['user']}\n"
        "    print(await manager.run_plugin('schedule_task', {'task_title': 'tea'}, user))\n\n"
        "asyncio.run(main())\n",
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=plugins.root / "plugins", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = {"success": True, "task_id": "task_1", "by": "user:ada"}
    assert done.stdout.strip() == str((result, "scheduling tea\n", ""))


@pytest.mark.req("E2")
async def test_a_folder_added_later_appears_after_reload(plugins: HomeFolder) -> None:
    router = PluginRouter()
    assert router.list_intents() == ["schedule_task"]
    plugins.plugin("later", "def run(params): return 1", intent="come_later")
    assert "come_later" not in router.list_intents()
    assert router.reload() is None
    assert router.list_intents() == ["come_later", "schedule_task"]
    assert await router.dispatch("come_later", {}) == 1


async def test_reload_takes_changes_up_and_lets_what_is_gone_go(plugins: HomeFolder) -> None:
    router = PluginRouter()
    code = plugins.plugin("changing", "def run(params): return 'old'", intent="change")
    gone = plugins.plugin("going", "def run(params): return 1", intent="go")
    router.reload()
    assert await router.dispatch("change", {}) == "old"
    assert await router.dispatch("go", {}) == 1
    code.write_text("def run(params): return 'new'")
    for file in gone.parent.iterdir():
        file.unlink()
    router.reload()
    assert await router.dispatch("change", {}) == "new"
    assert router.get_plugin("going") is None
    with pytest.raises(UnknownIntent):
        await router.dispatch("go", {})
    code.write_text("def run(params: return 'broken'")
    router.reload()
    record = router.get_plugin("changing")
    assert record is not None
    assert record.state == "failed"


@pytest.mark.req("E3")
async def test_a_plugin_is_found_by_intent_and_by_name(eventcore_home: HomeKit) -> None:
    eventcore_home.perform("plugins.enable", name="time-query")
    router = PluginRouter()
    found = router.get_plugin("time-query")
    assert found is not None
    assert router.get_plugin("time_query") is found
    assert router.get_plugin("no_such_thing") is None
    assert router.get_handler("no_such_thing") is None
    handler = router.get_handler("time_query")
    assert handler is not None
    assert (await handler({}))["success"] is True


@pytest.mark.req("E4")
async def test_dispatch_returns_the_result_and_tells_errors_apart(plugins: HomeFolder) -> None:
    router = PluginRouter()
    result = await router.dispatch("schedule_task", {"task_title": "tea"}, ["user"])
    assert result == {"success": True, "task_id": "task_1", "by": "user:anonymous"}
    with pytest.raises(UnknownIntent, match="schedule_tsk"):
        await router.dispatch("schedule_tsk", {}, ["user"])
    for roles in (None, [], ["guest"]):
        with pytest.raises(AccessDenied, match="user, admin"):
            await router.dispatch("schedule_task", {}, roles)
    with pytest.raises(PluginFailed, match="no such day"):
        await router.dispatch("schedule_task", {"task_title": "broken"}, ["admin"])


@pytest.mark.req("E5")
async def test_run_plugin_returns_what_was_printed(eventcore_home: HomeKit, plugins: HomeFolder) -> None:
    eventcore_home.perform("plugins.enable", name="time-query")
    manager = PluginManager()
    caller = {"user_id": "123", "roles": ["user"]}
    result, stdout, stderr = await manager.run_plugin("time-query", {"format": "iso"}, caller)
    assert (result["format"], stdout, stderr) == ("iso", "", "")
    _, stdout, _ = await manager.run_plugin("schedule_task", {"task_title": "tea"}, caller)
    assert stdout == "scheduling tea\n"


@pytest.mark.req("E6")
async def test_a_record_has_manifest_handler_and_folder(plugins: HomeFolder) -> None:
    plugin = PluginRouter().get_plugin("schedule_task")
    assert plugin is not None
    assert plugin.manifest["intent"] == "schedule_task"
    assert plugin.manifest["required_roles"] == ["user", "admin"]
    assert plugin.manifest["entry_point"] == "run"  # left out by its author
    assert plugin.dir_path == plugins.root / "plugins" / "task-planner"
    assert (plugin.module_name, plugin.ui) == ("handler", None)
    plugins.plugin("nosy", "import os\ndef run(params): return os.listdir('/proc')", intent="nose")
    router = PluginRouter()
    router.reload()
    handler = router.get_handler("nose")
    assert handler is not None
    with pytest.raises(PluginFailed):  # the sandbox has no /proc
        await handler({})


@pytest.mark.req("E8")
async def test_execute_plugin_says_success_result_error_and_time(plugins: HomeFolder) -> None:
    plugins.plugin("parrot", "def run(params): return params['message'].upper()")
    service = PluginService()
    await service.enable_plugin("parrot")
    result = await service.execute_plugin(
        plugin_id="parrot", context={"message": "Hello plugin!", "user": "john_doe", "channel": "#general"}
    )
    assert result["success"] is True
    assert result["result"] == "HELLO PLUGIN!"
    assert 0 < result["execution_time"] < 60
    failed = await service.execute_plugin("task-planner", {"task_title": ""})
    assert (failed["success"], failed["error"]) == (False, "task_title is required")
    raised = await service.execute_plugin("task-planner", {"task_title": "broken"})
    assert (raised["success"], raised["error"]) == (False, "no such day")
    assert "result" not in raised


@pytest.mark.req("E9")
async def test_memories_are_found_by_their_tenant_alone(plugins: HomeFolder) -> None:
    memory, user_ctx = MemoryManager(tenant_id="tenant123"), {"user_id": "123"}
    memory.write(user_ctx, "weather query", {"location": "NYC"})
    memory.write(user_ctx, "another thing", {"location": "NYC"})
    found = memory.read(user_ctx, "weather", limit=5)
    assert [(one["query"], one["result"]) for one in found] == [("weather query", {"location": "NYC"})]
    assert len(memory.read(user_ctx, "nyc")) == 2
    assert MemoryManager(tenant_id="other").read(user_ctx, "weather") == []


async def test_plugins_see_the_memories_that_programs_wrote(eventcore_home: HomeKit, plugins: HomeFolder) -> None:
    code = "from eventcore.sdk import ctx\nasync def run(params): return await ctx.memory.read('weather')"
    plugins.plugin("recall", code, permissions={"data_access": ["read"]})
    MemoryManager("default").write({}, "weather", {"sky": "blue"})
    eventcore_home.perform("plugins.rescan")
    eventcore_home.perform("plugins.enable", name="recall", grants=["memory_read"])
    assert eventcore_home.call("recall")[0]["result"] == {"sky": "blue"}


@pytest.mark.req("E11")
async def test_the_debugger_reports_locals_lines_and_keeps_the_limits(plugins: HomeFolder) -> None:
    code = (
        "async def run(params):\n"
        "    total = 0\n"
        "    for number in range(3):\n"
        "        total += number\n"
        "        # nothing here\n"
        "    if params.get('spin'):\n"
        "        while True: pass\n"
        "    return {'total': total}\n"
    )
    plugins.plugin("adder", code)
    plugins.plugin("spinner", code, resources={"timeout_seconds": 1})
    debugger = PluginDebugger()
    report = await debugger.debug_plugin("adder", params={"a": 1}, breakpoints=["handler.py:4"], trace=True)
    assert report.result == {"total": 3}
    assert [(hit.locals["number"], hit.locals["total"]) for hit in report.breakpoints] == [
        ("0", "0"),
        ("1", "0"),
        ("2", "1"),
    ]
    assert [line.line for line in report.trace] == [2, 3, 4, 3, 4, 3, 4, 3, 6, 8]
    moved = await debugger.debug_plugin("adder", {}, breakpoints=["handler.py:5"])
    assert [(hit.breakpoint, hit.line) for hit in moved.breakpoints] == [("handler.py:5", 6)]
    assert moved.trace == []
    with pytest.raises(PluginFailed, match="within 1 s"):
        await debugger.debug_plugin("spinner", {"spin": True}, trace=True)
    with pytest.raises(PluginFailed, match=r"no file 'other\.py'"):
        await debugger.debug_plugin("adder", {}, breakpoints=["other.py:1"])


async def test_the_debugger_drops_what_a_call_would_have_committed(
    eventcore_home: HomeKit, plugins: HomeFolder
) -> None:
    code = (
        "from eventcore.sdk import ctx\n"
        "def run(params):\n"
        "    ctx.emit('counter.counted', {'n': 1})\n"
        "    ctx.memory.write('n', 1)\n"
        "    raise KeyError('later')\n"
    )
    plugins.plugin("counter", code, permissions=["plugin_communication", "memory_write"])
    router = PluginRouter()
    router.reload()
    eventcore_home.perform("plugins.enable", name="counter", grants=["plugin_communication", "memory_write"])
    report = await PluginDebugger(router).debug_plugin("counter")
    assert report.error is not None
    assert (report.error["kind"], report.result) == ("KeyError", None)
    assert report.effects == {"events": 1, "memories": 1, "runs": 0}
    assert [(check.permission, check.granted) for check in report.checks] == [
        ("plugin_communication", True),
        ("memory_write", True),
    ]
    assert eventcore_home.events("counter.*") == []


INTEGRATION = """
import pytest
from ai_karen_engine.plugins.router import PluginRouter
from ai_karen_engine.plugins.manager import PluginManager

async def check():
    router = PluginRouter()
    manager = PluginManager(router)
    assert "schedule_task" in router.list_intents()
    user_ctx = {"roles": ["user"]}
    result, stdout, stderr = await manager.run_plugin("schedule_task", {"task_title": "From old code"}, user_ctx)
    assert result["success"] is True
    assert "task_id" in result
"""


@pytest.mark.req("E13")
async def test_old_import_paths_work_while_asked_for(plugins: HomeFolder) -> None:
    space: dict[str, object] = {}
    with seed_imports():
        exec(INTEGRATION, space)
        await space["check"]()  # type: ignore[operator]
        import ai_karen_engine.plugins.debug
        import services.plugin_service
        import src.extensions.plugins

        assert ai_karen_engine.plugins.debug.PluginDebugger is PluginDebugger
        assert services.plugin_service.PluginService is PluginService
        assert src.extensions.plugins.MemoryManager is MemoryManager
    for name in ("ai_karen_engine.plugins.router", "src.extensions.plugins", "services.plugin_service"):
        assert name not in sys.modules
        with pytest.raises(ImportError):
            importlib.import_module(name)


# -- what lies around them ---------------------------------------------------------------------------------------------


async def test_without_a_home_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVENTCORE_HOME", raising=False)
    with pytest.raises(HomeError, match="eventcore init"):
        PluginRouter()


async def test_a_bare_folder_of_plugins_needs_no_home(tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    HomeFolder(tmp_path).write("somewhere/shout/handler.py", "def run(params): return params['text'].upper()")
    manifest = {"name": "shout", "version": "1.0.0", "module": "handler"}
    (folder / "shout" / "plugin_manifest.json").write_text(json.dumps(manifest))
    router = PluginRouter(folder)
    try:
        assert "shout" in router.list_intents()
        assert await router.dispatch("shout", {"text": "hey"}) == "HEY"
        assert (await router.dispatch("hello_world", {}, ["user"]))["message"]  # the catalogue is beside it
    finally:
        hosting.close(router.link.place)


async def test_a_running_engine_of_another_process_is_used(plugins: HomeFolder) -> None:
    owner = (
        "import anyio, sys\nfrom eventcore import EventCore\n"
        "async def main():\n"
        "    async with EventCore(sys.argv[1]):\n"
        "        print('ready', flush=True)\n"
        "        await anyio.to_thread.run_sync(sys.stdin.read)\n"
        "anyio.run(main)\n"
    )
    command = [sys.executable, "-c", owner, str(plugins.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        router = PluginRouter()
        assert (await router.dispatch("schedule_task", {"task_title": "tea"}, ["user"]))["success"] is True
        with pytest.raises(AccessDenied):
            await router.dispatch("schedule_task", {}, [])
        process.communicate("", timeout=90)
    # Its engine is gone: the next call opens the home here.
    assert (await router.dispatch("schedule_task", {"task_title": "tea"}, ["user"]))["success"] is True
