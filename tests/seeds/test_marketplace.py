"""The first seed: a marketplace of plugins with router, manager, prompts and a debugger.

Each test is one of its examples, with its names, signatures and shapes; text and data are ours.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from eventcore import PluginDebugger, PluginManager, PluginRecord, PluginRouter
from eventcore.kernel.errors import UnknownIntent
from eventcore.plugins.manifest import parse_manifest, read_manifest
from eventcore.testing import HomeKit, seed_imports
from tests.acceptance.conftest import HomeFolder

pytestmark = pytest.mark.anyio

MANIFEST: dict[str, Any] = {
    "plugin_api_version": "1.0",
    "intent": "schedule_task",
    "enable_external_workflow": True,
    "workflow_slug": "task_scheduling_workflow",
    "required_roles": ["user", "admin"],
    "trusted_ui": False,
    "sandbox": True,
    "module": "ai_karen_engine.plugins.task_scheduler.handler",
    "description": "Plans and keeps tasks",
    "author": "Somebody",
    "version": "1.0.0",
    "category": "productivity",
    "tags": ["scheduling", "tasks"],
    "dependencies": {
        "system_services": ["postgres", "redis"],
        "external_apis": [],
        "python_packages": ["croniter", "pytz"],
    },
    "permissions": {"data_access": ["read", "write"], "system_access": ["scheduler"], "network_access": []},
    "resource_limits": {"max_memory_mb": 128, "max_cpu_percent": 10, "max_execution_time_seconds": 30},
    "monitoring": {"enable_metrics": True, "enable_logging": True, "log_level": "INFO"},
}

HANDLER = '''
"""Plans tasks."""

import asyncio
import logging
from datetime import datetime
from typing import Any, Dict, List, Optional

logger = logging.getLogger(__name__)


async def run(params: Dict[str, Any]) -> Dict[str, Any]:
    try:
        title = params.get("task_title", "").strip()
        if not title:
            return {"success": False, "error": "task_title is required", "message": "Please give a title"}
        import uuid

        task_id = f"task_{uuid.uuid4().hex[:8]}"
        priority = params.get("priority", "medium").lower()
        record = {"id": task_id, "title": title, "priority": priority, "category": await _categorize_task(title)}
        await _store_task(record)
        logger.info(f"filed {task_id}")
        return {"success": True, "task_id": task_id, "task": record, "message": params["prompt"]}
    except Exception as e:
        logger.error(f"failed: {str(e)}", exc_info=True)
        return {"success": False, "error": "scheduling_failed", "message": str(e)}


async def _categorize_task(title: str) -> str:
    return "communication" if "call" in title.lower() else "general"


async def _store_task(task_record: Dict[str, Any]) -> None:
    logger.info(f"Storing task: {task_record['id']}")


__plugin_info__ = {
    "name": "task_scheduler",
    "version": "1.0.0",
    "description": "Plans and keeps tasks",
    "author": "Somebody",
    "capabilities": ["task_creation", "priority_management"],
}
'''

PROMPT = """You help to plan tasks.

- Title: {{ task_title }}
{% if due_date -%}
- Due: {{ due_date }}
{% endif -%}
- Priority: {{ priority | default('medium') }}
"""

LOGGING = """
import logging
from typing import Any, Dict

logger = logging.getLogger(__name__)

async def run(params: Dict[str, Any]) -> Any:
    logger.info(f"called with {params['text']}")
    try:
        result = await process_request(params)
        logger.info(f"answers {result}")
        return result
    except Exception as e:
        logger.error(f"failed: {e}", exc_info=True)
        raise

async def process_request(params):
    return {"length": len(params["text"]), "half": 10 // len(params["text"])}
"""


@pytest.fixture
def market(eventcore_home: HomeKit) -> HomeKit:
    """A home with the marketplace's example plugin, as it is unpacked."""
    folder = HomeFolder(eventcore_home.root)
    folder.settings('[plugins.grants]\ntask-scheduler = ["memory_read", "memory_write", "scheduler"]\n')
    where = "plugins/productivity/task-scheduler"
    manifest = {**MANIFEST, "enable_external_workflow": False}
    del manifest["workflow_slug"]
    folder.write(f"{where}/plugin_manifest.json", json.dumps(manifest, indent=2))
    folder.write(f"{where}/handler.py", HANDLER)
    folder.write(f"{where}/prompt.txt", PROMPT)
    folder.write(f"{where}/README.md", "# Task scheduler")
    folder.write(f"{where}/ui.py", "def render(): raise AssertionError('only a page would call this')")
    folder.write(f"{where}/tests/test_task_scheduler.py", "")
    return eventcore_home


def test_the_manifest_is_read_whole(tmp_path: Path) -> None:
    file = HomeFolder(tmp_path).write("productivity/task-scheduler/plugin_manifest.json", json.dumps(MANIFEST))
    manifest = read_manifest(file, category="productivity")
    assert manifest.extra == {}
    assert (manifest.slug, manifest.intents, manifest.entry_file) == (
        "task-scheduler",
        ("schedule_task",),
        "handler.py",
    )
    assert (manifest.enable_external_workflow, manifest.workflow_slug) == (True, "task_scheduling_workflow")
    assert manifest.system_services == ("postgres", "redis")
    assert manifest.python_packages == ("croniter", "pytz")
    assert sorted(map(str, manifest.permissions)) == ["memory_read", "memory_write", "scheduler"]
    assert (manifest.limits.memory_mb, manifest.limits.cpu_percent, manifest.limits.timeout_seconds) == (128, 10, 30)
    assert manifest.monitoring.log_level == "INFO"


def test_permissions_in_the_object_form() -> None:
    permissions = {
        "data_access": ["read", "write"],
        "system_access": ["files", "network"],
        "external_apis": ["openai", "github"],
        "database_access": ["postgres", "redis"],
    }
    text = json.dumps({**MANIFEST, "permissions": permissions})
    manifest = parse_manifest(text, "plugins/x/plugin_manifest.json", "json", "plugins/x")
    assert {str(one) for one in manifest.permissions} == {
        *("memory_read", "memory_write", "filesystem_read", "filesystem_write"),
        *("network_access", "database_read", "database_write"),
    }
    assert (manifest.external_apis, manifest.databases) == (("openai", "github"), ("postgres", "redis"))


def test_the_marketplace_block_is_kept() -> None:
    block = {
        "name": "Task planner",
        "description": "Plans tasks",
        "price": "free",
        "license": "MIT",
        "support_url": "https://example.com/support",
        "documentation_url": "https://example.com/docs",
        "screenshots": ["board.png"],
        "categories": ["productivity"],
        "keywords": ["tasks"],
        "compatibility": {"min_karen_version": "0.4.0", "max_karen_version": "1.0.0"},
        "installation": {
            "dependencies": ["croniter>=1.0.0"],
            "system_requirements": ["python>=3.8"],
            "setup_instructions": "Read the README",
        },
    }
    text = json.dumps({**MANIFEST, "marketplace": block})
    manifest = parse_manifest(text, "plugins/x/plugin_manifest.json", "json", "plugins/x")
    assert manifest.marketplace["price"] == "free"
    assert manifest.license == "MIT"
    assert (manifest.support_url, manifest.keywords) == ("https://example.com/support", ("tasks",))


async def test_the_handler_answers_with_its_prompt(market: HomeKit) -> None:
    result = await PluginRouter().dispatch("schedule_task", {"task_title": "Call Grace"}, ["user"])
    assert (result["success"], result["task"]["category"]) == (True, "communication")
    assert "- Title: Call Grace\n- Priority: medium\n" in result["message"]
    assert market.perform("plugins.info", name="task-scheduler")["registered"]["info"]["capabilities"] == [
        "task_creation",
        "priority_management",
    ]


async def test_logging_in_a_handler(eventcore_home: HomeKit) -> None:
    HomeFolder(eventcore_home.root).plugin("logs-much", LOGGING)
    assert eventcore_home.call("logs-much", {"text": "ab"}) == {"length": 2, "half": 5}
    with pytest.raises(Exception, match="division"):
        eventcore_home.call("logs-much", {"text": ""})
    logbook = (eventcore_home / ".eventcore/logs/logs-much.ndjson").read_text().splitlines()
    assert [json.loads(line)["level"] for line in logbook] == ["info", "info", "info", "error"]
    assert "ZeroDivisionError" in json.loads(logbook[-1])["message"]


INTEGRATION = """
from ai_karen_engine.plugins.router import PluginRouter
from ai_karen_engine.plugins.manager import PluginManager


async def test_plugin_integration():
    router = PluginRouter()
    manager = PluginManager(router)
    intents = router.list_intents()
    assert "schedule_task" in intents
    params = {"task_title": "A task of the integration test", "priority": "low"}
    user_ctx = {"roles": ["user"]}
    result, stdout, stderr = await manager.run_plugin("schedule_task", params, user_ctx)
    assert result["success"] is True
    assert "task_id" in result
"""


async def test_the_integration_test_with_its_own_imports(market: HomeKit) -> None:
    space: dict[str, Any] = {}
    with seed_imports():
        exec(INTEGRATION, space)
        await space["test_plugin_integration"]()


async def test_a_hundred_calls_at_once(market: HomeKit) -> None:
    router = PluginRouter()

    async def execute_plugin() -> Any:
        return await router.dispatch("schedule_task", {"task_title": f"Load {time.time()}"}, ["user"])

    results = await asyncio.gather(*[execute_plugin() for _ in range(100)], return_exceptions=True)
    assert sum(1 for result in results if not isinstance(result, Exception)) == 100


async def test_looking_at_plugins_while_debugging(market: HomeKit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "eventcore.plugins")
    router = PluginRouter()
    assert router.list_intents() == ["schedule_task"]
    plugin = router.get_plugin("schedule_task")
    assert plugin
    assert plugin.manifest["intent"] == "schedule_task"
    assert inspect.iscoroutinefunction(plugin.handler)
    assert plugin.dir_path == market.root / "plugins/productivity/task-scheduler"
    assert router.get_plugin("my_intent") is None
    with pytest.raises(UnknownIntent, match="my_intent"):
        await router.dispatch("my_intent", {"test": "params"}, ["user"])


async def test_the_debugger(market: HomeKit) -> None:
    debugger = PluginDebugger()
    line = HANDLER.splitlines().index("        await _store_task(record)") + 1
    result = await debugger.debug_plugin(
        "schedule_task", params={"task_title": "value"}, breakpoints=[f"handler.py:{line}"], trace=True
    )
    assert result.result["success"] is True
    assert result.breakpoints[0].locals["priority"] == "'medium'"
    assert result.trace


def test_the_apis_have_the_signatures_of_the_reference() -> None:
    def names(function: Any) -> list[str]:
        return [name for name in inspect.signature(function).parameters if name != "self"]

    assert names(PluginRouter.__init__) == ["plugin_root"]
    assert names(PluginRouter.reload) == names(PluginRouter.list_intents) == []
    assert names(PluginRouter.get_plugin) == names(PluginRouter.get_handler) == ["intent"]
    assert names(PluginRouter.dispatch) == ["intent", "params", "roles"]
    assert inspect.signature(PluginRouter.dispatch).parameters["roles"].default is None
    assert names(PluginManager.__init__) == ["router"]
    assert names(PluginManager.run_plugin) == ["name", "params", "user_ctx"]
    assert inspect.iscoroutinefunction(PluginRouter.dispatch)
    assert inspect.iscoroutinefunction(PluginManager.run_plugin)
    assert {"manifest", "handler", "module_name", "ui", "dir_path"} <= set(PluginRecord.__dataclass_fields__)


#: What its manifest needs and EventCore does not; without them it runs all the same, and `health` says what is lacking.
SERVICES = "[services.postgres]\nurl = 'postgresql://localhost/x'\n[services.redis]\nurl = 'redis://localhost'\n"

COMMANDS = {
    "list": [],
    "info": ["schedule_task"],
    "test": ["schedule_task", "--params", '{"task_title": "Test"}'],
    "validate": ["plugins/productivity/task-scheduler"],
    "health": ["schedule_task"],
    "metrics": [],
    "debug": ["schedule_task", "--params", '{"task_title": "Debug"}', "--verbose"],
}


def test_the_commands(market: HomeKit) -> None:
    home = HomeFolder(market.root)
    market.close()
    home.settings((home.root / "eventcore.toml").read_text() + '\n[plugins]\nenabled = ["task-scheduler"]\n' + SERVICES)
    done = {command: home.run("plugins", command, *words) for command, words in COMMANDS.items()}
    assert {command: one.stderr for command, one in done.items() if one.returncode != 0} == {}
    assert "task-scheduler" in done["list"].stdout
    assert "task-scheduler" in done["metrics"].stdout  # it was called by `test`
    strict = home.run("plugins", "validate", "plugins/productivity/task-scheduler", "--strict")
    assert (strict.returncode, "license: is not stated" in strict.stdout) == (1, True)
    later = home.run("plugins", "reload")
    assert (later.returncode, "there is no command" in later.stderr.lower()) == (2, True)


#: The marketplace's own tree, folders within folders among them.
TREE = (
    *("examples/hello-world", "core/time-query", "core/tui-fallback", "automation/git-merge-safe"),
    *("ai/fine-tune-lnm", "ai/hf-llm", "ai/llm-services/deepseek", "ai/llm-services/openai"),
    *("integrations/desktop-agent", "integrations/k8s-scale", "integrations/llm-manager", "__meta/__meta"),
)


def test_the_tree_is_discovered(eventcore_home: HomeKit) -> None:
    home = HomeFolder(eventcore_home.root)
    for number, place in enumerate(TREE):
        manifest = {**MANIFEST, "intent": f"intent_{number}"}
        del manifest["category"]
        home.write(f"plugins/{place}/plugin_manifest.json", json.dumps(manifest))
        home.write(f"plugins/{place}/handler.py", "raise SystemExit('nothing of it is imported')")
    rows = {row["slug"]: row for row in eventcore_home.perform("plugins.list") if row["origin"] == "home"}
    assert {row["state"] for row in rows.values()} == {"discovered"}
    assert rows["openai"]["category"] == "llm-services"
    assert rows["k8s-scale"]["category"] == "integrations"
    assert len(rows) == len(TREE)
