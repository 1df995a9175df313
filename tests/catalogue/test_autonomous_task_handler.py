"""autonomous-task-handler: planning by rules and by a model, references, failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import pytest

from eventcore.sdk import PluginError


@pytest.fixture
def handler(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("automation/autonomous-task-handler/handler.py")


class Ctx:
    """A context whose intents are functions."""

    def __init__(self, **config: Any) -> None:
        self.config, self.asked = config, list[tuple[str, Any]]()

    async def request(self, intent: str, params: Any, timeout: float) -> Any:
        self.asked.append((intent, params))
        if intent == "boom":
            raise PluginError("boom failed")
        if intent == "calculate":
            return {"success": True, "result": 42}
        return {"success": intent != "no", "message": "told you so", "got": params}


def run(handler: ModuleType, ctx: Any = None, **params: Any) -> Any:
    return anyio.run(handler.run, params, ctx or Ctx())


@pytest.mark.parametrize(
    ("goal", "steps"),
    [
        ("calculate 6*7", [("calculate", {"expression": "6*7"})]),
        (
            "What is 2+2, then tell me the time in Europe/Berlin",
            [("calculate", {"expression": "2+2"}), ("time_query", {"timezone": "Europe/Berlin"})],
        ),
        (
            'count the words of "to be"; classify "help"',
            [("text_processor", {"op": "count", "text": "to be"}), ("classify_text", {"text": "help"})],
        ),
        ("put 'abc' into upper case", [("text_processor", {"op": "case", "to": "upper", "text": "abc"})]),
        ('call greet.me with {"name": "Ada"}', [("greet.me", {"name": "Ada"})]),
        ("get the time\ncall ping", [("time_query", {"timezone": "UTC"}), ("ping", {})]),
    ],
)
def test_plans(handler: ModuleType, goal: str, steps: list[Any]) -> None:
    found, unknown = handler.plan(goal)
    assert ([(step["intent"], step["params"]) for step in found], unknown) == (steps, None)


def test_steps_take_what_earlier_ones_returned(handler: ModuleType) -> None:
    ctx = Ctx()
    steps = [{"intent": "calculate"}, {"intent": "say", "params": {"text": ["$1.result", "$1", "cost: $5"]}}]
    report = run(handler, ctx, steps=steps)
    assert (report["success"], report["planned_by"], report["summary"]) == (True, "steps", "2 of 2 steps done")
    assert ctx.asked[1] == ("say", {"text": [42, {"success": True, "result": 42}, "cost: $5"]})


@pytest.mark.parametrize("bad", ["boom", "no"])
def test_a_failure_stops_what_follows_unless_told_otherwise(handler: ModuleType, bad: str) -> None:
    steps = [{"intent": "calculate"}, {"intent": bad}, {"intent": "last", "params": {"x": "$2.got"}}]
    report = run(handler, steps=steps)
    assert [one["status"] for one in report["steps"]] == ["done", "failed", "skipped"]
    assert (report["success"], report["error"]) == (False, "step_failed")
    report = run(handler, steps=[steps[1], {"intent": "calculate"}], on_error="continue")
    assert [one["status"] for one in report["steps"]] == ["failed", "done"]
    assert report["success"] is False


def test_a_reference_that_leads_to_nothing(handler: ModuleType) -> None:
    report = run(handler, steps=[{"intent": "say", "params": {"x": "$3.y"}}])
    assert report["steps"][0]["error"] == "$3.y leads to nothing"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "invalid_task"),
        ({"goal": "  "}, "invalid_task"),
        ({"goal": "make me happy"}, "no_plan"),
        ({"goal": "calculate 1+1 then dance"}, "no_plan"),
        ({"goal": "call x with {no}"}, "invalid_goal"),
        ({"steps": []}, "invalid_task"),
        ({"steps": [{}]}, "invalid_task"),
        ({"steps": [{"intent": "x", "params": 3}]}, "invalid_task"),
        ({"steps": [{"intent": "x"}] * 51}, "invalid_task"),
    ],
)
def test_what_is_refused_before_anything_is_called(handler: ModuleType, params: Any, code: str) -> None:
    ctx = Ctx()
    report = run(handler, ctx, **params)
    assert (report["success"], report["error"]) == (False, code)
    assert ctx.asked == []


def test_a_model_plans_what_the_rules_cannot(handler: ModuleType) -> None:
    ctx = Ctx(endpoint="http://model/v1/", model="small", api_key="k")
    sent: list[Any] = []

    async def request(method: str, url: str, *, headers: Any, json: Any) -> Any:
        sent.append((method, url, headers, json["model"]))
        plan = 'Here you are: {"steps": [{"intent": "calculate", "params": {"expression": "1"}}]}'
        return SimpleNamespace(json=lambda: {"choices": [{"message": {"content": plan}}]})

    ctx.http = SimpleNamespace(request=request)  # type: ignore[attr-defined]
    report = run(handler, ctx, goal="make me happy")
    assert (report["success"], report["planned_by"]) == (True, "model")
    assert sent == [("POST", "http://model/v1/chat/completions", {"authorization": "Bearer k"}, "small")]
    assert json.dumps(report)


def test_an_endpoint_without_a_way_to_it_or_without_a_plan(handler: ModuleType) -> None:
    ctx = Ctx(endpoint="http://model/v1")
    assert run(handler, ctx, goal="make me happy")["error"] == "no_planner"

    async def request(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(json=lambda: {"choices": []})

    ctx.http = SimpleNamespace(request=request)  # type: ignore[attr-defined]
    assert run(handler, ctx, goal="make me happy")["error"] == "no_plan"
