"""The command line as people and scripts use it: real processes, with and without an engine running on the home."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Result = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]

SETTINGS = """
[plugins]
enabled = ["basic-calculator", "greeter", "hello-world", "text-processor"]
[plugins.grants]
greeter = ["chat_access"]
"""

GUARD = """
from eventcore.sdk import Deny, gate

@gate
def on_message(message):
    return Deny("no secrets here") if "secret" in message["text"] else None
"""

WORKFLOW = """
slug: count_words
triggers:
  - event: text_came_in
    with: {text: "{{ event.data.text }}"}
  - event: on_message
    if: "{{ event.data.text.endswith('?') }}"
    with: {text: "{{ event.data.text }}"}
inputs: {type: object, properties: {text: {type: string}}, required: [text]}
steps:
  - id: measure
    plugin: text_processor
    with: {op: count, text: "{{ inputs.text }}"}
outputs: {words: "{{ steps.measure.output.words }}"}
"""

#: What a program does that embeds an engine: opens it, and stays.
ENGINE = """
import sys, anyio
from eventcore import EventCore

async def main():
    async with EventCore(sys.argv[1]):
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def cli(*args: str, cwd: Path, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Result:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "NO_COLOR"))}
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "eventcore", *args],
        cwd=cwd,
        input=raw,
        capture_output=True,
        timeout=300,
        env={**environ, "USER": "ada", **(env or {})},
        check=False,
    )
    return Result(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def make_home(folder: Path) -> Path:
    for name in ("hooks", "plugins", "workflows"):
        (folder / name).mkdir(parents=True)
    (folder / "eventcore.toml").write_text(SETTINGS)
    (folder / "hooks/guard.py").write_text(GUARD)
    (folder / "workflows/count_words.yaml").write_text(WORKFLOW)
    (folder / "plugins/broken").mkdir()
    (folder / "plugins/broken/plugin_manifest.json").write_text('{"name": "broken", "version": "1.0.0"}')
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home on which nothing runs: commands open it themselves."""
    return make_home(tmp_path_factory.mktemp("home") / "h")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home on which an engine runs in another process."""
    folder = make_home(tmp_path_factory.mktemp("running") / "h")
    with subprocess.Popen([sys.executable, "-c", ENGINE, str(folder)], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
        yield folder
        engine.send_signal(signal.SIGKILL)


def ok(result: Result) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def error(result: Result, code: int) -> dict[str, Any]:
    assert result.returncode == code, (result.stdout, result.stderr)
    assert result.stdout == ""
    body: dict[str, Any] = json.loads(result.stderr)["error"]
    return body


# -- homes -------------------------------------------------------------------------------------------------------------


def test_init_makes_a_home_and_says_what_is_next(tmp_path: Path) -> None:
    made = cli("init", "new", cwd=tmp_path)
    assert made.returncode == 0
    assert "eventcore.toml" in made.stdout
    assert "eventcore plugins enable hello-world" in made.stdout
    assert (tmp_path / "new/eventcore.toml").is_file()
    again = ok(cli("init", "new", "--json", cwd=tmp_path))
    assert again == {"home": str(tmp_path / "new"), "made": []}


def test_what_init_proposes_works_as_printed(tmp_path: Path) -> None:
    cli("init", "new", cwd=tmp_path)
    enabled = cli("plugins", "enable", "hello-world", cwd=tmp_path / "new")
    assert enabled.stdout.splitlines() == ["hello-world is enabled", "  it answers hello_world"]
    called = cli("run", "hello_world", "--params", '{"name": "Ada"}', cwd=tmp_path / "new")
    assert "Hello" in called.stdout
    assert (called.returncode, called.stderr) == (0, "")


def test_no_home_is_3_with_what_to_do(tmp_path: Path) -> None:
    done = cli("events", "list", cwd=tmp_path)
    assert done.returncode == 3
    assert f"error: no eventcore.toml in {tmp_path}" in done.stderr
    assert "eventcore init" in done.stderr
    assert error(cli("runs", "list", "--home", "nowhere", "--json", cwd=tmp_path), 3)["code"] == "home_error"


def test_broken_settings_are_3_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").write_text("[plugins]\nenabeld = []\n")
    done = cli("plugins", "list", cwd=tmp_path)
    assert done.returncode == 3
    assert "eventcore.toml:2" in done.stderr
    assert "'enabled'" in done.stderr


def test_the_home_is_found_by_option_environment_and_folder(running: Path, tmp_path: Path) -> None:
    (running / "hooks/deep").mkdir(exist_ok=True)
    ways = [
        cli("--home", str(running), "hooks", "list", "--json", cwd=tmp_path),
        cli("hooks", "list", "--json", "--home", str(running), cwd=tmp_path),
        cli("hooks", "list", "--json", cwd=tmp_path, env={"EVENTCORE_HOME": str(running)}),
        cli("hooks", "list", "--json", cwd=running / "hooks/deep"),
    ]
    assert [len(ok(way)["hooks"]) > 0 for way in ways] == [True] * 4


# -- usage -------------------------------------------------------------------------------------------------------------


def test_mistyped_commands_name_the_nearest(tmp_path: Path) -> None:
    first = cli("plugin", cwd=tmp_path)
    second = cli("plugins", "enabel", "x", cwd=tmp_path)
    assert (first.returncode, second.returncode) == (2, 2)
    assert "did you mean 'plugins'?" in first.stderr
    assert "did you mean 'enable'?" in second.stderr


@pytest.mark.parametrize("bad", ["{id: 1}", "[1]"])
def test_json_that_is_none_is_2(tmp_path: Path, bad: str) -> None:
    done = cli("run", "x", "--params", bad, cwd=tmp_path)
    assert done.returncode == 2
    assert "'{\"id\": 1}'" in done.stderr


# -- plugins -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("I1")
def test_plugins_list(running: Path) -> None:
    listed = cli("plugins", "list", cwd=running)
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert lines["PLUGIN"].split() == ["PLUGIN", "VERSION", "STATE", "CATEGORY", "INTENTS", "DESCRIPTION"]
    assert lines["hello-world"].split()[:5] == ["hello-world", "1.0.0", "enabled", "examples", "hello_world"]
    assert "module" in lines["broken"]
    assert "failed" in lines["broken"]

    def names(*conditions: str) -> list[str]:
        return [row["slug"] for row in ok(cli("plugins", "list", "--json", *conditions, cwd=running))]

    assert names("--status", "failed") == ["broken"]
    assert "broken" in names("--status", "enabled,failed")
    assert "time-query" in names("--status", "discovered", "--type", "core")
    assert names("--category", "core") == ["meta", "time-query"]
    assert names("--tags", "example,arithmetic") == ["basic-calculator"]


def test_plugins_without_their_grants_are_refused_and_enabled_with_them(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").touch()
    refused = cli("plugins", "enable", "greeter", cwd=tmp_path)
    assert refused.returncode == 2
    hint = refused.stderr.splitlines()[1].split("try: eventcore ")[1]
    assert ok(cli(*hint.split(), "--json", cwd=tmp_path))["state"] == "enabled"
    shown = cli("plugins", "info", "greeter", cwd=tmp_path).stdout
    assert re.search("^granted +chat_access$", shown, re.MULTILINE)
    assert ok(cli("plugins", "disable", "greeter", "--json", cwd=tmp_path))["state"] == "disabled"


def test_plugins_enable_and_disable_act_on_the_running_engine(running: Path) -> None:
    assert cli("plugins", "disable", "hello-world", cwd=running).stdout == "hello-world is disabled\n"
    called = error(cli("run", "hello_world", "--json", cwd=running), 1)
    assert "disabled" in called["message"]
    assert ok(cli("plugins", "enable", "hello-world", "--json", cwd=running))["state"] == "enabled"
    assert "Hello" in cli("run", "hello_world", cwd=running).stdout


def test_plugins_validate_needs_no_home(tmp_path: Path) -> None:
    good, bad = tmp_path / "all/good", tmp_path / "all/bad"
    for folder, manifest in ((good, '{"name": "good", "version": "1.0.0", "module": "handler"}'), (bad, '{"name": 1}')):
        folder.mkdir(parents=True)
        (folder / "plugin_manifest.json").write_text(manifest)
    (good / "handler.py").touch()
    assert ok(cli("plugins", "validate", "--json", cwd=good))["plugins"][0]["manifest"]["slug"] == "good"
    done = cli("plugins", "validate", "all", cwd=tmp_path)
    assert done.returncode == 1
    assert "ok    good" in done.stdout
    assert "all/bad/plugin_manifest.json:1 " in done.stdout
    assert done.stdout.splitlines()[-1] == "2 plugins checked, 1 with errors"


# -- hooks, events, runs -----------------------------------------------------------------------------------------------


def test_hooks_list_names_handlers_in_order_and_commands(running: Path) -> None:
    text = cli("hooks", "list", cwd=running).stdout
    assert text.index("1. gate    guard.on_message") < text.index("greeter.on_message")
    assert "/greet NAME" in text


def test_run_prints_the_result_and_fails_with_1(running: Path) -> None:
    called = ok(cli("run", "calculate", "--params", '{"expression": "6*7"}', "--json", cwd=running))
    assert (called["result"]["result"], called["plugin"]) == (42, "basic-calculator")
    assert cli("run", "calculate", "--params", '{"expression": "1/0"}', cwd=running).returncode == 1
    denied = error(cli("run", "calculate", "--user", "bob", "--role", "guest", "--json", cwd=running), 1)
    assert denied["code"] == "access_denied"
    near = cli("run", "hello_wrld", cwd=running)
    assert near.returncode == 1
    assert "did you mean 'hello_world'?" in near.stderr


@pytest.mark.req("A10")
def test_history_is_found_and_explained_after_a_restart(home: Path) -> None:
    # Each command opens and closes the home: there is a restart between all of them.
    emitted = ok(cli("emit", "text_came_in", '{"text": "an invoice came"}', "--json", cwd=home))
    assert emitted["runs"] == {"started": 1, "completed": 1, "failed": 0}
    assert cli("emit", "data_processed", '{"what": "invoice 7"}', cwd=home).returncode == 0
    assert cli("emit", "data_processed", '{"what": "other"}', cwd=home).returncode == 0
    found = ok(
        cli("events", "list", "--type", "data_processed", "--since", "1h", "--text", "invoice", "--json", cwd=home)
    )
    assert [event["data"] for event in found] == [{"what": "invoice 7"}]
    tree = cli("events", "show", emitted["id"], cwd=home).stdout.splitlines()[-5:]
    assert [re.sub(r"^ *\d+ (\W*\w+).*", r"\1", line) for line in tree] == [
        "text_came_in",
        "└─ workflow_started",
        "   ├─ step_started",
        "   │  └─ step_completed",
        "   └─ workflow_completed",
    ]
    by_position = ok(cli("events", "show", str(emitted["position"]), "--json", cwd=home))
    assert by_position["event"]["id"] == emitted["id"]


def test_looking_leaves_no_trace(home: Path) -> None:
    cli("emit", "seen_before", cwd=home)
    before = ok(cli("events", "list", "--limit", "1", "--json", cwd=home))
    for command in (("plugins", "list"), ("hooks", "list")):
        assert cli(*command, cwd=home).returncode == 0
    assert ok(cli("events", "list", "--limit", "1", "--json", cwd=home)) == before


def test_workflows_start_waits_and_shows_the_run(running: Path) -> None:
    text = '{"text": "one two three"}'
    run = ok(cli("workflows", "start", "count_words", "--inputs", text, "--key", "k1", "--json", cwd=running))
    assert (run["status"], run["output"], run["steps"][0]["output"]["words"]) == ("completed", {"words": 3}, 3)
    again = cli("workflows", "start", "count_words", "--inputs", text, "--key", "k1", "--no-wait", cwd=running)
    assert run["id"] in again.stdout
    shown = cli("runs", "show", run["id"], cwd=running).stdout
    assert shown.startswith("count_words  completed")
    assert "measure  text_processor  completed" in shown
    listed = ok(cli("runs", "list", "--slug", "count_words", "--status", "completed", "--json", cwd=running))
    assert run["id"] in [row["id"] for row in listed]


def test_workflow_errors_say_what_to_do(running: Path) -> None:
    unknown = error(cli("workflows", "start", "count_wrods", "--json", cwd=running), 1)
    assert "did you mean 'count_words'?" in unknown["message"]
    bad = cli("workflows", "start", "count_words", "--inputs", '{"txt": 1}', cwd=running)
    assert bad.returncode == 2
    assert "text" in bad.stderr
    assert error(cli("runs", "list", "--status", "donne", "--json", cwd=running), 2)["hint"].startswith("statuses:")
    assert error(cli("runs", "show", "nope", "--json", cwd=running), 1)["code"] == "not_found"


def test_a_run_that_nobody_waits_for_goes_on_the_next_time(home: Path) -> None:
    begun = ok(cli("workflows", "start", "count_words", "--inputs", '{"text": "a b"}', "--no-wait", "--json", cwd=home))
    assert ok(cli("runs", "show", begun["run"], "--json", cwd=home))["status"] == "running"
    cli("emit", "wakes_the_engine", cwd=home)
    run = ok(cli("runs", "show", begun["run"], "--json", cwd=home))
    assert (run["status"], run["output"]) == ("completed", {"words": 2})


def test_workflows_list_show_and_validate(running: Path, tmp_path: Path) -> None:
    assert [row["slug"] for row in ok(cli("workflows", "list", "--json", cwd=running))] == ["count_words"]
    assert "op: count" in cli("workflows", "show", "count_words", cwd=running).stdout
    assert ok(cli("workflows", "validate", "--json", cwd=running))["valid"]
    (tmp_path / "bad.yaml").write_text("slug: bad\nsteps:\n  - id: a\n    pluggin: x\n")
    done = cli("workflows", "validate", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "bad.yaml:4" in done.stdout


# -- following ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["home", "running"])
def test_tail_follows_and_ends_cleanly(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    cli("emit", "thing_seen", '{"n": 1}', cwd=folder)
    command = [sys.executable, "-m", "eventcore", "events", "tail", "thing_*", "--past", "1", "--json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert json.loads(tail.stdout.readline())["data"] == {"n": 1}
        # With no engine on the home, this goes through the one that `tail` opened.
        assert cli("emit", "thing_seen", '{"n": 2}', cwd=folder).returncode == 0
        assert json.loads(tail.stdout.readline())["data"] == {"n": 2}
        tail.send_signal(signal.SIGINT)
        assert tail.stdout.read() == ""
        assert tail.stderr.read() == ""
        assert tail.wait(60) == 0
