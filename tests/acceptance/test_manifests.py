"""C2, C3, C4, C9, C11, C12, C14, C42: what manifests say, as the commands show it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.acceptance.conftest import HomeFolder, QuickHome


@pytest.fixture
def home(quick: QuickHome) -> HomeFolder:
    return quick


GREET = 'def run(params):\n    return {"said": params["metadata"]["intent"]}'


#: Runs the command line and says on stderr when anything of it starts a process or runs a plugin's file.
WATCHED = """
import sys
def watch(event, args):
    if event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec"):
        sys.stderr.write("STARTED A PROCESS\\n")
    file = getattr(args[0], "co_filename", "") if event == "exec" else ""
    if "/plugins/" in file and "eventcore" not in file:
        sys.stderr.write("RAN PLUGIN CODE\\n")
sys.addaudithook(watch)
from eventcore.cli import main
main()
"""


@pytest.mark.req("C2")
def test_discovery_imports_nothing_and_starts_nothing(home: HomeFolder) -> None:
    home.plugin("explosive", 'raise SystemExit("imported")')
    for number in range(1000):
        home.plugin(f"p{number}", "raise SystemExit('imported')", folder="group/deep")
    listing = subprocess.run(
        [sys.executable, "-c", WATCHED, "plugins", "list", "--json"],
        cwd=home.root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert listing.returncode == 0, listing.stderr
    assert listing.stderr == ""
    rows = {row["slug"]: row for row in json.loads(listing.stdout) if row["origin"] == "home"}
    assert rows.keys() == {"explosive", *(f"p{number}" for number in range(1000))}
    assert {row["state"] for row in rows.values()} == {"discovered"}


@pytest.mark.req("C3")
def test_a_broken_manifest_fails_alone_with_file_key_and_line(home: HomeFolder) -> None:
    home.write(
        "plugins/broken/plugin_manifest.json", '{"name": "broken", "version": "1.0.0", "plugin_api_version": "1.0"}'
    )
    home.plugin("fine", GREET)
    listed = {row["slug"]: row for row in home.json("plugins", "list")}
    assert listed["broken"]["state"] == "failed"
    assert "plugin_manifest.json:1 module is required" in listed["broken"]["reason"]
    assert listed["fine"]["state"] == "discovered"
    table = home.run("plugins", "list").stdout
    assert "broken" in table
    assert "module is required" in " ".join(table.split())


@pytest.mark.req("C4")
def test_extra_keys_are_kept_and_shown_and_a_slip_is_named(home: HomeFolder) -> None:
    home.plugin("slip", GREET, requird_roles=["admin"])
    assert home.run("plugins", "enable", "slip").returncode == 0
    assert home.json("plugins", "info", "slip")["manifest"]["extra"] == {"requird_roles": ["admin"]}
    assert "requird_roles" in home.run("plugins", "info", "slip").stdout
    validated = home.run("plugins", "validate", "plugins/slip")
    assert "required_roles" in validated.stdout + validated.stderr


@pytest.mark.req("C9")
def test_an_unknown_api_version_is_refused(home: HomeFolder) -> None:
    home.plugin("future", GREET, plugin_api_version="9.9")
    done = home.run("plugins", "validate", "plugins/future")
    assert done.returncode == 1
    assert "supported: 1.0, 1.1" in done.stdout + done.stderr


@pytest.mark.req("C11")
def test_every_intent_is_callable_and_two_owners_are_an_error(home: HomeFolder) -> None:
    home.plugin("first", GREET, intent=["greet", "hello"])
    home.plugin("second", GREET, intent="hello")
    home.run("plugins", "enable", "first")
    assert home.json("run", "greet")["result"] == {"said": "greet"}
    assert home.json("run", "hello")["result"] == {"said": "hello"}
    clash = home.run("plugins", "enable", "second")
    assert clash.returncode != 0
    assert "first" in clash.stderr
    assert "second" in clash.stderr


@pytest.mark.req("C12")
def test_a_module_of_an_absent_host_is_the_plugins_own_file(home: HomeFolder) -> None:
    home.plugin("scheduler", GREET, module="ai_karen_engine.plugins.task_scheduler.handler")
    home.run("plugins", "enable", "scheduler")
    assert home.json("run", "scheduler")["result"] == {"said": "scheduler"}


@pytest.mark.req("C14")
def test_the_entry_point_names_the_function(home: HomeFolder) -> None:
    home.plugin("other-door", 'def handle(params):\n    return "handled"', entry_point="handle")
    home.run("plugins", "enable", "other-door")
    assert home.json("run", "other-door")["result"] == "handled"


@pytest.mark.req("C42")
def test_both_styles_get_context_and_must_return_json(home: HomeFolder) -> None:
    body = 'run(params):\n    return {"roles": params["user_context"]["roles"], "call": params["metadata"]["call_id"]}'
    home.plugin("plain", f"def {body}")
    home.plugin("awaited", f"async def {body}")
    home.plugin("odd", "def run(params):\n    return {1, 2}")
    for name in ("plain", "awaited", "odd"):
        home.run("plugins", "enable", name)
    for name in ("plain", "awaited"):
        result = home.json("run", name, "--params", "{}", "--role", "user")["result"]
        assert result["roles"] == ["user"]
        assert result["call"]
    odd = home.run("run", "odd", "--params", "{}", "--json")
    assert odd.returncode == 1
    [error] = home.json("events", "list", "--type", "plugin_error")
    assert error["data"]["plugin"] == "odd"
    assert "JSON" in json.dumps(error["data"])


CONFIGURED = """
def run(params, ctx):
    # A secret that a plugin gives away is masked in its result, so it is told by its letters.
    return {**ctx.config, "api_key": "-".join(ctx.config["api_key"])}
"""


def test_settings_have_defaults_secrets_and_a_schema(home: HomeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {
        "type": "object",
        "properties": {"api_key": {"type": "string"}, "limit": {"type": "integer", "default": 7}},
    }
    home.plugin("configured", CONFIGURED, config_schema={**schema, "required": ["api_key"]})
    missing = home.run("plugins", "enable", "configured")
    assert missing.returncode != 0
    assert "api_key" in missing.stderr
    assert "[plugins.settings.configured]" in missing.stderr

    home.settings('[plugins.settings.configured]\napi_key = {secret = "demo-key"}\n')
    unset = home.run("plugins", "enable", "configured")
    assert "EVENTCORE_SECRET_DEMO" in unset.stderr
    monkeypatch.setenv("EVENTCORE_SECRET_DEMO_KEY", "s3cret-value")
    assert home.run("plugins", "enable", "configured").returncode == 0
    assert home.json("run", "configured")["result"] == {"api_key": "-".join("s3cret-value"), "limit": 7}
