"""C38, C42, C43: functions, prompts and classes, through the command line and the service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eventcore import PluginService
from eventcore.plugins.logbook import Logbook
from eventcore.plugins.sandbox.worker.prompt import Prompt, PromptError
from eventcore.testing import HomeKit
from tests.acceptance.conftest import HomeFolder, QuickHome


@pytest.fixture
def home(quick: QuickHome) -> QuickHome:
    """What is asked here is what commands do, not how their process starts."""
    return quick


ANSWER = "run(params):\n    return {'context': params['user_context'], 'metadata': params['metadata']}\n"

TEMPLATE = """You plan tasks.
- Title: {{ task_title }}
{% if task_description -%}
- About: {{ task_description }}
{% endif -%}
{% if due_date -%}
- Due: {{ due_date }}
{% endif -%}
- Priority: {{ priority | default('medium') }}
{% if tags -%}
- Tags: {{ tags | join(', ') }}
{% endif -%}
End.
"""

CLASS = """
import logging
from typing import Any, Dict

logger = logging.getLogger(__name__)


class MyPlugin:
    def __init__(self, config: Dict[str, Any]):
        self.config = config
        self.api_key = config.get("api_key")
        self.endpoint = config.get("endpoint")

    async def initialize(self) -> bool:
        logger.info("ready")
        return True

    async def execute(self, context: Dict[str, Any]) -> Dict[str, Any]:
        try:
            result = await self.process(context.get("message", ""))
            return {"success": True, "result": result, "message": "done"}
        except Exception as e:
            return {"success": False, "error": str(e)}

    async def process(self, message: str) -> str:
        if not message:
            raise ValueError("an empty message")
        return f"{self.endpoint} says {message.upper()} to {self.api_key}"

    async def cleanup(self) -> None:
        logger.info("gone")

    def health_check(self) -> Dict[str, Any]:
        return {"status": "healthy", "version": "1.0.0", "uptime": self.get_uptime()}

    def get_uptime(self) -> float:
        return 0.0
"""

MANIFEST = """
name: my-plugin
version: 1.0.0
main: main.py
class: MyPlugin
config_schema:
  api_key: {type: string, required: true}
  endpoint: {type: string, default: "https://api.example.com"}
"""


@pytest.mark.req("C42")
def test_run_may_be_async_or_plain_and_return_any_json(home: HomeFolder) -> None:
    home.plugin("plain", f"def {ANSWER}", intent="plain_answer")
    home.plugin("later", f"async def {ANSWER}", intent="later_answer")
    home.plugin("texter", "def handle(params):\n    return 'just text'", entry_point="handle")
    home.plugin("wrong", "def run(params):\n    return {'when': object()}")
    home.settings('[plugins]\nenabled = ["plain", "later", "texter", "wrong"]')
    for intent in ("plain_answer", "later_answer"):
        result = home.json("run", intent, "--params", "{}", "--user", "ada", "--role", "user")["result"]
        assert result["context"]["roles"] == ["user"]
        assert result["context"]["user_id"] == "user:ada"
        assert result["metadata"]["call_id"]
    assert home.run("run", "texter", "--params", "{}").stdout == "just text\n"
    failed = home.run("run", "wrong", "--params", "{}", "--json")
    assert failed.returncode == 1
    assert "not JSON" in json.loads(failed.stderr)["error"]["message"]
    (recorded,) = home.json("events", "list", "--type", "plugin_error")
    assert recorded["data"]["type"] == "ResultNotJSON"
    assert "when is a object" in recorded["data"]["message"]


@pytest.mark.req("C38")
def test_a_prompt_is_rendered_from_the_parameters(home: HomeFolder) -> None:
    home.settings('[plugins]\nenabled = ["planner", "speller"]')
    home.plugin("planner", "def run(params):\n    return params['prompt']")
    home.write("plugins/planner/prompt.txt", TEMPLATE)
    alone = home.json("run", "planner", "--params", '{"task_title": "Tea"}')["result"]
    assert alone == "You plan tasks.\n- Title: Tea\n- Priority: medium\nEnd.\n"
    full = {"task_title": "Tea", "priority": "high", "tags": ["a", "b"], "due_date": "soon", "prompt": "mine"}
    rendered = home.json("run", "planner", "--params", json.dumps(full))["result"]
    assert "- Priority: high\n- Tags: a, b\n" in rendered
    home.plugin("speller", "def run(params):\n    return params['prompt']")
    home.write("plugins/speller/prompt.txt", "{{ titel }}")
    failed = home.run("run", "speller", "--params", '{"title": "Tea"}')
    assert failed.returncode == 1
    assert "'titel' is undefined" in failed.stderr


def test_a_prompt_of_the_callers_own_is_the_templates_variable(eventcore_home: HomeKit) -> None:
    folder = HomeFolder(eventcore_home.root)
    folder.plugin("echo", "def run(params):\n    return params['prompt']")
    folder.plugin("wrapped", "def run(params):\n    return params['prompt']")
    folder.write("plugins/wrapped/prompt.txt", "<{{ prompt }}>")
    assert eventcore_home.call("echo", {"prompt": "as given"}) == "as given"
    # What a caller gives is never a template itself.
    assert eventcore_home.call("wrapped", {"prompt": "{{ 7*7 }}"}) == "<{{ 7*7 }}>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("one\n{% if %}", "prompt.txt:2"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for x in absent %}{% endfor %}", "'absent' is undefined"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_wrong_template_is_an_error_that_says_what(tmp_path: Path, template: str, message: str) -> None:
    (tmp_path / "prompt.txt").write_text(template)
    with pytest.raises(PromptError, match=message):
        Prompt(tmp_path / "prompt.txt").filled({"known": 1})


@pytest.mark.anyio
@pytest.mark.req("C43")
async def test_a_class_runs_as_it_is_written(eventcore_home: HomeKit) -> None:
    folder = HomeFolder(eventcore_home.root)
    folder.settings('[plugins.settings.my-plugin]\napi_key = "k"\n')
    folder.write("plugins/my-plugin/plugin.yaml", MANIFEST)
    folder.write("plugins/my-plugin/main.py", CLASS)
    plain = CLASS.replace("async def", "def").replace("await ", "")
    folder.write("plugins/plain-one/plugin.yaml", MANIFEST.replace("my-plugin", "plain-one"))
    folder.write("plugins/plain-one/main.py", plain)
    folder.settings('[plugins.settings]\nmy-plugin = {api_key = "k"}\nplain-one = {api_key = "k"}\n')
    service = PluginService()
    for plugin in ("my-plugin", "plain-one"):
        await service.enable_plugin(plugin)
        result = await service.execute_plugin(plugin, {"message": "hello", "user": "john_doe"})
        assert result["success"] is True
        assert result["result"]["result"] == "https://api.example.com says HELLO to k"
        failed = await service.execute_plugin(plugin, {})
        assert (failed["success"], failed["error"]) == (False, "an empty message")
        (report,) = eventcore_home.perform("plugins.health", name=plugin)
        assert (report["status"], report["details"]) == ("healthy", {"version": "1.0.0", "uptime": 0.0})
        await service.disable_plugin(plugin)
        logged = [line.message for line in Logbook(eventcore_home / ".eventcore/logs").newest(plugin)]
        assert logged == ["ready", "gone"]
