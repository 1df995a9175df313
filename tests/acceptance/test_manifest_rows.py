"""Rows of section C that the commands show: each field is read, and does what its row says."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from eventcore import EventCore
from tests.acceptance.conftest import QuickHome

GREET = 'def run(params):\n    return {"said": params["metadata"]["intent"]}'


def validate(home: QuickHome, slug: str, *more: str) -> tuple[int, str]:
    done = home.run("plugins", "validate", f"plugins/{slug}", *more)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.req("C5")
def test_the_name_gives_the_slug_and_two_of_one_slug_are_named(quick: QuickHome) -> None:
    quick.plugin("awesome", GREET, name="MyAwesomePlugin")
    assert quick.run("plugins", "enable", "my-awesome-plugin").returncode == 0
    assert quick.json("run", "my-awesome-plugin")["plugin"] == "my-awesome-plugin"
    assert "MyAwesomePlugin" in quick.run("plugins", "list").stdout
    quick.plugin("twin", GREET, name="my_awesome_plugin", folder="other")
    failed = [row for row in quick.json("plugins", "list") if row["state"] == "failed"]
    assert len(failed) == 1
    assert "plugins/awesome" in failed[0]["reason"]
    assert "plugins/other/twin" in failed[0]["reason"]


@pytest.mark.req("C15")
def test_required_roles_keep_others_out(quick: QuickHome) -> None:
    quick.plugin("vault", GREET, required_roles=["admin"])
    quick.run("plugins", "enable", "vault")
    denied = quick.run("run", "vault", "--role", "user", "--json")
    assert json.loads(denied.stderr)["error"]["code"] == "access_denied"
    assert quick.run("run", "vault", "--role", "admin").returncode == 0


@pytest.mark.req("C16")
def test_a_trusted_ui_takes_the_operator_as_well(quick: QuickHome) -> None:
    quick.plugin("painted", GREET, trusted_ui=True)
    quick.write("plugins/painted/ui.py", "def render():\n    return '<p>hi</p>'")
    assert "trusted by manifest, not by operator" in quick.run("plugins", "info", "painted").stdout


def test_descriptions_are_shown_and_links_are_http(quick: QuickHome) -> None:
    quick.plugin(
        "told", GREET, author="Ada <ada@example.org>", homepage="https://example.org", description="Says \x1b[31mhi"
    )
    shown = quick.run("plugins", "info", "told").stdout
    assert "Ada <ada@example.org>" in shown
    assert "https://example.org" in shown
    assert "\x1b[31m" not in shown
    assert "MIT (default)" in shown
    quick.plugin("linked", GREET, homepage="javascript:alert(1)")
    code, words = validate(quick, "linked")
    assert code == 1
    assert "http or https" in words


SEED_000: dict[str, Any] = {
    "permissions": {"data_access": ["read"], "system_access": ["files", "scheduler"], "database_access": ["main"]}
}


@pytest.mark.req("C24")
def test_each_declared_word_stands_beside_what_it_became(quick: QuickHome) -> None:
    quick.plugin("asking", GREET, **SEED_000)
    shown = quick.run("plugins", "info", "asking").stdout
    assert "data_access: read = memory_read" in shown
    assert "system_access: files = filesystem_read, filesystem_write" in shown
    assert "system_access: scheduler = scheduler" in shown
    assert "database_access: main = database_read, database_write" in shown
    quick.plugin("odd", GREET, permissions={"system_access": ["fils"]})
    code, words = validate(quick, "odd")
    assert code == 1
    assert "'fils' is not a permission" in words
    assert "'files'" in words


@pytest.mark.req("C25")
def test_required_permissions_are_needed_and_optional_ones_are_not(quick: QuickHome) -> None:
    quick.plugin("needy", GREET, permissions=["chat_access"], optional_permissions=["memory_read"])
    refused = quick.run("plugins", "enable", "needy")
    assert refused.returncode == 2
    assert "chat_access" in refused.stderr
    assert quick.run("plugins", "enable", "needy", "--grant", "chat_access").returncode == 0
    assert quick.json("plugins", "info", "needy")["granted"] == ["chat_access"]
    assert quick.run("run", "needy").returncode == 0
    toml = (
        '[plugin]\nname = "told"\nversion = "1.0.0"\n[permissions]\nrequired = ["read_files"]\noptional = ["network"]\n'
    )
    quick.write("plugins/told/plugin.toml", toml)
    quick.write("plugins/told/handler.py", GREET)
    manifest = quick.json("plugins", "info", "told")["manifest"]
    assert (manifest["permissions"], manifest["optional_permissions"]) == (["filesystem_read"], ["network_access"])


@pytest.mark.req("C26")
def test_limits_are_shown_with_source_and_means(quick: QuickHome) -> None:
    quick.plugin("small", GREET, resource_limits={"max_memory_mb": 64, "max_execution_time_seconds": 5})
    found = {row["limit"]: row for row in quick.json("plugins", "info", "small")["sandbox"]["limits"]}
    assert (found["memory"]["value"], found["memory"]["source"]) == ("64 MiB", "manifest")
    assert (found["time"]["value"], found["time"]["source"]) == ("5 s a call", "manifest")
    assert found["threads"]["source"] == "settings"
    assert all(row["by"] for row in found.values())
    quick.plugin("negative", GREET, resource_limits={"max_memory_mb": -1})
    code, words = validate(quick, "negative")
    assert code == 1
    assert "must be more than 0" in words


@pytest.mark.req("C22")
def test_a_plugin_without_its_services_is_degraded_and_names_the_keys(quick: QuickHome) -> None:
    quick.plugin("served", GREET, dependencies={"system_services": ["postgres", "redis"], "external_apis": ["weather"]})
    assert quick.run("plugins", "enable", "served").returncode == 0
    row = quick.json("plugins", "info", "served")
    assert row["state"] == "degraded"
    assert all(key in row["reason"] for key in ("[services.postgres]", "[services.redis]", "[apis.weather]"))
    assert quick.json("run", "served")["result"] == {"said": "served"}
    assert [event["data"]["plugin"] for event in quick.json("events", "list", "--type", "plugin_degraded")] == [
        "served"
    ]
    quick.settings("[services.postgres]\nurl = 'x'\n[services.redis]\n[apis.weather]\n")
    assert quick.run("run", "served").returncode == 0
    assert quick.json("plugins", "info", "served")["state"] == "enabled"


NOISY = """
from eventcore.sdk import ctx
async def run(params):
    ctx.log("debug", "fine detail")
    ctx.log("info", "a step")
    if params.get("fail"):
        raise ValueError("broken")
    return 1
"""


@pytest.mark.req("C29")
@pytest.mark.anyio
async def test_monitoring_decides_what_is_measured_and_logged(
    quick: QuickHome, caplog: pytest.LogCaptureFixture
) -> None:
    quick.plugin("unmeasured", NOISY, monitoring={"enable_metrics": False, "log_level": "DEBUG"})
    quick.plugin("measured", NOISY)
    quick.plugin("silent", NOISY, monitoring={"enable_logging": False})
    with caplog.at_level(logging.DEBUG, "eventcore.plugins"):
        async with EventCore(quick.root) as core:
            for slug in ("unmeasured", "measured", "silent"):
                await core.plugins.enable(slug)
                await core.plugins.run(slug)
            with pytest.raises(Exception, match="broken"):
                await core.plugins.run("unmeasured", {"fail": True})
            text = core.metrics.text()
            failed = [event async for event in core.history.query(type="plugin_error")]
    assert 'plugin="measured"' in text
    assert 'plugin="unmeasured"' not in text
    assert [event.data["plugin"] for event in failed] == ["unmeasured"]
    lines = [(record.name.rpartition(".")[2], record.getMessage()) for record in caplog.records]
    assert ("unmeasured", "fine detail") in lines
    assert ("measured", "fine detail") not in lines
    assert ("measured", "a step") in lines
    assert not [line for line in lines if line[0] == "silent"]


@pytest.mark.req("C27")
def test_network_access_is_off_until_granted(quick: QuickHome) -> None:
    quick.plugin("offline", GREET, resources={"network_access": False}, permissions=["network_access"])
    code, words = validate(quick, "offline")
    assert code == 1
    assert "resources.network_access" in words
    quick.plugin("maybe", GREET, resources={"network_access": False}, optional_permissions=["network_access"])
    assert validate(quick, "maybe")[0] == 0
    assert quick.run("plugins", "enable", "maybe").returncode == 0
    assert quick.json("plugins", "info", "maybe")["granted"] == []
    quick.run("plugins", "disable", "maybe")
    assert quick.run("plugins", "enable", "maybe", "--grant", "network_access").returncode == 0
    assert quick.json("plugins", "info", "maybe")["granted"] == ["network_access"]


@pytest.mark.req("C33")
def test_listed_hooks_have_functions_and_functions_are_listed(quick: QuickHome) -> None:
    quick.plugin("promising", GREET, hooks=["on_message"], permissions=["chat_access"])
    code, words = validate(quick, "promising")
    assert code == 1
    assert "lists on_message" in words
    handler = (
        "calls = []\ndef on_message(message):\n    return {'text': 'x'}\ndef on_startup(payload):\n    return None\n"
    )
    quick.plugin("half", handler + GREET, hooks={"chat": ["on_message"]}, permissions=["chat_access"])
    code, words = validate(quick, "half")
    assert code == 0, words
    assert "warning: on_startup: is not listed" in words
    enabled = quick.run("plugins", "enable", "half", "--grant", "chat_access")
    assert enabled.returncode == 0
    assert "on_startup is not listed under hooks and is not called" in enabled.stderr
    listed = quick.json("hooks", "list")
    assert "half" in json.dumps(listed)


FEED = """
slug: feed
steps:
  - {{id: shoot, plugin: {first}, with: {{}}}}
  - id: read
    plugin: my-awesome-plugin.process
    with: {{text: "{{{{ steps.shoot.output }}}}"}}
"""


@pytest.mark.req("C36")
def test_a_capability_is_callable_and_its_types_are_compared(quick: QuickHome) -> None:
    head = '[plugin]\nname = "{}"\nversion = "1.0.0"\n'
    ability = '[[capabilities]]\nname = "{}"\ndescription = "x"\ninput_type = "{}"\noutput_type = "{}"\n'
    toml = head.format("my-awesome-plugin") + ability.format("process", "text", "text")
    camera = head.format("camera") + ability.format("shoot", "any", "image") + ability.format("caption", "any", "text")
    for slug, text in (("awesome", toml), ("camera", camera)):
        quick.write(f"plugins/{slug}/plugin.toml", text)
        quick.write(f"plugins/{slug}/handler.py", GREET)
    assert quick.run("plugins", "enable", "my-awesome-plugin").returncode == 0
    assert quick.json("run", "my-awesome-plugin.process")["result"] == {"said": "my-awesome-plugin.process"}
    assert "my-awesome-plugin.process (text -> text)" in quick.run("plugins", "info", "my-awesome-plugin").stdout

    path = quick.write("workflows/feed.yaml", FEED.format(first="camera.shoot"))
    fails = quick.run("workflows", "validate", str(path))
    assert fails.returncode == 1
    assert "my-awesome-plugin.process takes text, and steps.shoot gives image" in fails.stdout
    assert "feed.yaml:7" in fails.stdout
    quick.write("workflows/feed.yaml", FEED.format(first="camera.caption"))
    fits = quick.run("workflows", "validate", str(path))
    assert fits.returncode == 0, fits.stdout
    assert "nobody answers" not in fits.stdout


@pytest.mark.req("I6")
def test_toggling_is_enabling_and_disabling(quick: QuickHome) -> None:
    quick.plugin("old-plugin", GREET)
    assert quick.json("plugins", "toggle", "old-plugin", "true")["state"] == "enabled"
    assert quick.json("plugins", "toggle", "old-plugin", "false")["state"] == "disabled"
    refused = quick.run("run", "old-plugin")
    assert refused.returncode == 1
    assert "disabled" in refused.stderr
    assert quick.json("plugins", "enable", "old-plugin")["state"] == "enabled"
    assert quick.json("plugins", "disable", "old-plugin")["state"] == "disabled"


@pytest.mark.req("I2")
def test_info_shows_all_there_is(quick: QuickHome, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.plugin(
        "known",
        "def run(params):\n    return 1 / params['by']",
        config_schema={"key": {"type": "string", "secret": True}, "limit": {"type": "integer", "default": 3}},
        permissions=["chat_access"],
        resource_limits={"max_memory_mb": 64},
    )
    quick.settings('[plugins.settings.known]\nkey = {secret = "NAME"}\n')
    monkeypatch.setenv("EVENTCORE_SECRET_NAME", "hidden-value")
    assert quick.run("plugins", "enable", "known", "--grant", "chat_access").returncode == 0
    for by in (1, 2, 0):
        quick.run("run", "known", "--params", json.dumps({"by": by}))
    row = quick.json("plugins", "info", "known")
    shown = quick.run("plugins", "info", "known").stdout
    assert (row["calls"]["count"], row["calls"]["failures"]) == (3, 1)
    assert row["calls"]["mean_seconds"] > 0
    assert row["calls"]["p95_seconds"] > 0
    assert row["calls"]["last"]
    for words in ("enabled", "chat_access (granted)", "64 MiB", "setting limit", "3 (default)", "***", "3, 1 failed"):
        assert words in shown, words
    assert "hidden-value" not in json.dumps(row) + shown


UGLY = """
import subprocess
from os import system as shell
api_key = "sk-abcdefghijklmnop1234"
def run(params):
    shell("ls")
    return eval(params["text"])
"""


@pytest.mark.req("I8")
def test_validate_strictly(quick: QuickHome) -> None:
    quick.plugin("ugly", UGLY)
    assert validate(quick, "ugly")[0] == 0
    code, words = validate(quick, "ugly", "--strict")
    assert code == 1
    for said in (
        "there is no README",
        "there are no tests",
        "license: is not stated",
        "handler.py:5 run: has no type hint for params, its result",
        "handler.py:6 calls os.system",
        "handler.py:7 calls eval",
        "handler.py:4 holds what looks like a secret",
    ):
        assert said in words, said
    clean = "from typing import Any\n\n\ndef run(params: dict[str, Any]) -> int:\n    return 1\n"
    quick.plugin("tidy", clean, license="MIT", description="One")
    quick.write("plugins/tidy/README.md", "# tidy")
    quick.write("plugins/tidy/tests/test_tidy.py", "def test_it(): pass")
    code, words = validate(quick, "tidy", "--strict")
    assert code == 0, words
    assert "1 plugin checked" in words


@pytest.mark.req("C37")
def test_schemas_stand_before_and_after_each_call(quick: QuickHome) -> None:
    code = "def run(params):\n    print('RAN')\n    return {'left': params.get('give')}\n"
    takes = {"properties": {"max_tokens": {"type": "integer", "minimum": 1}}}
    gives = {"properties": {"left": {"type": "integer"}}, "required": ["left"]}
    quick.plugin("strict", code, input_schema=takes, output_schema=gives)
    quick.run("plugins", "enable", "strict")
    refused = quick.run("run", "strict", "--params", '{"max_tokens": -1}')
    assert refused.returncode == 2
    assert "max_tokens" in refused.stderr
    assert "RAN" not in refused.stderr
    assert quick.run("run", "strict", "--params", '{"give": 3}').returncode == 0
    assert quick.run("run", "strict", "--params", '{"give": "three"}').returncode == 1
    errors = [event["data"]["message"] for event in quick.json("events", "list", "--type", "plugin_error")]
    assert any("output_schema" in message for message in errors)
    quick.plugin("emitter", GREET, events={"emits": ["workflow_started"]})
    code_, words = validate(quick, "emitter")
    assert code_ == 1
    assert "only the host emits" in words


@pytest.mark.req("D7")
def test_a_fallback_answers_and_says_so(quick: QuickHome) -> None:
    quick.plugin("simple", GREET, intent="hello_simple")
    quick.plugin(
        "world", "def run(params):\n    raise RuntimeError('broken')", intent="hello_world", fallback="hello_simple"
    )
    for slug in ("simple", "world"):
        quick.run("plugins", "enable", slug)
    answered = quick.run("run", "hello_world", "--json")
    assert answered.returncode == 0
    assert json.loads(answered.stdout) == {"result": {"said": "hello_world"}, "plugin": "simple", "instead_of": "world"}
    assert "simple answered in the place of world" in answered.stderr
    [error] = quick.json("events", "list", "--type", "plugin_error")
    assert error["data"]["plugin"] == "world"
    [called] = quick.json("events", "list", "--type", "plugin_called")
    assert (called["data"]["plugin"], called["data"]["instead_of"]) == ("simple", "world")

    quick.run("plugins", "disable", "world")
    assert quick.json("run", "hello_world")["instead_of"] == "world"
    quick.run("plugins", "disable", "simple")
    assert "disabled" in quick.run("run", "hello_world").stderr


#: The four flavours, each as its seed writes it: field names and shapes are theirs, the plugins are not.
FLAVOURS = {
    "plugin_manifest.json": """{
      "plugin_api_version": "1.0", "intent": ["plan_day", "plan_week"], "enable_external_workflow": true,
      "workflow_slug": "after_planning", "required_roles": ["user", "admin"], "trusted_ui": false, "sandbox": true,
      "module": "some_host.plugins.planner.handler", "description": "Plans days", "version": "1.0.0",
      "category": "productivity", "tags": ["planning"],
      "dependencies": {"python_packages": ["croniter>=2"], "system_services": ["redis"], "external_apis": []},
      "permissions": {"data_access": ["read", "write"], "system_access": ["scheduler"], "network_access": []},
      "resource_limits": {"max_memory_mb": 128, "max_cpu_percent": 10, "max_execution_time_seconds": 30},
      "monitoring": {"enable_metrics": true, "enable_logging": true, "log_level": "INFO"},
      "marketplace": {"name": "Planner", "license": "MIT", "price": "free", "keywords": ["days"],
        "compatibility": {"karen_version": ">=1.0"}, "installation": {"setup_instructions": "None needed"}}}""",
    "specified/plugin_manifest.json": """{
      "name": "specified", "version": "1.0.0", "description": "Greets", "author": "Somebody", "license": "MIT",
      "plugin_type": "example", "module": "some_host.plugins.specified.handler", "entry_point": "run",
      "plugin_api_version": "1.0", "intent": "greet_specified", "required_roles": ["user"], "trusted_ui": false,
      "enable_external_workflow": false, "sandbox_required": true, "tags": ["example"], "category": "examples",
      "dependencies": [], "compatibility": {"python_version": ">=3.8", "platforms": ["linux"]}}""",
    "chatty/plugin.yaml": """
name: Chatty
version: 1.0.0
description: Answers
author: Somebody
email: somebody@example.org
license: MIT
type: extension
main: main.py
class: Chatty
hooks: [on_message, on_command]
commands:
  - {name: /chatty, description: Talks, usage: "/chatty [words]"}
permissions: [chat_access, network_access]
dependencies: ["httpx>=0.27"]
config_schema:
  api_key: {type: string, required: true, description: Key}
sandbox: {type: docker, memory: 512m, cpu_shares: 512, network: restricted, cap_drop: [ALL], env_whitelist: [PATH]}
resources: {memory_mb: 512, cpu_shares: 512, timeout_seconds: 30}
""",
    "able/plugin.toml": """
[plugin]
name = "Able"
version = "1.0.0"
description = "Turns text"
author = "Somebody <somebody@example.org>"
license = "MIT"
min_lao_version = "0.1.0"
categories = ["text"]
[[dependencies]]
name = "helper"
version = "1.0.0"
optional = true
[[capabilities]]
name = "turn"
description = "Text to text"
input_type = "text"
output_type = "text"
[permissions]
required = ["read_files"]
optional = ["network_access"]
[resources]
max_memory_mb = 256
max_cpu_percent = 50
network_access = false
file_access = ["./data/"]
[config_schema]
type = "object"
[config_schema.properties.size]
type = "integer"
default = 3
""",
}


@pytest.mark.req("C1")
def test_all_flavours_print_the_same_shape(quick: QuickHome) -> None:
    shapes = []
    for name, text in FLAVOURS.items():
        place = name if "/" in name else f"planner/{name}"
        quick.write(f"plugins/{place}", text)
        folder = place.rpartition("/")[0]
        entry = "main.py" if place.endswith("yaml") else "handler.py"
        hooks = "def on_message(message): pass\ndef on_command(command, args): pass\n" if entry == "main.py" else ""
        quick.write(f"plugins/{folder}/{entry}", hooks + GREET)
        done = quick.run("plugins", "validate", f"plugins/{folder}", "--json")
        assert done.returncode == 0, done.stdout
        [report] = json.loads(done.stdout)["plugins"]
        shapes.append(report["manifest"])
    assert len({tuple(sorted(shape)) for shape in shapes}) == 1
    assert [shape["dialect"] for shape in shapes] == ["J0", "J2", "Y", "T"]
    assert [shape["limits"]["memory_mb"] for shape in shapes] == [128, None, 512, 256]
    assert [shape["slug"] for shape in shapes] == ["planner", "specified", "chatty", "able"]
    for shape in shapes:
        for field, other in shapes[0].items():
            same = {type(other), type(None)} if other is None or shape[field] is None else {type(other)}
            assert type(shape[field]) in same or None in (other, shape[field]), field
