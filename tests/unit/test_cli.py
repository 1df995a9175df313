"""The command line's shape: what is imported when, what help says, what the reference page says, what is printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from eventcore.cli import output
from eventcore.cli.base import JsonText
from eventcore.cli.describe import about, seconds_between, walk
from eventcore.cli.emit import MAX_LINE, _data, numbered
from eventcore.cli.failure import report
from eventcore.cli.root import COMMANDS, root
from eventcore.kernel.errors import HomeInUse, InvalidPayload, NotFound, PluginFailed
from eventcore.kernel.names import CORE_EVENTS

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs/cli.md").read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name."""
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


ALL = dict(commands())


# -- start-up ----------------------------------------------------------------------------------------------------------


def imported(*args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "eventcore", *args], capture_output=True, text=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_top_imports_click_and_nothing_heavy(option: str) -> None:
    modules = imported(option)
    assert "click" in modules
    ours = {name for name in modules if name.startswith("eventcore")}
    assert ours == {"eventcore", "eventcore.cli", "eventcore.cli.root", "eventcore.cli.base"}
    assert not {name.partition(".")[0] for name in modules} & {"pydantic", "anyio", "rich", "asyncio", "yaml", "jinja2"}


def test_a_command_without_an_engine_of_its_own_stays_light() -> None:
    modules = imported("events", "list", "--help")
    assert not {name.partition(".")[0] for name in modules} & {"pydantic", "anyio", "rich", "asyncio"}


def test_the_static_table_says_what_the_commands_say() -> None:
    context = click.Context(root)
    for name, (_, line) in COMMANDS.items():
        command = root.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert (command.help or "").split("\n")[0] == line


# -- help and reference ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_json_and_an_example(name: str) -> None:
    command = ALL[name]
    assert "--json" in [option for parameter in command.params for option in parameter.opts]
    assert command.help
    assert re.search(rf"^  .*\beventcore {name}\b", command.epilog or "", re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_a_meaning_or_a_default(name: str) -> None:
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.show_default, parameter.name


@pytest.mark.parametrize("name", ALL)
def test_the_reference_names_every_option_and_no_other(name: str) -> None:
    heading = f"\n## `eventcore {name}`\n"
    assert REFERENCE.count(heading) == 1
    section = REFERENCE.split(heading)[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = {word for row in rows for word in re.findall(r"--[a-z-]+", row)}
    real = {
        option
        for parameter in ALL[name].params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert documented == real


def test_the_reference_has_no_command_that_is_not_there() -> None:
    assert set(re.findall(r"^## `eventcore (.*)`$", REFERENCE, re.MULTILINE)) == set(ALL)


def test_examples_in_help_parse() -> None:
    parsed = 0
    for name, command in ALL.items():
        for line in re.findall(rf"\beventcore {name}\b(.*)$", command.epilog or "", re.MULTILINE):
            words = shlex.split(re.split(r" [|<>] ", line)[0])
            if name.endswith("validate"):
                words = []  # the paths of its examples are not here
            command.make_context(name, words)
            parsed += 1
    assert parsed >= len(ALL)


# -- output ------------------------------------------------------------------------------------------------------------


def test_control_characters_are_escaped() -> None:
    assert output.clean("a\x1b[31m\r\nb\t\x9b\u202e") == "a\\x1b[31m\\r\\nb\\t\\x9b\\u202e"
    assert output.clean("a\nb\x1b", lines=True) == "a\nb\\x1b"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.0 ms"),
        (0.0042, "4.2 ms"),
        (0.281, "281 ms"),
        (0.9999, "1.0 s"),
        (1.34, "1.3 s"),
        (125, "2 min 5 s"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert output.duration(seconds) == text


def test_a_table_in_a_pipe_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "what"), [("a", "x" * 200), ("bcdef", "y\nz")], nothing="none")
    assert capsys.readouterr().out == f"NAME   WHAT\na      {'x' * 200}\nbcdef  y\\nz\n"
    output.table(("name",), [], nothing="none")
    assert capsys.readouterr().err == "none\n"


@pytest.mark.parametrize("type", sorted(CORE_EVENTS))
@pytest.mark.parametrize("data", [{}, {"error": "x", "message": None, "seconds": 1}, None, [1], "text"])
def test_every_event_can_be_described(type: str, data: Any) -> None:
    assert "\n" not in about({"type": type, "data": data})


def test_steps_say_how_long_they_took() -> None:
    start = {"type": "step_started", "time": "2026-01-01T00:00:00.000000Z", "data": {"step": "a", "plugin": "p"}}
    end = {
        "type": "step_completed",
        "time": "2026-01-01T00:00:01.500000Z",
        "data": {"step": "a", "status": "completed"},
    }
    assert about(end, start) == "a  1.5 s"
    assert seconds_between(end, start) is None
    assert [
        (depth, event["type"]) for depth, event, _ in walk({"type": "x", "effects": [{**start, "effects": [end]}]})
    ] == [
        (0, "step_started"),
        (1, "step_completed"),
    ]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("x"), 1),
        (PluginFailed("x"), 1),
        (InvalidPayload("x"), 2),
        (HomeInUse("x"), 3),
        (ValueError("x"), None),
    ],
)
def test_exit_codes(error: Exception, code: int | None) -> None:
    assert report(error, as_json=False) == code


def test_a_failed_plugins_output_comes_before_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    report(PluginFailed("it broke", hint="mend it", output={"stdout": "was at 3\n", "stderr": ""}), as_json=False)
    assert capsys.readouterr().err == "was at 3\nerror: it broke\n  try: mend it\n"


# -- input -------------------------------------------------------------------------------------------------------------


def test_lines_are_read_one_by_one_and_long_ones_dropped(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    long, longer = b"y" * (MAX_LINE - 1) + b"\n", b"x" * (3 * MAX_LINE) + b"\n"
    file.write_bytes(b"a\n" + longer + long + b"last")
    with file.open("rb") as source:
        assert list(numbered(source)) == [(1, b"a\n"), (2, None), (3, long), (4, b"last")]


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b'{"a": 1}\n', {"a": 1}),
        (b'  {"a": 1}  \r\n', {"a": 1}),
        (b"[1]\n", {"text": "[1]"}),
        (b"  indented\n", {"text": "  indented"}),
        (b"{" * 100_000, {"text": "{" * 100_000}),
    ],
)
def test_a_line_is_an_object_or_text(line: bytes, data: Any) -> None:
    assert _data(line) == data


def test_json_parameters_name_what_is_wrong() -> None:
    with pytest.raises(click.BadParameter, match="should be a JSON object"):
        JsonText("object").convert("[1]", None, None)
    assert JsonText().convert("[1]", None, None) == [1]
