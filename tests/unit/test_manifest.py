"""Manifests: three dialects, one model; every problem with its line."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eventcore.kernel.errors import InvalidManifest
from eventcore.plugins.manifest import PluginManifest, check_folder, read_manifest
from eventcore.plugins.permissions import PluginPermission

SCHEDULER: dict[str, Any] = {
    "plugin_api_version": "1.0",
    "intent": "schedule_task",
    "enable_external_workflow": True,
    "workflow_slug": "task_scheduling_workflow",
    "required_roles": ["user", "admin"],
    "trusted_ui": False,
    "sandbox": True,
    "module": "ai_karen_engine.plugins.task_scheduler.handler",
    "description": "Schedules",
    "author": "A Team",
    "version": "1.0.0",
    "category": "productivity",
    "tags": ["tasks"],
    "dependencies": {"system_services": ["redis"], "external_apis": ["mail"], "python_packages": ["croniter"]},
    "permissions": {
        "data_access": ["read", "write"],
        "system_access": ["scheduler", "files"],
        "network_access": ["api.example.com"],
        "database_access": ["main"],
        "external_apis": [],
    },
    "resource_limits": {"max_memory_mb": 128, "max_cpu_percent": 10, "max_execution_time_seconds": 30},
    "monitoring": {"enable_metrics": False, "log_level": "DEBUG"},
    "marketplace": {
        "license": "MIT",
        "support_url": "https://example.com/help",
        "keywords": ["ai"],
        "categories": ["productivity"],
        "compatibility": {"min_karen_version": "0.4.0"},
        "installation": {"dependencies": ["croniter", "pytz>=2021.1"], "setup_instructions": "none"},
    },
}
HELLO: dict[str, Any] = {
    "name": "hello-world",
    "version": "1.0.0",
    "description": "d",
    "author": "ACME",
    "plugin_type": "custom",
    "module": "ai_karen_engine.plugins.hello_world.handler",
    "entry_point": "run",
    "plugin_api_version": "1.0",
    "intent": "hello_world",
    "required_roles": ["user"],
    "trusted_ui": False,
    "enable_external_workflow": False,
    "sandbox_required": True,
    "tags": ["example"],
    "category": "utility",
    "dependencies": [],
    "compatibility": {},
}
YAML = """\
name: my-plugin
version: 1.0.0
description: Example
author: Somebody
email: somebody@example.com
license: MIT
type: extension
main: main.py
class: MyPlugin
dependencies:
  - requests>=2.31.0
permissions:
  - network_access
  - chat_access
optional_permissions:
  - filesystem_read
resources:
  memory_mb: 512
  cpu_shares: 1024
  timeout_seconds: 30
config_schema:
  api_key:
    type: string
    required: true
    secret: true
  endpoint:
    type: string
    default: https://api.example.com
hooks:
  - on_message
  - on_command
commands:
  - name: /myplugin
    description: Run it
    usage: /myplugin [args]
"""
TOML = """\
[plugin]
name = "MyAwesomePlugin"
version = "1.0.0"
author = "A Developer <dev@example.com>"
keywords = ["ai"]
categories = ["ai-tools", "data"]
min_lao_version = "0.1.0"

[[dependencies]]
name = "SomeDependency"
version = "1.0.0"
optional = false

[[capabilities]]
name = "process"
input_type = "text"
output_type = "text"

[permissions]
required = ["read_files", "write_files"]
optional = ["network_access"]

[resources]
max_memory_mb = 512
max_cpu_percent = 50.0
network_access = false
file_access = ["./data/"]

[config_schema]
type = "object"
properties.max_tokens = { type = "integer", default = 2048 }
"""
NAMES = {"json": "plugin_manifest.json", "yaml": "plugin.yaml", "toml": "plugin.toml"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "productivity" / "task-scheduler"
    place.mkdir(parents=True)
    return place


def write(folder: Path, content: str | dict[str, Any]) -> Path:
    if isinstance(content, dict):
        file, content = folder / NAMES["json"], json.dumps(content, indent=1)
    else:
        file = folder / NAMES["toml" if "[plugin]" in content else "yaml"]
    file.write_text(content)
    return file


def read(folder: Path, content: str | dict[str, Any]) -> PluginManifest:
    return read_manifest(write(folder, content))


def problems(folder: Path, content: str | dict[str, Any]) -> list[str]:
    file = write(folder, content)
    with pytest.raises(InvalidManifest) as caught:
        read_manifest(file)
    return [str(problem).replace(f"{file.parent}/", "") for problem in caught.value.problems]


def warnings(folder: Path, content: str | dict[str, Any]) -> list[str]:
    manifest = read(folder, content)
    return [str(problem).replace(f"{folder}/", "") for problem in manifest.warnings]


def without(table: dict[str, Any], *keys: str, **more: Any) -> dict[str, Any]:
    return {**{key: value for key, value in table.items() if key not in keys}, **more}


def test_the_marketplace_flavour(folder: Path) -> None:
    manifest = read(folder, SCHEDULER)
    assert (manifest.dialect, manifest.name, manifest.slug) == ("J0", "task-scheduler", "task-scheduler")
    assert (manifest.api_version, manifest.intents, manifest.entry_file) == ("1.0", ("schedule_task",), "handler.py")
    assert manifest.workflow_slug == "task_scheduling_workflow"
    assert manifest.enable_external_workflow
    assert manifest.python_packages == ("croniter", "pytz>=2021.1")
    assert (manifest.system_services, manifest.external_services) == (("redis",), ("mail",))
    assert set(manifest.permissions) == {
        PluginPermission(word)
        for word in "memory_read memory_write scheduler filesystem_read filesystem_write network_access database_read "
        "database_write".split()
    }
    assert "system_access: files" in {entry.word for entry in manifest.declared_permissions}
    assert (manifest.network_hosts, manifest.databases) == (("api.example.com",), ("main",))
    assert manifest.limits.model_dump() == {
        "memory_mb": 128, "cpu_percent": 10, "cpu_shares": None, "timeout_seconds": 30
    }  # fmt: skip
    assert (manifest.monitoring.enable_metrics, manifest.monitoring.log_level) == (False, "DEBUG")
    assert (manifest.license, manifest.license_assumed) == ("MIT", False)
    assert manifest.support_url == "https://example.com/help"
    assert manifest.compatibility == {"min_karen_version": "0.4.0"}
    assert manifest.category == "productivity"
    assert manifest.warnings == ()


def test_the_specification_flavour(folder: Path) -> None:
    manifest = read(folder, HELLO)
    assert (manifest.dialect, manifest.name, manifest.entry_point) == ("J2", "hello-world", "run")
    assert manifest.license_text == "MIT (default)"
    assert manifest.required_roles == ("user",)
    assert manifest.sandbox.required
    assert manifest.warnings == ()


def test_the_yaml_dialect(folder: Path) -> None:
    manifest = read(folder, YAML)
    assert (manifest.dialect, manifest.entry_file, manifest.class_name) == ("Y", "main.py", "MyPlugin")
    assert (manifest.plugin_type, manifest.intents, manifest.api_version) == ("extension", ("my-plugin",), "1.1")
    assert manifest.python_packages == ("requests>=2.31.0",)
    assert manifest.permissions == (PluginPermission.NETWORK_ACCESS, PluginPermission.CHAT_ACCESS)
    assert manifest.optional_permissions == (PluginPermission.FILESYSTEM_READ,)
    assert (manifest.limits.memory_mb, manifest.limits.cpu_shares) == (512, 1024)
    assert manifest.hooks == ("on_message", "on_command")
    assert [command.name for command in manifest.commands] == ["/myplugin"]
    assert manifest.config_schema == {
        "type": "object",
        "properties": {
            "api_key": {"type": "string", "secret": True},
            "endpoint": {"type": "string", "default": "https://api.example.com"},
        },
        "required": ["api_key"],
    }
    assert manifest.required_roles == ()
    assert manifest.warnings == ()


def test_the_toml_dialect(folder: Path) -> None:
    manifest = read(folder, TOML)
    assert (manifest.dialect, manifest.name, manifest.slug) == ("T", "MyAwesomePlugin", "my-awesome-plugin")
    assert (manifest.author, manifest.email) == ("A Developer", "dev@example.com")
    assert [entry.model_dump() for entry in manifest.plugin_dependencies] == [
        {"name": "some-dependency", "version": "1.0.0", "optional": False}
    ]
    assert manifest.permissions == (PluginPermission.FILESYSTEM_READ, PluginPermission.FILESYSTEM_WRITE)
    assert manifest.optional_permissions == (PluginPermission.NETWORK_ACCESS,)
    assert [capability.name for capability in manifest.capabilities] == ["process"]
    assert manifest.file_access == ("./data/",)
    assert manifest.compatibility == {"min_lao_version": "0.1.0"}
    assert manifest.categories == ("ai-tools", "data")
    assert manifest.config_schema is not None
    assert manifest.warnings == ()


def test_all_dialects_give_one_shape(folder: Path) -> None:
    shapes = {tuple(json.loads(read(folder, text).model_dump_json())) for text in (SCHEDULER, HELLO, YAML, TOML)}
    assert len(shapes) == 1


def test_required_keys(folder: Path) -> None:
    assert problems(folder, without(HELLO, "module")) == ["plugin_manifest.json:1 module is required"]
    assert problems(folder, without(SCHEDULER, "module")) == ["plugin_manifest.json:1 module is required"]
    assert problems(folder, {"version": "1.0.0"}) == [
        "plugin_manifest.json:1 name is required",
        "plugin_manifest.json:1 module is required",
    ]
    assert problems(folder, "name: x") == ["plugin.yaml:1 version is required"]
    assert problems(folder, '[plugin]\nversion = "1.0.0"') == ["plugin.toml:1 plugin: name is required"]
    assert problems(folder, without(HELLO, "module", modul="handler")) == [
        "plugin_manifest.json:1 module is required; 'modul' may be a misspelling of it"
    ]
    assert problems(folder, "- 1") == ["plugin.yaml:1 must be a table of keys and values"]


def test_every_problem_with_its_line(folder: Path) -> None:
    text = """\
name: my-plugin
version: 1.0
type: extention
trusted_ui: yes
tags: ai
permissions:
  - chat_acess
resources:
  memory_mb: -1
  timeout_seconds: long
commands:
  - name: greet
  - description: nothing
repository: javascript:alert(1)
"""
    assert problems(folder, text) == [
        'plugin.yaml:2 version: must be text; write it in quotes, "1.0"',
        "plugin.yaml:3 type: must be one of core, automation, ai, integration, example, custom, extension, ai-model, "
        "workflow; did you mean 'extension'?",
        "plugin.yaml:4 trusted_ui: must be true or false",
        "plugin.yaml:5 tags: must be a list of text",
        "plugin.yaml:7 permissions[0]: 'chat_acess' is not a permission; did you mean 'chat_access'?",
        "plugin.yaml:9 resources.memory_mb: must be more than 0",
        "plugin.yaml:10 resources.timeout_seconds: must be a number",
        "plugin.yaml:12 commands[0].name: must be a word, beginning with /, of lower case letters, digits, _ and -",
        "plugin.yaml:13 commands[1]: name is required",
        "plugin.yaml:14 repository: must be an http or https address, not 'javascript:alert(1)'",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plugin_api_version": "9.9"}, "plugin_api_version: '9.9' is not supported; supported: 1.0, 1.1"),
        ({"version": "abc"}, "version: must be a semantic version such as 1.0.0, not 'abc'"),
        ({"module": "handler.py"}, "module: must be a dotted module path such as handler, not 'handler.py'"),
        ({"module": "../x"}, "module: must be a dotted module path"),
        ({"main": "../x.py"}, "main: must be a Python file in the plugin's folder"),
        ({"intent": ["a", "b c"]}, "intent[1]: 'b c' is not an intent"),
        ({"intent": []}, "intent: must name at least one intent"),
        ({"name": "---"}, "name: '---' gives no usable slug"),
        ({"name": ""}, "name: must not be empty"),
        ({"workflow_slug": "No Slug"}, "workflow_slug: 'No Slug' is not a workflow slug"),
        ({"required_roles": "user"}, "required_roles: must be a list of text"),
        ({"permissions": {"system_access": ["filez"]}}, "permissions.system_access[0]: 'filez' is not a permission"),
        ({"permissions": {"data_access": ["drop"]}}, "'drop' is not a permission; known: read, write"),
        ({"dependencies": ["a b", "x>=one"]}, "dependencies[1].version: must be a version or a range"),
        ({"plugin_dependencies": [{"version": "1"}]}, "plugin_dependencies[0]: name is required"),
        ({"dependencies": {"python_packages": ["--index-url x"]}}, "'--index-url x' is not a package requirement"),
        ({"hooks": ["message"]}, "'message' is not a hook; a hook's name begins with on_; did you mean 'on_message'?"),
        ({"stages": {"on_message": "gates"}}, "stages.on_message: must be one of gate, filter, reply, observe; did"),
        ({"events": {"emits": ["workflow_started"]}}, "events.emits[0]: only the host emits workflow_started"),
        ({"events": {"emits": ["on_message"]}}, "events.emits[0]: only the host emits on_message"),
        ({"events": {"emits": ["other.thing"]}}, "other.thing: the prefix must be 'hello-world'"),
        ({"resources": {"file_access": ["../x"]}}, "resources.file_access[0]: '../x' must lie below"),
        ({"commands": [{"name": "/a"}, {"name": "/a"}]}, "commands[1].name: /a is declared twice"),
        ({"config_schema": {"n": {"type": "int"}}}, "config_schema.n.type: must be one of string, integer"),
        ({"config_schema": {"n": {"type": "integer", "default": "x"}}}, "n.default: does not have the type integer"),
        ({"sandbox": {"type": "dokcer"}}, "sandbox.type: must be one of docker, container, process; did you mean"),
        ({"sandbox": {"memory": "-1m"}}, "sandbox.memory: must be an amount of memory"),
        ({"input_schema": []}, "input_schema: must be a table of keys and values"),
        ({"trusted_ui": "false"}, "trusted_ui: must be true or false"),
        ({"resource_limits": {"max_memory_mb": True}}, "resource_limits.max_memory_mb: must be a number"),
    ],
)  # fmt: skip
def test_wrong_values(folder: Path, change: dict[str, Any], message: str) -> None:
    found = problems(folder, {**HELLO, **change})
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("plugin_manifest.json:")


def test_network_off_beside_a_required_permission(folder: Path) -> None:
    text = TOML.replace('"write_files"]', '"network_access"]').replace("optional = [", "other = [")
    (problem,) = problems(folder, text)
    assert problem.startswith("plugin.toml:26 resources.network_access: is false beside the required permission")


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"requird_roles": ["x"]}, "requird_roles: is not a key that anything reads; did you mean 'required_roles'?"),
        ({"resources": {"memory_md": 1}}, "resources.memory_md: is not a key that anything reads; did you mean"),
        ({"enable_external_workflow": True}, "enable_external_workflow: is true without a workflow_slug"),
        ({"workflow_slug": "x"}, "workflow_slug: starts nothing unless enable_external_workflow is true"),
        ({"sandbox": False}, "sandbox: stands beside sandbox_required; the stricter one holds: the plugin runs"),
        ({"sandbox": {"cap_drop": []}}, "sandbox.cap_drop: an empty list loosens nothing"),
        ({"sandbox": {"network": "host"}}, "sandbox.network: loosens nothing"),
        ({"hooks": ["on_mesage"]}, "hooks: on_mesage is no hook of the host; did you mean 'on_message'?"),
        ({"hooks": ["on_message"], "stages": {"on_startup": "observe"}}, "stages.on_startup: names a hook that is not"),
        ({"hooks": ["on_command"]}, "hooks: lists on_command, but commands declares none"),
    ],
)  # fmt: skip
def test_warnings(folder: Path, change: dict[str, Any], warning: str) -> None:
    (found,) = warnings(folder, {**HELLO, **change})
    assert warning in found
    assert " warning: " in found


def test_the_stricter_sandbox_holds(folder: Path) -> None:
    assert not read(folder, {**HELLO, "sandbox": False}).sandbox.unsandboxed
    assert read(folder, {**SCHEDULER, "sandbox": False}).sandbox.unsandboxed
    wish = read(folder, YAML + "sandbox: {type: docker, memory: 256m, env_whitelist: [PATH]}\n")
    assert (wish.sandbox.tier, wish.sandbox.env_whitelist, wish.limits.memory_mb) == ("container", ("PATH",), 256)


def test_extra_keys_are_kept(folder: Path) -> None:
    manifest = read(folder, {**HELLO, "x-mine": {"a": 1}, "resources": {"colour": "red"}})
    assert manifest.extra == {"x-mine": {"a": 1}, "resources.colour": "red"}
    assert manifest.warnings == ()


def test_own_keys_in_every_dialect(folder: Path) -> None:
    keys: dict[str, Any] = {
        "intents": ["one", "two"],
        "stages": {"on_message": "gate"},
        "commands": [{"name": "/x"}],
        "events": {"emits": ["data_processed"]},
        "input_schema": {"type": "object"},
        "fallback": "other",
    }
    as_yaml = YAML.split("hooks:")[0] + json.dumps(keys)[1:-1].replace('], "', ']\n"').replace('}, "', '}\n"')
    as_toml = TOML.replace("[plugin]", '[plugin]\nintents = ["one", "two"]\nfallback = "other"') + (
        '[stages]\non_message = "gate"\n[[commands]]\nname = "/x"\n[events]\nemits = ["data_processed"]\n'
        '[input_schema]\ntype = "object"\n'
    )
    for content in (without(HELLO, "intent", **keys), as_yaml, as_toml):
        manifest = read(folder, content)
        assert manifest.intents == ("one", "two")
        assert manifest.stages == {"on_message": "gate"}
        assert manifest.commands[0].name == "/x"
        assert (manifest.emits, manifest.fallback) == (("data_processed",), "other")


def test_intent_may_be_a_list(folder: Path) -> None:
    assert read(folder, {**HELLO, "intent": ["greet", "hello"]}).intents == ("greet", "hello")


def test_list_dependencies_depend_on_the_dialect(folder: Path) -> None:
    (needed,) = read(folder, {**HELLO, "dependencies": ["Other Plugin >=1.0,<2"]}).plugin_dependencies
    assert (needed.name, needed.version) == ("other-plugin", ">=1.0,<2")
    (both,) = read(folder, YAML + "plugin_dependencies: [summarizer]\n").plugin_dependencies
    assert both.name == "summarizer"


def test_the_module_that_is_a_file_of_the_plugin(folder: Path) -> None:
    assert read(folder, {**HELLO, "module": "inner.code"}).entry_file == "code.py"
    (folder / "inner").mkdir()
    (folder / "inner" / "code.py").write_text("raise SystemExit")
    assert read(folder, {**HELLO, "module": "inner.code"}).entry_file == "inner/code.py"


def test_category(folder: Path, tmp_path: Path) -> None:
    file = write(folder, without(HELLO, "category"))
    assert read_manifest(file).category == "productivity"
    assert read_manifest(file, category="ai").category == "ai"
    top = tmp_path / "plugins" / "x"
    top.mkdir(parents=True)
    assert read(top, without(HELLO, "category")).category == ""


def test_relative_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, SCHEDULER)
    monkeypatch.chdir(folder)
    manifest = read_manifest("plugin_manifest.json")
    assert (manifest.name, manifest.path) == ("task-scheduler", "plugin_manifest.json")


def test_files_that_cannot_be_read(folder: Path) -> None:
    for name, make in (("plugin.yaml", os.mkfifo), ("plugin.toml", os.mkdir)):
        make(folder / name)
        with pytest.raises(InvalidManifest, match="is not a regular file"):
            read_manifest(folder / name)
    with pytest.raises(InvalidManifest, match="No such file"):
        read_manifest(folder / "plugin_manifest.json")
    with pytest.raises(InvalidManifest, match="must be called"):
        read_manifest(folder / "package.json")


def test_check_folder(folder: Path) -> None:
    manifest = read(folder, {**HELLO, "plugin_type": "workflow"})
    missing, workflows = map(str, check_folder(manifest))
    assert missing.endswith("module: there is no handler.py in the plugin's folder")
    assert workflows.endswith("type: is workflow, but there is no folder workflows/")
    (folder / "Cargo.toml").write_text("")
    assert "native libraries are not loaded" in str(check_folder(manifest)[0])
    (folder / "handler.py").write_text("")
    (folder / "workflows").mkdir()
    assert check_folder(manifest) == []


@pytest.mark.parametrize(
    "change",
    [
        {"author": "<" + "a@" * 100_000 + " "},
        {
            "dependencies": [{"name": "x", "version": "1" * 100_000 + "!"}],
            "plugin_dependencies": ["x>=" + "1" * 999 + "!"],
        },
    ],
    ids=["an author", "a range of versions"],
)
def test_no_text_takes_long_to_read(folder: Path, change: dict[str, Any]) -> None:
    began = time.process_time()
    with suppress(InvalidManifest):
        read(folder, HELLO | change)
    assert time.process_time() - began < 1.0  # each part tried in every way, it is years


def test_permissions_are_words() -> None:
    assert PluginPermission("chat_access") is PluginPermission.CHAT_ACCESS
    assert f"{PluginPermission.CHAT_ACCESS}" == "chat_access"
