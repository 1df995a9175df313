"""The fourth seed: chat plugins with a class, hooks and commands. Each test is one of its examples; data are ours."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from eventcore import EventCore, PluginPermission, PluginService
from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.manifest import parse_manifest
from eventcore.testing import HomeKit
from tests.acceptance.conftest import HomeFolder

pytestmark = pytest.mark.anyio

MANIFEST = """
name: my-plugin
version: 1.0.0
description: An example
author: Somebody
email: somebody@example.com
license: MIT

type: extension

main: main.py
class: MyPlugin

dependencies:
  - requests>=2.31.0
  - beautifulsoup4>=4.12.0

permissions:
  - network_access
  - chat_access
  - api_access

optional_permissions:
  - filesystem_read
  - database_read

resources:
  memory_mb: 512
  cpu_shares: 1024
  timeout_seconds: 30

config_schema:
  api_key:
    type: string
    required: true
    description: The service's key
  endpoint:
    type: string
    default: https://api.example.com
    description: The service's address

hooks:
  - on_message
  - on_file_upload
  - on_command

commands:
  - name: /myplugin
    description: Run my plugin
    usage: /myplugin [args]
"""

CODE = """
from typing import Any, Dict, Optional


class MyPlugin:
    def __init__(self, config: Dict[str, Any]):
        required = ["api_key", "endpoint"]
        missing = [f for f in required if f not in config]
        if missing:
            raise ValueError(f"Missing required config: {missing}")
        self.config = config
        self.cache = {}

    async def initialize(self) -> bool:
        return True

    async def execute(self, context: Dict[str, Any]) -> Dict[str, Any]:
        try:
            result = await self.process(context)
            return {"success": True, "result": result}
        except KeyError as e:
            return {"success": False, "error": f"{e} is missing"}
        except Exception:
            return {"success": False, "error": "Plugin error"}

    async def process(self, context):
        return f"{context['user']} in {context['channel']}: {context['message']}"

    async def cleanup(self) -> None:
        self.cache.clear()

    def health_check(self) -> Dict[str, Any]:
        return {"status": "healthy", "version": "1.0.0"}


async def on_message(message: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    if message.get("text", "").startswith("/myplugin"):
        return {"text": "asked in a message", "type": "plugin_response"}
    return None


async def on_file_upload(file_info: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    return {"seen": file_info["name"]}


async def on_command(command: str, args: list) -> Dict[str, Any]:
    if command == "/myplugin":
        return {"result": "Command executed", "args": args}
    return {"error": "Unknown command"}
"""

GRANTS = ["network_access", "chat_access", "api_access"]


def parse(text: str) -> Any:
    return parse_manifest(text, "plugins/my-plugin/plugin.yaml", "yaml", "plugins/my-plugin")


@pytest.fixture
def chat(eventcore_home: HomeKit) -> HomeKit:
    folder = HomeFolder(eventcore_home.root)
    # What it needs from a package index is another test's; none of it is imported here.
    manifest = MANIFEST.replace("  - requests>=2.31.0\n  - beautifulsoup4>=4.12.0\n", "  []\n")
    folder.write("plugins/my-plugin/plugin.yaml", manifest)
    folder.write("plugins/my-plugin/main.py", CODE)
    folder.write("plugins/my-plugin/README.md", "# My plugin")
    grants = ", ".join(f'"{one}"' for one in GRANTS)
    folder.settings(f'[plugins.grants]\nmy-plugin = [{grants}]\n[plugins.settings.my-plugin]\napi_key = "test_key"\n')
    return eventcore_home


def test_the_manifest() -> None:
    manifest = parse(MANIFEST)
    assert manifest.extra == {}
    assert (manifest.dialect, manifest.plugin_type, manifest.class_name) == ("Y", "extension", "MyPlugin")
    assert (manifest.entry_file, manifest.email) == ("main.py", "somebody@example.com")
    assert manifest.python_packages == ("requests>=2.31.0", "beautifulsoup4>=4.12.0")
    assert {str(one) for one in manifest.permissions} == {*GRANTS}
    assert {str(one) for one in manifest.optional_permissions} == {"filesystem_read", "database_read"}
    assert (manifest.limits.memory_mb, manifest.limits.cpu_shares, manifest.limits.timeout_seconds) == (512, 1024, 30)
    assert manifest.hooks == ("on_message", "on_file_upload", "on_command")
    (command,) = manifest.commands
    assert (command.name, command.usage) == ("/myplugin", "/myplugin [args]")
    assert manifest.config_schema is not None
    assert manifest.config_schema["required"] == ["api_key"]


@pytest.mark.parametrize(
    "sandbox",
    [
        {
            "type": "docker",
            "image": "python:3.11-slim",
            "network": "restricted",
            "volumes": ["/tmp/plugin:/workspace:ro"],
            "security_opt": ["no-new-privileges:true"],
            "cap_drop": ["ALL"],
            "memory": "512m",
            "cpu_shares": 1024,
        },
        {
            "type": "process",
            "user": "plugin-user",
            "working_dir": "/tmp/plugin",
            "env_whitelist": ["PATH", "PYTHONPATH"],
        },
    ],
)
def test_the_sandbox_block(sandbox: dict[str, Any]) -> None:
    manifest = parse(MANIFEST + yaml.safe_dump({"sandbox": sandbox}))
    assert manifest.extra == {}
    assert manifest.sandbox.tier == {"docker": "container", "process": "process"}[sandbox["type"]]
    assert list(manifest.sandbox.cap_drop) == sandbox.get("cap_drop", [])


def test_the_permissions() -> None:
    words = {"FILESYSTEM_READ", "FILESYSTEM_WRITE", "NETWORK_ACCESS", "DATABASE_READ", "DATABASE_WRITE"}
    for word in words | {"API_ACCESS", "CHAT_ACCESS", "ADMIN_ACCESS"}:
        assert PluginPermission[word] == word.lower()
        assert isinstance(PluginPermission[word], str)


async def test_the_class_through_the_service(chat: HomeKit) -> None:
    service = PluginService()
    await service.enable_plugin("my-plugin")
    result = await service.execute_plugin(
        plugin_id="my-plugin", context={"message": "Hello plugin!", "user": "john_doe", "channel": "#general"}
    )
    assert result["success"] is True
    assert result["result"]["result"] == "john_doe in #general: Hello plugin!"
    assert result["execution_time"] > 0
    missing = await service.execute_plugin("my-plugin", {"user": "john_doe"})
    assert (missing["success"], missing["error"]) == (False, "'channel' is missing")
    rows = await service.list_plugins(status="enabled")
    assert [(row["id"], row["version"], row["status"], row["author"]) for row in rows] == [
        ("my-plugin", "1.0.0", "enabled", "Somebody")
    ]
    info = await service.get_plugin_info("my-plugin")
    assert (info["status"], info["name"], info["description"]) == ("enabled", "my-plugin", "An example")
    await service.disable_plugin("my-plugin")
    assert (await service.get_plugin_info("my-plugin"))["status"] == "disabled"
    disabled = [row["id"] for row in await service.list_plugins(status="disabled")]
    assert "my-plugin" in disabled
    with pytest.raises(InvalidInput, match="enabled, disabled or all"):
        await service.list_plugins(status="broken")


async def test_hooks_and_the_command(chat: HomeKit) -> None:
    async with EventCore(chat.root) as core:
        await core.plugins.enable("my-plugin")
        said = await core.hooks.call("on_message", {"text": "good morning"})
        assert said.replies == []
        asked = await core.hooks.call("on_message", {"text": "/myplugin in the middle of something"})
        assert asked.replies == [{"text": "asked in a message", "type": "plugin_response"}]
        uploaded = await core.hooks.call(
            "on_file_upload", {"name": "a.txt", "size": 1, "sha256": "0" * 64, "content_type": "text/plain"}
        )
        assert uploaded.replies == [{"seen": "a.txt"}]
        # A declared command goes to `on_command` of its plugin; replies of `on_message` are not collected for it.
        commanded = await core.hooks.command({"text": "/myplugin a b"})
        assert commanded.replies == [{"result": "Command executed", "args": ["a", "b"]}]


CAREFUL = """
import asyncio
import logging
from typing import Any, Dict


logger = logging.getLogger(__name__)


class APIError(Exception):
    pass


class Careful:
    def __init__(self, config: Dict[str, Any]):
        self.cache = {"a": 1}
        self.background_tasks = []

    async def initialize(self) -> bool:
        self.background_tasks.append(asyncio.create_task(asyncio.sleep(3600)))
        return True

    async def execute(self, context: Dict) -> Dict:
        try:
            result = await self.process(context)
            return {"success": True, "result": result}
        except APIError as e:
            return {"success": False, "error": "API temporarily unavailable"}
        except Exception as e:
            return {"success": False, "error": "Plugin error"}

    async def process(self, context):
        if context["how"] == "api":
            raise APIError("503")
        return [len(self.cache), len(self.background_tasks)][context["how"]]

    async def cleanup(self):
        for task in self.background_tasks:
            task.cancel()
        self.cache.clear()
        await asyncio.gather(*self.background_tasks, return_exceptions=True)
        logger.info("cleaned up %s", [task.cancelled() for task in self.background_tasks])
"""


async def test_errors_are_handled_and_resources_given_back(eventcore_home: HomeKit) -> None:
    HomeFolder(eventcore_home.root).plugin("careful", CAREFUL, **{"class": "Careful"})
    service = PluginService()
    await service.enable_plugin("careful")
    outcomes = [await service.execute_plugin("careful", {"how": how}) for how in (0, 1, "api", 7)]
    assert [one.get("error") or one["result"]["result"] for one in outcomes] == [
        *(1, 1, "API temporarily unavailable", "Plugin error"),
    ]
    await service.disable_plugin("careful")
    lines = (eventcore_home / ".eventcore/logs/careful.ndjson").read_text()
    assert "cleaned up [True]" in lines


async def test_a_missing_setting_says_how_to_set_it(chat: HomeKit) -> None:
    HomeFolder(chat.root).settings("")
    with pytest.raises(InvalidInput, match="api_key"):
        chat.perform("plugins.enable", name="my-plugin", grants=GRANTS)


async def test_without_its_permissions_it_does_not_start(chat: HomeKit) -> None:
    HomeFolder(chat.root).settings('[plugins.settings.my-plugin]\napi_key = "k"\n')
    with pytest.raises(InvalidInput, match="network_access"):
        chat.perform("plugins.enable", name="my-plugin", grants=["chat_access", "api_access"])
