"""`eventcore emit --from` and `eventcore chat`: what is piped in, line by line."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# The homes, the engine and `cli` are those of the other file: one set-up, described there.
_spec = importlib.util.spec_from_file_location("cli_support", Path(__file__).with_name("test_cli.py"))
assert _spec is not None
assert _spec.loader is not None
_support = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_support)
cli, ok, home, running = _support.cli, _support.ok, _support.home, _support.running

TRANSCRIPT = """
# a comment, and an empty line above
hello
how many words is this?

/greet Bob
my secret
/grete Bob
"""


def recorded(folder: Path, type: str) -> list[Any]:
    events = ok(cli("events", "list", "--type", type, "--limit", "1000", "--json", cwd=folder))
    return [event["data"] for event in events]


# -- emit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["home", "running"])
def test_lines_and_ndjson(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    lines = 'plain words\n\n{"n": 1, "deep": {"a": [null, "\\u00e9"]}}\n   \n[1, 2]\n{broken\nlast, without an end'
    done = cli("emit", "line_read", "--from", "-", cwd=folder, stdin=lines)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("5 events recorded, in ")
    assert recorded(folder, "line_read") == [
        {"text": "plain words"},
        {"n": 1, "deep": {"a": [None, "é"]}},
        {"text": "[1, 2]"},
        {"text": "{broken"},
        {"text": "last, without an end"},
    ]


def test_many_lines_keep_their_order_and_start_runs(running: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("".join(f"line {number}\n" for number in range(200)))
    summary = ok(cli("emit", "text_came_in", "--from", str(tmp_path / "lines"), "--json", cwd=running))
    assert (summary["emitted"], summary["failed"], summary["settled"]) == (200, 0, True)
    assert summary["runs"] == {"started": 200, "completed": 200, "failed": 0}
    assert [data["text"] for data in recorded(running, "text_came_in")] == [f"line {number}" for number in range(200)]


def test_refused_lines_are_named_and_the_rest_goes_on(running: Path) -> None:
    long = '{"x": "' + "a" * 300_000 + '"}'
    lines = f'{{"a": 1}}\n{{"a": NaN}}\n{long}\n{"b" * 3_000_000}\nlast\n'
    done = cli("emit", "bad_lines", "--from", "-", cwd=running, stdin=lines)
    assert done.returncode == 1
    assert sorted(line.split(":")[0] for line in done.stderr.splitlines()) == ["line 2", "line 3", "line 4"]
    assert done.stdout.startswith("2 events recorded, 3 failed, in ")
    assert recorded(running, "bad_lines") == [{"a": 1}, {"text": "last"}]


@pytest.mark.parametrize("which", ["home", "running"])
def test_strict_stops_at_the_first_refused_line(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    lines = '{"a": 1}\n{"a": NaN}\n' + "later\n" * 50
    done = cli("emit", "strict_lines", "--from", "-", "--strict", "--json", cwd=folder, stdin=lines)
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["emitted"], summary["failed"], summary["errors"][0]["line"]) == (1, 1, 2)
    assert recorded(folder, "strict_lines") == [{"a": 1}]


def test_bytes_that_are_no_text_are_kept_as_far_as_they_can_be(running: Path) -> None:
    assert cli("emit", "odd_bytes", "--from", "-", cwd=running, stdin=b"caf\xe9\r\n\x1b[31m\n").returncode == 0
    assert recorded(running, "odd_bytes") == [{"text": "caf\ufffd"}, {"text": "\x1b[31m"}]
    shown = cli("events", "list", "--type", "odd_bytes", cwd=running).stdout
    assert "\x1b" not in shown


def test_one_event_with_a_key_is_recorded_once(running: Path) -> None:
    command = ("emit", "paid", '{"n": 1}', "--idempotency-key", "k", "--json")
    first, second = ok(cli(*command, cwd=running)), ok(cli(*command, cwd=running))
    assert (first["duplicate"], second["duplicate"], first["id"] == second["id"]) == (False, True, True)


def test_emit_refuses_what_makes_no_sense(running: Path) -> None:
    both = cli("emit", "x_y", "{}", "--from", "-", cwd=running)
    missing = cli("emit", "x_y", "--from", "/no/such/file", cwd=running)
    name = cli("emit", "Bad Name", cwd=running)
    core = cli("emit", "workflow_started", cwd=running)
    assert [done.returncode for done in (both, missing, name)] == [2, 2, 2]
    assert "cannot read /no/such/file" in missing.stderr
    assert "snake_case" in name.stderr
    assert core.returncode != 0


# -- chat --------------------------------------------------------------------------------------------------------------


def test_a_piped_transcript(home: Path) -> None:
    done = cli("chat", "--wait", "100", cwd=home, stdin=TRANSCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    said = [line for line in lines if line.startswith("> ")]
    assert said == ["> hello", "> how many words is this?", "> /greet Bob", "> my secret", "> /grete Bob"]
    assert "  greeter: Hello, ada! Nice to see you." in lines
    assert "  greeter: Hello, Bob!" in lines
    assert "  denied by guard.on_message: no secrets here" in lines
    assert "  error: there is no command /grete; did you mean '/greet'?" in lines
    question = lines[lines.index(said[1]) + 1 : lines.index(said[2])]
    timeline = [line.split(maxsplit=1)[1].split("  ")[:2] for line in question if "hook_completed" not in line]
    assert timeline == [
        ["workflow_started", "count_words"],
        ["step_started", "measure"],
        ["step_completed", "measure"],
        ["workflow_completed", "count_words"],
    ]
    assert lines[-2] == "5 messages, 2 replies, 1 denied, 1 error"
    assert lines[-1].startswith("runs: 1 started, 1 completed, 0 failed; ")


def test_chat_as_json(running: Path) -> None:
    done = cli("chat", "--json", "--wait", "100", "--user", "eve", cwd=running, stdin=TRANSCRIPT)
    assert done.returncode == 0, done.stderr
    *messages, last = map(json.loads, done.stdout.splitlines())
    assert [one["text"] for one in messages][:2] == ["hello", "how many words is this?"]
    assert messages[0]["replies"][0]["by"] == "greeter"
    assert "workflow_completed" in [event["type"] for event in messages[1]["events"]]
    assert (messages[3]["denied"], messages[3]["reason"]) == (True, "no secrets here")
    assert messages[4]["error"]["code"] == "not_found"
    counts = {name: last["summary"][name] for name in ("messages", "denied", "replies", "errors")}
    assert counts == {"messages": 5, "denied": 1, "replies": 2, "errors": 1}


def test_quit_ends_and_help_lists_commands(running: Path) -> None:
    done = cli("chat", cwd=running, stdin="/help\n/quit\nhello\n")
    assert "/greet NAME" in done.stdout
    assert done.stdout.splitlines()[-2] == "0 messages, 0 replies"


def test_chat_on_a_terminal(running: Path) -> None:
    master, slave = pty.openpty()
    environ = {**os.environ, "USER": "ada", "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-m", "eventcore", "chat"]
    with subprocess.Popen(command, cwd=running, stdin=slave, stdout=slave, stderr=slave, env=environ) as chat:
        os.close(slave)
        screen = _Screen(master)
        screen.until("ada> ")
        os.write(master, b"hello\n")
        screen.until("Hello, ada! Nice to see you.")
        screen.until("ada> ")
        os.write(master, b"\x04")
        screen.until("1 message, 1 reply")
        assert chat.wait(60) == 0
    os.close(master)
    assert "\x1b[" in screen.text


class _Screen:
    """What a program prints on a terminal."""

    def __init__(self, fd: int) -> None:
        self.fd, self.text, self._read = fd, "", 0

    def until(self, word: str) -> None:
        give_up = time.monotonic() + 60
        while (found := self.text.find(word, self._read)) < 0:
            assert select.select([self.fd], [], [], max(0, give_up - time.monotonic()))[0], self.text
            self.text += os.read(self.fd, 65536).decode(errors="replace")
        self._read = found + len(word)


# -- interrupted -------------------------------------------------------------------------------------------------------


def test_an_interrupted_emit_is_130_and_keeps_what_it_recorded(running: Path) -> None:
    command = [sys.executable, "-m", "eventcore", "emit", "slow_line", "--from", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=running, stdin=pipe, stdout=pipe, stderr=pipe) as emit:
        assert emit.stdin is not None
        assert emit.stderr is not None
        emit.stdin.write(b"one\n")
        emit.stdin.flush()
        tail = cli("events", "tail", "slow_line", "--past", "1", "--count", "1", "--json", cwd=running)
        assert json.loads(tail.stdout)["data"] == {"text": "one"}
        emit.send_signal(signal.SIGINT)
        assert emit.wait(60) == 130
        assert emit.stderr.read() == b"interrupted\n"
