"""A10 to A13: the history found, counted, followed, kept in bounds, and carried elsewhere."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.conftest import HomeFolder, QuickHome


@pytest.fixture
def home(quick: QuickHome) -> QuickHome:
    """What is asked here is what commands do, not how their process starts."""
    return quick


CLOUDEVENT = {
    "specversion": "1.0",
    "id": "a1",
    "source": "/shop",
    "type": "com.Shop.Order",
    "time": "2026-01-31T12:00:00Z",
    "data": {"amount": 7, "text": "an invoice"},
    "custom": "kept",
}

WORKFLOW = """
slug: book
triggers:
  - event: data_processed
    with: {what: "{{ event.data.what }}"}
steps:
  - {id: note, emit: booked, with: {what: "{{ inputs.what }}"}}
"""


@pytest.mark.req("A10")
def test_history_is_searched_by_every_axis_after_a_restart(home: HomeFolder) -> None:
    home.write("workflows/book.yaml", WORKFLOW)
    cause = home.json("emit", "data_processed", '{"what": "invoice 17", "n": 3}', "--subject", "doc/1")
    home.json("emit", "data_processed", '{"what": "receipt 3", "n": 4}', "--source", "/plugins/scanner")

    def found(*conditions: str) -> list[str]:
        # Each command opens and closes an engine of its own: everything here is after a restart.
        return [event["type"] for event in home.json("events", "list", *conditions)]

    [event] = home.json("events", "list", "--type", "data_processed", "--since", "1h", "--text", "invoice")
    assert event["id"] == cause["id"]
    [started] = home.json("events", "list", "--type", "workflow_started", "--text", "invoice")
    assert found("--type", "data_*", "--source", "/plugins/scanner") == ["data_processed"]
    assert found("--subject", "doc/1") == ["data_processed"]
    assert "step_completed" in found("--run", started["id"])
    assert {"data_processed", "workflow_started", "booked"} <= {*found("--correlation", cause["id"])}
    assert found("--where", "data.n=3") == ["data_processed"]
    assert found("--where", "data.what=receipt 3", "--type", "booked") == ["booked"]
    assert found("--actor", "operator", "--where", "data.n=4") == ["data_processed"]
    assert found("--type", "data_processed", "--until", "2020-01-01") == []

    lines = home.run("events", "show", cause["id"]).stdout.splitlines()
    effects = ["data_processed", "workflow_started", "step_started", "booked"]
    columns = [next(line.index(name) for line in lines if name in line) for name in effects]
    assert columns == sorted(set(columns)), "each effect stands deeper than its cause"


def test_counts_are_a_table_and_json(home: HomeFolder) -> None:
    """The command line's half of A11."""
    home.run("emit", "order_created", "--from", "-", stdin='{"status":"ok"}\n{"status":"ok"}\n{"status":"bad"}\n')
    shown = home.run("events", "list", "--count-by", "type", "--every", "1h", "--type", "order_*")
    header, row = shown.stdout.splitlines()
    assert header.split() == ["FROM", "TYPE", "COUNT", "PER", "SECOND"]
    assert row.split()[2:] == ["order_created", "3", "0.000833"]
    counted = home.json("events", "list", "--count-by", "status", "--type", "order_*")
    assert counted == [{"status": "ok", "count": 2}, {"status": "bad", "count": 1}]
    assert home.run("events", "list", "--every", "1h").returncode == 2


def test_finished_runs_are_pruned_with_their_journals(home: HomeFolder) -> None:
    home.write("workflows/one.yaml", "slug: one\nsteps:\n  - {id: say, emit: said}\n")
    started = home.json("workflows", "start", "one")
    assert home.json("runs", "prune", "--older-than", "1d") == {"runs": 0, "entries": 0, "dry_run": False}
    assert home.run("runs", "prune", "--older-than", "0s", "--dry-run").stdout == "1 run would be removed\n"
    assert home.json("runs", "show", started["id"])["steps"]
    assert home.run("runs", "prune", "--older-than", "0s").stdout == "1 run removed, with 2 journal entries\n"
    assert home.run("runs", "show", started["id"]).returncode != 0
    assert home.json("runs", "list") == []
    assert home.json("events", "list", "--type", "step_*") == []
    assert [event["type"] for event in home.json("events", "list", "--type", "said")] == ["said"]


def test_tail_goes_on_over_a_restart(home: HomeFolder) -> None:
    """The first half of A12."""
    home.run("emit", "tick", "--from", "-", stdin='{"n":1}\n{"n":2}\n{"n":3}\n')
    first = home.run("events", "tail", "tick", "--after", "0", "--count", "2", "--json")
    events = [json.loads(line) for line in first.stdout.splitlines()]
    assert [event["data"]["n"] for event in events] == [1, 2]
    rest = home.run("events", "tail", "tick", "--after", str(events[-1]["position"]), "--count", "1", "--json")
    assert json.loads(rest.stdout)["data"]["n"] == 3


@pytest.mark.req("A13")
def test_retention_and_carrying_history_into_an_empty_home(make_home: Callable[[str], HomeFolder]) -> None:
    home = make_home("[history]\nkeep = 3600\nmax_size = 10000000\nkeep_types = ['order_*']\n")
    home.write("workflows/book.yaml", WORKFLOW)
    home.json("emit", "data_processed", '{"what": "invoice 17"}')
    emitted = home.run("emit", "--from", "-", "--format", "cloudevents", stdin=json.dumps(CLOUDEVENT))
    assert emitted.returncode == 0, emitted.stderr

    day = home.run("events", "export", "--since", "365d")
    bodies = [json.loads(line) for line in day.stdout.splitlines()]
    assert {body["specversion"] for body in bodies} == {"1.0"}
    assert CLOUDEVENT.items() <= next(body for body in bodies if body["id"] == "a1").items()
    assert any(body["type"] == "step_completed" for body in bodies)
    home.write("day.ndjson", day.stdout)

    other = home.root.parent / "other"
    other.mkdir()
    empty = HomeFolder(other)
    empty.settings("")
    empty.write("workflows/book.yaml", WORKFLOW)
    done = empty.json("events", "import", str(home.root / "day.ndjson"))
    assert done == {"imported": len(bodies), "duplicates": 0, "errors": []}
    assert empty.json("events", "import", str(home.root / "day.ndjson"))["duplicates"] == len(bodies)
    assert empty.json("runs", "list") == [], "history only: nothing starts"
    back = empty.run("events", "export")
    assert [json.loads(line) for line in back.stdout.splitlines()] == [{**body, "imported": True} for body in bodies]

    steps = len([body for body in bodies if body["type"].startswith("step_")])
    dry = home.json("events", "prune", "--older-than", "0s", "--type", "step_*", "--dry-run")
    assert dry == {"events": 0, "steps": steps, "dry_run": True}
    assert home.json("events", "prune", "--older-than", "30d", "--type", "step_*")["steps"] == 0
    assert home.json("events", "prune", "--older-than", "0s", "--type", "step_*")["steps"] == steps
    assert home.json("events", "list", "--type", "step_*") == []
    [run] = home.json("runs", "list")
    assert [step["status"] for step in home.json("runs", "show", run["id"])["steps"]] == ["completed"]


def test_an_import_reports_bad_lines_and_goes_on(home: HomeFolder) -> None:
    lines = f"{json.dumps(CLOUDEVENT)}\n\nnot json\n{{}}\n{json.dumps({**CLOUDEVENT, 'id': 'a2'})}\n"
    done = home.run("events", "import", "-", stdin=lines)
    assert done.returncode == 1
    assert "2 events imported" in done.stdout
    assert "line 3: not JSON" in done.stderr
    assert "line 4: specversion" in done.stderr


@pytest.mark.parametrize(
    ("words", "stdin", "code", "said"),
    [
        (["emit", "--from", "-", "--format", "cloudevents"], '{"a":1}\n', 1, "no CloudEvent"),
        (["emit", "--from", "-"], "plain\n", 1, "no TYPE"),
        (["emit", "tick", "--from", "-", "--format", "lines"], json.dumps(CLOUDEVENT), 0, "1 event recorded"),
        (["emit", "--from", "-", "--format", "lines"], "", 2, "TYPE"),
        (["emit", "tick", "--format", "auto"], "", 2, "--from"),
        (["emit"], "", 2, "TYPE"),
        (["emit", "tick", "--from", "-"], json.dumps([CLOUDEVENT, {**CLOUDEVENT, "id": "b"}]), 0, "2 events recorded"),
    ],
)
def test_lines_of_cloudevents(home: HomeFolder, words: list[str], stdin: str, code: int, said: str) -> None:
    done = home.run(*words, stdin=stdin)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_explain_on_the_command_line(home: HomeFolder) -> None:
    home.write(
        "workflows/book.yaml",
        WORKFLOW.replace("event: data_processed", "event: data_processed\n    if: event.data.n > 5"),
    )
    small = home.json("emit", "data_processed", '{"what": "x", "n": 1}')
    big = home.json("emit", "data_processed", '{"what": "x", "n": 9}')
    assert "did not start: if {{ event.data.n > 5 }} is false" in home.run("events", "explain", small["id"]).stdout
    assert "started run" in home.run("events", "explain", str(big["position"])).stdout


def test_a_backup_of_a_live_home_is_restored_into_an_empty_one(home: HomeFolder, tmp_path: Path) -> None:
    tail = subprocess.Popen(
        [sys.executable, "-m", "eventcore", "events", "tail", "tick", "--json"],
        cwd=home.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        receipt = home.json("emit", "tick", '{"n": 1}')
        backup = str(tmp_path / "monday.db")
        done = home.json("backup", backup)
        assert done["position"] >= receipt["position"]
        assert home.run("backup", backup).returncode == 3, "a backup never overwrites"
    finally:
        tail.kill()
        tail.communicate(timeout=60)

    other = HomeFolder(tmp_path / "other")
    other.root.mkdir()
    other.settings("")
    assert other.json("events", "list") == []  # looking makes an empty database
    assert other.run("restore", str(tmp_path / "none.db")).returncode == 3
    assert other.run("restore", backup).returncode == 0
    [event] = other.json("events", "list", "--type", "tick")
    assert event["id"] == receipt["id"]
    again = other.run("restore", backup)
    assert again.returncode == 3
    assert "holds events already" in again.stderr


def test_a_newer_or_damaged_backup_is_refused(home: HomeFolder, tmp_path: Path) -> None:
    backup = tmp_path / "b.db"
    home.json("emit", "tick")
    home.json("backup", str(backup))
    other = HomeFolder(tmp_path / "other")
    other.root.mkdir()
    other.settings("")
    whole = backup.read_bytes()
    with closing(sqlite3.connect(backup)) as connection:
        connection.execute("PRAGMA user_version=999")
    newer = other.run("restore", str(backup))
    assert (newer.returncode, "version 999" in newer.stderr) == (3, True), newer.stderr
    backup.write_bytes(whole[:5000] + b"\xff" * 20_000 + whole[25_000:])
    for left in tmp_path.glob("b.db-*"):
        left.unlink()
    damaged = other.run("restore", str(backup))
    assert (damaged.returncode, "damaged" in damaged.stderr) == (3, True), damaged.stderr
    assert not (other.root / ".eventcore" / "eventcore.db").exists()
