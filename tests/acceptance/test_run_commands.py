"""H5, and every command of `workflows`, `runs`, `approvals` and `schedules`, as a user types them."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.acceptance.conftest import HomeFolder, QuickHome

SHOP = """
slug: shop
description: Sells something.
inputs: {type: object, properties: {what: {type: string, default: tea}}}
steps:
  - {id: pick, plugin: pick, with: {what: "{{ inputs.what }}"}}
  - {id: pack, plugin: pack, with: {picked: "{{ steps.pick.output.picked }}"}}
  - {id: tell, emit: shop_sold, with: {what: "{{ steps.pack.output.packed }}"}}
outputs: "{{ steps.pack.output.packed }}"
"""
PICK = """
from pathlib import Path

def run(params):
    with open("picked", "a") as file:
        file.write("x")
    return {"picked": params["what"], "times": len(Path("picked").read_text())}
"""
BROKEN = 'def run(params):\n    raise ValueError("out of boxes")\n'
MENDED = 'def run(params):\n    return {"packed": params["picked"] + " in a box"}\n'


@pytest.mark.req("H5")
def test_a_graph_is_printed_and_a_retry_goes_on_from_the_failed_step(quick: QuickHome) -> None:
    home, typed = quick, HomeFolder(quick.root)  # what the row names is typed; the rest is carried out in this process
    home.settings('[plugins]\nenabled = ["pick", "pack"]\n')
    home.write("workflows/shop.yaml", SHOP)
    home.plugin("pick", PICK, intent="pick")
    home.plugin("pack", BROKEN, intent="pack")

    drawn = typed.run("workflows", "graph", "shop").stdout
    assert [drawn.index(step) for step in ("pick", "pack", "tell")] == sorted(
        drawn.index(step) for step in ("pick", "pack", "tell")
    )
    failed = home.run("workflows", "start", "shop", "--json")
    assert failed.returncode == 1
    run = json.loads(failed.stdout)
    assert (run["error"]["type"], run["error"]["message"]) == ("ValueError", "out of boxes")
    assert "pack" in home.run("runs", "graph", run["id"]).stdout

    home.plugin("pack", MENDED, intent="pack")
    assert typed.run("runs", "retry", run["id"]).returncode == 0
    watched = home.run("runs", "watch", run["id"], "--timeout", "60")
    assert watched.returncode == 0, watched.stderr
    run = home.json("runs", "show", run["id"])
    assert (run["status"], run["output"]) == ("completed", "tea in a box")
    tries = [(step["step"], step["status"]) for step in run["steps"]]
    assert tries == [("pick", "completed"), ("pack", "failed"), ("pack", "completed"), ("tell", "completed")]
    assert run["steps"][0]["output"]["times"] == 1, "a finished step runs once"


NAP = "slug: nap\nsteps: [{id: z, sleep: 1h}]\n"
SIGNALLED = """
slug: told
steps: [{id: w, wait_for: {signal: go}}, {id: t, emit: was_told}]
outputs: "{{ steps.w.output }}"
"""
ASKING = "slug: asks\nsteps: [{id: ok, approve: {message: Ship it?, roles: [boss]}}]\n"
DAILY = """
slug: daily
triggers: [{id: am, cron: '0 9 * * *', timezone: Europe/Berlin}]
steps: [{id: a, emit: day_began}]
"""
TWO = """
slug: two
steps: [{id: a, emit: one_done}, {id: b, emit: two_done, with: {v: 1}}]
outputs: "{{ steps.b.output.v }}"
"""


def begin(quick: QuickHome, text: str) -> str:
    """Write a workflow, start a run of it, and return the run's id."""
    slug = text.split()[1]
    quick.write(f"workflows/{slug}.yaml", text)
    return str(quick.json("workflows", "start", slug, "--no-wait")["run"])


def ok(quick: QuickHome, *words: str) -> Any:
    """Both forms of a command that only looks."""
    done = quick.run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return quick.json(*words)


def test_looking_at_workflows(quick: QuickHome) -> None:
    quick.write("workflows/two.yaml", TWO)
    assert [one["slug"] for one in ok(quick, "workflows", "list")] == ["two"]
    assert ok(quick, "workflows", "show", "two")["definition"]["slug"] == "two"
    assert ok(quick, "workflows", "validate")["valid"]
    assert "steps" in json.loads(quick.run("workflows", "schema").stdout)["properties"]
    assert "a" in ok(quick, "workflows", "graph", "two")["text"]
    assert "flowchart" in quick.run("workflows", "graph", "two", "--format", "mermaid").stdout
    ElementTree.fromstring(quick.run("workflows", "graph", "two", "--format", "svg").stdout)
    missing = quick.run("workflows", "show", "twoo")
    assert missing.returncode == 1
    assert "did you mean 'two'" in missing.stderr


def test_looking_at_runs_and_removing_them(quick: QuickHome) -> None:
    run = begin(quick, TWO)
    assert quick.run("runs", "watch", run, "--timeout", "60").returncode == 0
    assert [one["id"] for one in ok(quick, "runs", "list", "--slug", "two", "--status", "completed")] == [run]
    assert ok(quick, "runs", "show", run)["output"] == 1
    assert "step_completed" in quick.run("runs", "watch", run, "--json").stdout
    assert ok(quick, "runs", "graph", run)["text"].count("\u2714") == 2
    quick.write("workflows/two.yaml", TWO.replace("v: 1", "v: 2"))
    changed = {one["path"]: one["change"] for one in ok(quick, "runs", "diff", run)["changes"]}
    assert changed == {"b": "changed"}
    for definition, output in (("old", 1), ("new", 2)):
        forked = quick.json("runs", "fork", run, "--from", "b", "--definition", definition)["id"]
        assert quick.run("runs", "watch", forked, "--timeout", "60").returncode == 0
        assert quick.json("runs", "show", forked)["output"] == output
    assert quick.json("runs", "prune", "--older-than", "0s", "--dry-run")["runs"] == 3
    assert quick.json("runs", "prune", "--older-than", "0s")["runs"] == 3
    assert quick.json("runs", "list") == []


def test_signal_pause_resume_cancel_and_terminate(quick: QuickHome) -> None:
    run = begin(quick, SIGNALLED)
    assert quick.json("runs", "pause", run, "--reason", "lunch")["status"] == "paused"
    quick.json("runs", "signal", run, "go", "--data", '{"n": 7}')
    assert quick.json("runs", "show", run)["status"] == "paused"
    quick.json("runs", "resume", run)
    assert quick.run("runs", "watch", run, "--timeout", "60").returncode == 0
    assert quick.json("runs", "show", run)["output"] == {"n": 7}
    for verb, status in (("cancel", "cancelled"), ("terminate", "terminated")):
        run = begin(quick, NAP)
        assert quick.json("runs", verb, run, "--reason", "enough")["status"] == status
        assert "enough" in quick.run("runs", "show", run).stdout
        late = quick.run("runs", verb, run, "--json")
        assert late.returncode == 1
        assert "too late" in late.stderr


def test_approvals(quick: QuickHome) -> None:
    yes, no = begin(quick, ASKING), begin(quick, ASKING)
    asked = ok(quick, "approvals", "list")
    assert {(one["run"], one["message"], *one["roles"]) for one in asked} == {
        (yes, "Ship it?", "boss"),
        (no, "Ship it?", "boss"),
    }
    assert quick.run("approvals", "approve", yes).returncode == 0
    assert quick.run("approvals", "deny", no, "--note", "too soon").returncode == 0
    assert quick.run("runs", "watch", yes, "--timeout", "60").returncode == 0
    assert quick.run("runs", "watch", no, "--timeout", "60").returncode == 1
    assert "too soon" in quick.json("runs", "show", no)["error"]["message"]
    assert quick.json("approvals", "list") == []


def test_schedules(quick: QuickHome) -> None:
    quick.write("workflows/daily.yaml", DAILY)
    [row] = ok(quick, "schedules", "list")
    assert (row["id"], row["paused"]) == ("daily/am", False)
    assert quick.run("schedules", "pause", "daily/am").returncode == 0
    [row] = ok(quick, "runs", "list", "--scheduled")
    assert row["paused"]
    assert quick.run("schedules", "pause", "daily/am", "--resume").returncode == 0
    assert quick.json("schedules", "list")[0]["next"] is not None
    assert quick.run("schedules", "run", "daily/am").returncode == 0
    [run] = quick.json("runs", "list", "--slug", "daily")
    assert run["status"] == "completed"
