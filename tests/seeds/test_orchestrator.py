"""The fifth seed: a workflow orchestrator with community plugins. Each test is one of its examples; data are ours."""

from __future__ import annotations

import pytest

from eventcore.plugins.manifest import parse_manifest
from eventcore.testing import HomeKit
from tests.acceptance.conftest import HomeFolder, QuickHome

pytestmark = pytest.mark.anyio

MANIFEST = """
[plugin]
name = "MyAwesomePlugin"
version = "1.0.0"
description = "Turns text around"
author = "Somebody <somebody@example.net>"
license = "MIT"
repository = "https://example.com/my-awesome-plugin"
homepage = "https://example.com"
keywords = ["ai", "processing"]
categories = ["ai-tools", "data-processing"]
min_lao_version = "0.1.0"

[[dependencies]]
name = "SomeDependency"
version = "1.0.0"
optional = %s

[[capabilities]]
name = "process"
description = "Process input data"
input_type = "text"
output_type = "text"

[permissions]
required = ["read_files", "write_files"]
optional = ["network_access"]

[resources]
max_memory_mb = 512
max_cpu_percent = 50.0
network_access = false
file_access = ["./data/", "./cache/"]

[config_schema]
type = "object"
properties.model_path = { type = "string", description = "Path to model file" }
properties.max_tokens = { type = "integer", default = 2048 }
"""

CODE = """
from eventcore.sdk import ctx

def run(params):
    with open("data/turned.txt", "a") as file:
        file.write(params["input"])
    return {"output": params["input"][::-1], "max_tokens": ctx.config["max_tokens"]}
"""

MONITOR = """
from eventcore.sdk import ctx

async def on_workflow_started(event):
    ctx.log("info", f"started {event.data['slug']}")

async def on_workflow_completed(event):
    await ctx.emit("data_processed", {"slug": event.data["slug"], "status": event.data["status"]})
"""

WORKFLOW = "slug: tiny\nsteps:\n  - {id: rest, sleep: 0}\n"


def test_the_manifest() -> None:
    manifest = parse_manifest(MANIFEST % "false", "plugins/x/plugin.toml", "toml", "plugins/x")
    assert manifest.extra == {}
    assert (manifest.name, manifest.slug, manifest.dialect) == ("MyAwesomePlugin", "my-awesome-plugin", "T")
    (needed,) = manifest.plugin_dependencies
    assert (needed.name, needed.version, needed.optional) == ("some-dependency", "1.0.0", False)
    (capability,) = manifest.capabilities
    assert (capability.name, capability.input_type, capability.output_type) == ("process", "text", "text")
    assert sorted(map(str, manifest.permissions)) == ["filesystem_read", "filesystem_write"]
    assert [str(one) for one in manifest.optional_permissions] == ["network_access"]
    assert (manifest.limits.memory_mb, manifest.limits.cpu_percent) == (512, 50.0)
    assert manifest.file_access == ("./data/", "./cache/")
    assert manifest.config_schema is not None
    assert manifest.config_schema["properties"]["max_tokens"]["default"] == 2048


async def test_it_runs_with_its_files_and_settings(eventcore_home: HomeKit) -> None:
    folder = HomeFolder(eventcore_home.root)
    manifest = (MANIFEST % "true").replace("[plugin]\n", '[plugin]\nmain = "main.py"\n')  # the seed's is a Rust library
    folder.write("plugins/my-awesome-plugin/plugin.toml", manifest)
    folder.write("plugins/my-awesome-plugin/main.py", CODE)
    grants = ["filesystem_read", "filesystem_write"]
    eventcore_home.perform("plugins.enable", name="my-awesome-plugin", grants=grants)
    answer = eventcore_home.call("my-awesome-plugin", {"input": "Hello, World!"})
    assert answer == {"output": "!dlroW ,olleH", "max_tokens": 2048}
    assert (eventcore_home / ".eventcore/data/my-awesome-plugin/data/turned.txt").read_text() == "Hello, World!"


async def test_workflow_and_custom_events(eventcore_home: HomeKit) -> None:
    folder = HomeFolder(eventcore_home.root)
    folder.write("workflows/tiny.yaml", WORKFLOW)
    folder.plugin(
        "my-monitor-plugin", MONITOR, permissions=["plugin_communication"], events={"emits": ["data_processed"]}
    )
    eventcore_home.perform("plugins.enable", name="my-monitor-plugin", grants=["plugin_communication"])
    eventcore_home.perform("workflows.start", slug="tiny")
    eventcore_home.settle()
    (event,) = eventcore_home.events("data_processed")
    assert event["data"] == {"slug": "tiny", "status": "completed"}
    types = [one["type"] for one in eventcore_home.events()]
    for earlier, later in (("workflow_started", "step_started"), ("step_completed", "workflow_completed")):
        assert types.index(earlier) < types.index(later)
    assert "started tiny" in (eventcore_home / ".eventcore/logs/my-monitor-plugin.ndjson").read_text()


async def test_events_of_plugins(eventcore_home: HomeKit) -> None:
    HomeFolder(eventcore_home.root).plugin("fragile", "def run(params): return 1 / params['by']")
    eventcore_home.perform("plugins.enable", name="fragile")
    with pytest.raises(Exception, match="division"):
        eventcore_home.call("fragile", {"by": 0})
    found = {event["type"]: event["data"] for event in eventcore_home.events("plugin_*")}
    assert found["plugin_loaded"]["plugin"] == found["plugin_error"]["plugin"] == "fragile"
    assert found["plugin_error"]["type"] == "ZeroDivisionError"


HOOK = ("plugins", "hook", "fragile", "--events")
COMMANDS = (
    ("plugins", "list"),
    ("plugins", "validate"),
    ("plugins", "test", "fragile", "--input", "Hello, World!"),
    ("plugins", "toggle", "fragile", "false"),
    ("plugins", "toggle", "fragile", "true"),
    ("plugins", "config", "fragile", "model_path", "/path/to/model.onnx"),
    ("plugins", "config", "fragile", "max_tokens", "4096"),
    ("plugins", "info", "fragile"),
    (*HOOK, "workflow_started,workflow_completed", "--callback", "on_workflow_event"),
    (*HOOK, "data_processed,model_updated", "--callback", "handle_custom_event"),
)

#: What comes with an index of plugins and with tools for authors: each is refused, and says so.
LATER = (
    (("plugins", "install", "AdvancedImageProcessor", "--yes"), "there is no index yet"),
    (("plugins", "install", "https://example.com/my-plugin.tar.gz", "--yes"), "nothing is fetched from"),
    (("plugins", "install", "CloudIntegration", "--version", "2.0.1"), "no such option"),
    (("plugins", "search", "image processing", "--tags", "ai,vision"), "there is no command"),
    (("plugins", "create", "my-ai-plugin", "--template", "ai-model"), "there is no command"),
    (("plugins", "build", "--release"), "there is no command"),
    (("plugins", "package", "--output", "my-ai-plugin-v1.0.0.tar.gz"), "there is no command"),
    (("plugins", "reload", "my-ai-plugin"), "there is no command"),
)


FRAGILE = """
def run(params):
    return params["input"]

def on_workflow_event(event):
    pass

def handle_custom_event(event):
    pass
"""


def test_the_commands(eventcore_home: HomeKit, monkeypatch: pytest.MonkeyPatch) -> None:
    home = QuickHome(eventcore_home.root)
    monkeypatch.chdir(home.root)
    schema = {"model_path": {"type": "string"}, "max_tokens": {"type": "integer", "default": 2048}}
    home.plugin("fragile", FRAGILE, config_schema=schema, events={"emits": ["data_processed", "model_updated"]})
    home.settings('[plugins]\nenabled = ["fragile"]\n')
    for words in COMMANDS:
        done = home.run(*words)
        assert done.returncode == 0, (words, done.stderr)
    settings = {one["key"]: one["value"] for one in home.json("plugins", "info", "fragile")["settings"]}
    assert settings == {"model_path": "/path/to/model.onnx", "max_tokens": 4096}
    assert len(home.json("plugins", "hook", "fragile", "--list")["hooks"]) == 4


@pytest.mark.parametrize(("words", "said"), LATER)
def test_what_comes_later_says_so(
    words: tuple[str, ...], said: str, eventcore_home: HomeKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = QuickHome(eventcore_home.root)
    monkeypatch.chdir(home.root)
    done = home.run(*words)
    assert done.returncode != 0
    assert said in done.stderr.lower()
