"""`runs show` for every kind of step."""

from __future__ import annotations

from typing import Any

import anyio
import click
import pytest

from eventcore import EventCore
from eventcore.cli.graphs import print_diff
from eventcore.cli.runs import print_run
from eventcore.operations import looks, runs

pytestmark = pytest.mark.anyio


async def settled(core: EventCore, run: str) -> bool:
    """Whether all that can end has ended, and what goes on beside it has come to its wait, the child's too."""
    steps = {step["step"]: step for step in (await runs.show(core.engine, run))["steps"]}
    waiting = all("waits" in steps.get(name, {}) for name in ("rest", "yes", "kid"))
    if not waiting or "ended" not in steps.get("ask", {}):
        return False
    children = await core.workflows.runs(slug="child")
    shown = [await runs.show(core.engine, child.id) for child in children]
    return any("waits" in step for child in shown for step in child["steps"])


async def test_each_kind_tells_what_it_does_and_what_it_waits_for(core: EventCore) -> None:
    async def work(params: Any) -> Any:
        if params["metadata"]["attempt"] == 1 and params.get("shaky"):
            raise ValueError("no")
        return {"n": params.get("n")}

    core.plugins.intent("work", work)
    core.workflows.define({"slug": "child", "steps": [{"id": "z", "wait_for": {"event": "paid", "timeout": "1h"}}]})
    core.workflows.define(
        {
            "slug": "w",
            "steps": [
                {"id": "call", "plugin": "work", "with": {"shaky": True}, "retry": {"attempts": 2, "initial": 0}},
                {"id": "all", "foreach": [1, 2], "plugin": "work", "with": {"n": "{{ item }}"}},
                {"id": "group", "steps": [{"id": "in", "emit": "seen", "with": {"a": 1}}]},
                {"id": "ask", "hook": "on_message", "with": {"text": "hi"}},
                {"id": "rest", "needs": [], "sleep": "1h"},
                {"id": "yes", "needs": [], "approve": "Ship it?"},
                {"id": "kid", "needs": [], "workflow": "child"},
                {"id": "skip", "needs": [], "if": "{{ false }}", "emit": "never"},
            ],
        }
    )
    run = await core.workflows.start("w")
    with anyio.fail_after(15):
        while not await settled(core, run.id):
            await anyio.sleep(0.01)
    await core.workflows.pause(run.id, "lunch")
    shown = await runs.show(core.engine, run.id)
    steps = {(step["step"], step["attempt"]): step for step in shown["steps"]}
    assert (steps["call", 1]["status"], steps["call", 1]["error"]["type"]) == ("retrying", "ValueError")
    assert (steps["call", 2]["kind"], steps["call", 2]["plugin"], steps["call", 2]["status"]) == (
        "plugin",
        "work",
        "completed",
    )
    assert steps["call", 2]["seconds"] >= 0
    assert (steps["all", 1]["kind"], steps["all", 1]["items"]) == ("foreach", 2)
    assert [steps[f"all[{i}]", 1]["output"] for i in (0, 1)] == [{"n": 1}, {"n": 2}]
    assert (steps["group", 1]["kind"], steps["group/in", 1]["emit"]) == ("group", "seen")
    assert steps["ask", 1]["hook"] == "on_message"
    assert (steps["rest", 1]["status"], steps["rest", 1]["waits"]) == ("waiting", "time")
    assert steps["rest", 1]["until"] > shown["created"]
    assert (steps["yes", 1]["approve"], steps["yes", 1]["waits"]) == ("Ship it?", "approval")
    [child] = await core.workflows.runs(slug="child")
    assert (steps["kid", 1]["workflow"], steps["kid", 1]["run"], steps["kid", 1]["waits"]) == (
        "child",
        child.id,
        "child",
    )
    assert steps["skip", 1]["status"] == "skipped"
    assert [(deed["type"], deed["by"], deed["reason"]) for deed in shown["deeds"]] == [
        ("workflow_paused", "operator", "lunch")
    ]
    kid = await runs.show(core.engine, child.id)
    assert steps["yes", 1]["roles"] == []
    assert kid["parent"] == f"{run.id}/kid"
    assert (kid["steps"][0]["wait_for"], kid["steps"][0]["waits"]) == ("paid", "event")


async def test_people_see_steps_as_a_tree_and_what_each_waits_for(core: EventCore, capsys: Any) -> None:
    @core.intent("fails")
    async def fails(params: Any) -> Any:
        raise ValueError("no")

    inner = [{"id": "x", "emit": "seen", "compensate": {"plugin": "fails", "retry": {"attempts": 1}}}]
    inner.append({"id": "y", "sleep": "1ms"})
    core.workflows.define(
        {
            "slug": "w",
            "steps": [
                {"id": "all", "foreach": [1] * 11, "max_parallel": 11, "steps": inner},
                {
                    "id": "yes",
                    "needs": [],
                    "approve": {"message": "Ship it?", "roles": ["boss", "lead"], "timeout": "1h"},
                },
                {"id": "paid", "needs": [], "wait_for": {"event": "paid", "match": {"order": 7}}},
            ],
        }
    )
    run = await core.workflows.start("w")

    async def printed() -> list[str]:
        print_run(await runs.show(core.engine, run.id))
        return click.unstyle(capsys.readouterr().out).splitlines()

    with anyio.fail_after(15):
        lines = await printed()
        while not any(line.startswith("all ") and "completed" in line for line in lines):
            await anyio.sleep(0.01)
            lines = await printed()
    begin = [line.split("  ")[0] for line in lines if line and not line.startswith(" ")][4:]
    tree = ["all", *(f"all[{n}]{part}" for n in range(11) for part in ("", "/x", "/y")), "yes", "paid"]
    assert [line for line in begin if line in tree] == tree
    text = "\n".join(lines)
    assert "  who     boss, lead\n  until   20" in text
    assert '  match   {"order": 7}' in text
    await core.workflows.cancel(run.id)
    assert await run.over(10)
    lines = await printed()
    undone = [line.split("  ")[0] for line in lines if "~undo" in line.split("  ")[0]]
    assert lines.index(next(line for line in lines if line.startswith("paid"))) < lines.index(
        next(line for line in lines if line.startswith(undone[0]))
    )
    assert any("could not be undone: all[" in line for line in lines)


async def test_what_a_changed_definition_means_for_a_run_that_goes_on(core: EventCore, capsys: Any) -> None:
    def define(*steps: dict[str, Any]) -> None:
        core.workflows.define({"slug": "w", "steps": [*steps]})

    ask, tell = {"id": "ok", "approve": "Go?"}, {"id": "tell", "emit": "told"}
    define(ask, tell)
    run = await core.workflows.start("w")
    await core.drain(5)
    for steps, expected in (
        ((ask, tell), "w has not changed since the run began"),
        ((ask | {"approve": "Really?"}, tell), "~ ok waiting approve is waiting; would begin again in its new form"),
        ((tell, ask), "~ tell not begun needs has not begun; would run in its new form"),
        ((ask,), "- tell not begun would not run"),
        ((ask, {"id": "more", "sleep": 1}, tell), "+ more not begun would run, after what it needs"),
    ):
        define(*steps)
        print_diff(await looks.run_diff(core.engine, run.id))
        lines = [" ".join(line.split()) for line in click.unstyle(capsys.readouterr().out).splitlines()]
        assert expected in lines, lines
        assert ("The run goes on as it began" in " ".join(lines)) == ("not changed" not in expected)
    await core.workflows.verbs.decide(run.id, "ok", approved=True)
    assert await run.result(5) is None  # it told, although the definition as it is now sleeps before that
