"""Answers the intent `autonomous_task`: works through a list of steps, or through the steps that a goal takes.

Each step calls an intent of another plugin with `ctx.request`. A goal is planned by rules, which need nothing but this
file; what they cannot plan is put to an OpenAI-compatible endpoint if the settings name one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from eventcore.sdk import Context, PluginError

MAX_STEPS = 50
#: Seconds that one step may take unless `timeout` says otherwise.
STEP_TIMEOUT = 30.0

Step = dict[str, Any]

_INTENT = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_PARTS = re.compile(r"\s*(?:;|\n|,?\s+and then\s+|,?\s+then\s+|^then\s+)\s*", re.IGNORECASE)
_REFERENCE = re.compile(r"\$(\d{1,2})((?:\.[A-Za-z0-9_]+)*)")
_QUOTED = r"['\"](?P<text>.+)['\"]"

_PROMPT = """Plan the goal below as JSON: {"steps": [{"intent": NAME, "params": {...}}]}.
A value "$1.key" takes what step 1 returned. Use these intents: calculate {expression}, time_query {timezone, format},
text_processor {op: count|stats|case, text, to}, classify_text {text}. Answer with the JSON alone.
Goal: """


class Refused(ValueError):
    """The task makes no sense; the first argument is the error's code."""


# -- rules ------------------------------------------------------------------------------------------------------------

_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Step]], ...] = (
    (
        re.compile(r"call (?P<intent>[A-Za-z][A-Za-z0-9_.-]*)(?: with (?P<params>\{.*\}))?", re.IGNORECASE),
        lambda found: {"intent": found["intent"], "params": _object(found["params"] or "{}")},
    ),
    (
        re.compile(
            r"(?:calculate|compute|work out|what is)\s+(?P<sum>[\d\s.+\-*/%()]*\d[\d\s.+\-*/%()]*)", re.IGNORECASE
        ),
        lambda found: {"intent": "calculate", "params": {"expression": found["sum"].strip()}},
    ),
    (
        re.compile(
            r"(?:tell|say|get|what is|what's)?\s*(?:me )?the time(?: in (?P<zone>[A-Za-z_]+(?:/[A-Za-z_]+)*))?", re.I
        ),
        lambda found: {"intent": "time_query", "params": {"timezone": found["zone"] or "UTC"}},
    ),
    (
        re.compile(rf"(?:count|measure) (?:the )?(?:words|characters|text)? ?(?:of|in)? ?{_QUOTED}", re.IGNORECASE),
        lambda found: {"intent": "text_processor", "params": {"op": "count", "text": found["text"]}},
    ),
    (
        re.compile(
            rf"(?:put|turn|change) {_QUOTED} (?:in|into|to) (?P<to>upper|lower|title)(?: ?case)?", re.IGNORECASE
        ),
        lambda found: {
            "intent": "text_processor",
            "params": {"op": "case", "to": found["to"].lower(), "text": found["text"]},
        },
    ),
    (
        re.compile(rf"classify {_QUOTED}", re.IGNORECASE),
        lambda found: {"intent": "classify_text", "params": {"text": found["text"]}},
    ),
)


def plan(goal: str) -> tuple[list[Step], str | None]:
    """The steps of a goal by rules, and the first part of it that no rule knows, if there is one."""
    steps: list[Step] = []
    for part in filter(None, (one.strip(" .!") for one in _PARTS.split(goal))):
        for pattern, make in _RULES:
            if found := pattern.fullmatch(part):
                steps.append(make(found))
                break
        else:
            return steps, part
    return steps, None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise Refused("invalid_goal", f"{text!r} is no JSON object") from None
    if not isinstance(found, dict):
        raise Refused("invalid_goal", f"{text!r} is no JSON object")
    return found


# -- the task ---------------------------------------------------------------------------------------------------------


async def run(params: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """Carry out a task.

    Args:
        params: `goal`, a text, or `steps`, a list of `{"intent": ..., "params": {...}}`, at most 50; a value `"$1.key"`
            in them takes what step 1 returned. `on_error`: `stop` (default) or `continue`; `timeout`: seconds a step.

    Returns:
        `success` (whether every step was done), `planned_by` (`steps`, `rules` or `model`), `steps` with `intent`,
        `status` (`done`, `failed`, `skipped`) and `result` or `error` each, `done`, `failed` and `summary`.
    """
    try:
        steps, planner = await _steps(params, ctx)
    except Refused as error:
        code, message = error.args
        return {"success": False, "error": code, "message": message}
    report = await _work(steps, params, ctx)
    done = sum(one["status"] == "done" for one in report)
    failed = [one for one in report if one["status"] == "failed"]
    result = {
        "success": done == len(report),
        "goal": params.get("goal"),
        "planned_by": planner,
        "steps": report,
        "done": done,
        "failed": len(failed),
        "summary": f"{done} of {len(report)} steps done",
    }
    if failed:
        result |= {"error": "step_failed", "message": f"{failed[0]['intent']}: {failed[0]['error']}"}
    return result


async def _steps(params: Mapping[str, Any], ctx: Context) -> tuple[list[Step], str]:
    if (given := params.get("steps")) is not None:
        return _checked(given), "steps"
    goal = params.get("goal")
    if not isinstance(goal, str) or not goal.strip():
        raise Refused("invalid_task", "a task has a goal, or a list of steps")
    steps, unknown = plan(goal)
    if steps and unknown is None:
        return _checked(steps), "rules"
    if endpoint := ctx.config.get("endpoint"):
        return _checked(await _ask_model(goal, str(endpoint), ctx)), "model"
    raise Refused(
        "no_plan", f"no rule knows how to {unknown!r}; give `steps`, or set `endpoint` in the plugin's settings"
    )


def _checked(steps: Any) -> list[Step]:
    if not isinstance(steps, list) or not steps or len(steps) > MAX_STEPS:
        raise Refused("invalid_task", f"steps is a list of 1 to {MAX_STEPS}")
    for number, step in enumerate(steps, 1):
        if not isinstance(step, dict) or not _INTENT.fullmatch(str(step.get("intent", ""))):
            raise Refused("invalid_task", f"step {number} names no intent")
        if not isinstance(step.get("params", {}), dict):
            raise Refused("invalid_task", f"the params of step {number} are no object")
    return steps


async def _work(steps: list[Step], params: Mapping[str, Any], ctx: Context) -> list[dict[str, Any]]:
    report: list[dict[str, Any]] = []
    for step in steps:
        if any(one["status"] == "failed" for one in report) and params.get("on_error", "stop") == "stop":
            report.append({"intent": step["intent"], "status": "skipped"})
            continue
        try:
            given = _filled(step.get("params", {}), report)
            result = await ctx.request(step["intent"], given, timeout=float(params.get("timeout", STEP_TIMEOUT)))
        except (PluginError, Refused) as error:
            report.append({"intent": step["intent"], "status": "failed", "error": str(error.args[-1])})
            continue
        if isinstance(result, dict) and result.get("success") is False:
            why = result.get("message") or result.get("error") or "it reported a failure"
            report.append({"intent": step["intent"], "status": "failed", "error": str(why), "result": result})
        else:
            report.append({"intent": step["intent"], "status": "done", "result": result})
    return report


def _filled(value: Any, report: list[dict[str, Any]]) -> Any:
    """Parameters with what earlier steps returned in place of `$1.key`."""
    if isinstance(value, dict):
        return {key: _filled(item, report) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, report) for item in value]
    if not isinstance(value, str) or not (found := _REFERENCE.fullmatch(value)):
        return value
    number = int(found[1])
    result = report[number - 1].get("result") if 1 <= number <= len(report) else None
    for key in found[2].split(".")[1:]:
        result = result.get(key) if isinstance(result, dict) else None
    if result is None:
        raise Refused("no_result", f"{value} leads to nothing")
    return result


# -- the model --------------------------------------------------------------------------------------------------------


async def _ask_model(goal: str, endpoint: str, ctx: Context) -> Any:
    """The steps that a chat model proposes."""
    http = getattr(ctx, "http", None)
    if http is None:
        raise Refused("no_planner", "this host lets plugins make no requests, so the endpoint cannot be asked")
    key = ctx.config.get("api_key")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    asked = {"model": ctx.config.get("model"), "messages": [{"role": "user", "content": _PROMPT + goal}]}
    try:
        response = await http.request("POST", f"{endpoint.rstrip('/')}/chat/completions", headers=headers, json=asked)
        text = response.json()["choices"][0]["message"]["content"]
        found = re.search(r"\{.*\}", text, re.DOTALL)
        return json.loads(found[0])["steps"] if found else None
    except (PluginError, LookupError, TypeError, ValueError) as error:
        raise Refused("no_plan", f"the endpoint gave no plan: {error}") from None
