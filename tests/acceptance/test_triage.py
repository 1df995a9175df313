"""The shipped workflow `triage_message` and what it calls, as a user has them."""

from __future__ import annotations

import re

import pytest

from eventcore.testing.endpoint import StubEndpoint
from tests.acceptance.conftest import HomeFolder, QuickHome

TRIAGE = """
[plugins]
enabled = ["text-classifier", "basic-calculator", "time-query"]
[workflows]
enabled = ["triage_message", "answer_question"]
"""


@pytest.mark.req("A1")
def test_every_run_and_step_tells_how_it_began_and_ended(home: HomeFolder) -> None:
    home.settings(TRIAGE)
    assert home.run("workflows", "start", "triage_message").returncode == 0
    told = home.json("events", "list", "--type", "workflow_*")
    mine = [event for event in told if event["data"]["slug"] == "triage_message"]
    assert [event["type"] for event in mine] == ["workflow_queued", "workflow_started", "workflow_completed"]
    mine = mine[1:]  # the first is because it has a limit
    assert mine[0]["position"] < mine[1]["position"]
    assert mine[1]["data"]["status"] == "completed"
    assert re.fullmatch(r"\d\d:\d\d", mine[1]["data"]["output"]["answer"]), "its own message asks for the time"
    runs = {event["data"]["slug"]: event["data"]["run"] for event in told}
    assert runs.keys() == {"triage_message", "answer_question"}
    assert all(event["run"] == event["data"]["run"] == runs[event["data"]["slug"]] for event in told)

    steps = home.json("events", "list", "--type", "step_*")
    classified = [event for event in steps if event["data"]["step"] == "classify"]
    assert [event["type"] for event in classified] == ["step_started", "step_completed"]
    assert {event["data"]["plugin"] for event in classified} == {"classify_text"}
    assert classified[1]["data"]["status"] == "completed"
    assert classified[1]["data"]["output"]["label"] == "question"

    # The other ways: a step that fails and is tried again, a run that fails, one that is cancelled.
    home.write(
        "workflows/odd.yaml",
        "slug: odd\nsteps:\n  - {id: a, plugin: calculate, with: {expression: '1/'}, retry: {attempts: 2}}\n",
    )
    home.write("workflows/slow.yaml", "slug: slow\nsteps: [{id: a, sleep: 1h}]\n")
    home.run("workflows", "start", "odd")
    home.run("workflows", "start", "slow", "--no-wait")
    [slow] = home.json("runs", "list", "--slug", "slow")
    home.json("runs", "cancel", slow["id"])
    told = home.json("events", "list", "--type", "workflow_*")
    ends = [(one["data"]["slug"], one["type"], one["data"]["status"]) for one in told if "status" in one["data"]]
    assert ends[2:] == [
        ("odd", "workflow_failed", "failed"),
        ("odd", "workflow_completed", "failed"),
        ("slow", "workflow_cancelled", "cancelled"),
        ("slow", "workflow_completed", "cancelled"),
    ]
    odd = [event for event in home.json("events", "list", "--type", "step_*") if event["data"]["slug"] == "odd"]
    kinds = ["step_started", "step_retrying", "step_started", "step_failed", "step_completed"]
    assert [event["type"] for event in odd] == kinds
    assert odd[-1]["data"]["status"] == "failed"


@pytest.mark.req("H1")
def test_a_workflow_is_checked_started_and_looked_at(home: HomeFolder) -> None:
    home.settings(TRIAGE)
    wrong = home.write("workflows/wrong.yaml", "slug: wrong\nsteps:\n  - {id: a, plugin: calculate, wiht: {}}\n")
    checked = home.run("workflows", "validate", str(wrong))
    assert checked.returncode == 1
    assert "wrong.yaml:3" in checked.stdout
    assert "did you mean 'with'" in checked.stdout
    wrong.unlink()

    started = home.run("workflows", "start", "triage_message", "--inputs", '{"text": "What time is it in Asia/Tokyo?"}')
    assert started.returncode == 0, started.stderr
    [run] = home.json("runs", "list", "--slug", "triage_message")
    shown = home.json("runs", "show", run["id"])
    steps = {step["step"]: step for step in shown["steps"]}
    assert steps["classify"]["input"] == {"text": "What time is it in Asia/Tokyo?"}
    assert steps["classify"]["output"]["label"] == "question"
    assert steps["answer"]["workflow"] == "answer_question"
    assert steps["answer"]["output"]["answer"].count(":") == 1
    assert shown["output"]["answer"] == steps["answer"]["output"]["answer"]
    printed = home.run("runs", "show", run["id"]).stdout
    assert "classify" in printed
    assert "Asia/Tokyo" in printed


def test_a_chat_message_is_triaged_in_its_own_commit(home: HomeFolder) -> None:
    home.settings(TRIAGE)
    assert home.run("chat", stdin="the printer is broken\n").returncode == 0
    [triaged] = home.json("events", "list", "--type", "message_triaged")
    assert (triaged["data"]["label"], triaged["data"]["answer"]) == ("problem", None)


@pytest.mark.req("G32")
def test_a_list_of_three_steps_runs_offline_and_starts_the_follow_up_once(home: HomeFolder) -> None:
    home.settings(
        """
[plugins]
enabled = ["autonomous-task-handler", "basic-calculator", "text-processor"]
[plugins.grants]
autonomous-task-handler = ["plugin_communication"]
"""
    )
    steps = """{"steps": [
        {"intent": "calculate", "params": {"expression": "6*7"}},
        {"intent": "text_processor", "params": {"op": "case", "to": "upper", "text": "done"}},
        {"intent": "text_processor", "params": {"op": "count", "text": "$2.text"}}]}"""
    report = home.json("run", "autonomous_task", "--params", steps)["result"]
    assert report["success"] is True
    assert [(one["intent"], one["status"]) for one in report["steps"]] == [
        ("calculate", "done"),
        ("text_processor", "done"),
        ("text_processor", "done"),
    ]
    assert report["steps"][0]["result"]["result"] == 42
    [followed] = home.json("events", "list", "--type", "task_followed_up")
    assert followed["data"]["summary"] == "3 of 3 steps done"
    [run] = home.json("runs", "list", "--slug", "autonomous_task_followup")
    assert run["status"] == "completed"

    failed = home.run(
        "run", "autonomous_task", "--params", '{"steps": [{"intent": "calculate", "params": {"expression": "1/"}}]}'
    )
    assert failed.returncode != 0
    assert len(home.json("runs", "list", "--slug", "autonomous_task_followup")) == 1


def test_a_goal_that_no_rule_knows_is_planned_by_the_configured_endpoint(
    quick: QuickHome, stub_endpoint: StubEndpoint
) -> None:
    local = stub_endpoint.url.removeprefix("http://")
    quick.settings(
        f"""
[plugins]
enabled = ["autonomous-task-handler", "basic-calculator"]
[plugins.grants]
autonomous-task-handler = ["plugin_communication", "network_access"]
[plugins.scopes.autonomous-task-handler]
local = ["{local}"]
[plugins.settings.autonomous-task-handler]
endpoint = "{stub_endpoint.url}/v1"
model = "small"
"""
    )
    steps = '{"steps": [{"intent": "calculate", "params": {"expression": "40+2"}}]}'
    stub_endpoint.answer("/v1/chat/completions", {"choices": [{"message": {"content": f"Sure: {steps}"}}]})
    report = quick.json("run", "autonomous_task", "--params", '{"goal": "find the answer to everything"}')["result"]
    assert (report["planned_by"], report["steps"][0]["result"]["result"]) == ("model", 42)
    [asked] = stub_endpoint.asked
    assert asked.json()["model"] == "small"
    assert "find the answer to everything" in asked.json()["messages"][0]["content"]

    stub_endpoint.answer("/v1/chat/completions", {"error": "overloaded"}, status=503)
    failed = quick.run("run", "autonomous_task", "--params", '{"goal": "find the answer to everything"}', "--json")
    assert failed.returncode == 1
    assert "the endpoint gave no plan" in failed.stdout + failed.stderr
