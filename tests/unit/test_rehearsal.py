"""The testing kit for workflows, and the builder, played on each other."""

from __future__ import annotations

import time
from typing import Any

import pytest

from eventcore.kernel.errors import InvalidDefinition, InvalidPayload
from eventcore.testing.rehearsal import At, Rehearsal, signal
from eventcore.workflows.builder import Flow, Group
from eventcore.workflows.definition import parse_workflow

DAY = 86400.0
INPUTS = {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]}


def ten_days() -> Flow:
    flow = Flow("reminders", inputs=INPUTS)
    flow.plugin("first", "mail", with_={"to": flow.inputs.who, "n": 1})
    flow.sleep("week", "7d")
    flow.plugin("second", "mail", with_={"to": flow.inputs.who, "n": 2}, retry={"attempts": 3, "initial": "1h"})
    flow.wait_for("paid", "invoice_paid", match={"who": flow.inputs.who}, timeout="10d")
    return flow


def test_ten_days_take_no_time() -> None:
    flow = ten_days()
    rehearsal = Rehearsal(flow.build(outputs={"id": "{{ steps.paid.output.id }}"}), intents={"mail": lambda _: {}})
    began = time.perf_counter()
    other, mine = At(DAY, "invoice_paid", {"who": "bob"}), At(10 * DAY, "invoice_paid", {"who": "ada"})
    run = rehearsal.run({"who": "ada"}, events=[mine, other])
    assert time.perf_counter() - began < 60  # its shortest wait is an hour
    assert (run.status, run.seconds, run.output) == ("completed", 10 * DAY, {"id": "event-2"})
    assert [params["n"] for _, _, params in run.calls] == [1, 2]


def test_a_wait_that_nothing_ends_runs_over() -> None:
    run = Rehearsal(ten_days().build(), intents={"mail": lambda _: {}}).run({"who": "ada"})
    assert (run.status, run.seconds) == ("failed", 17 * DAY)


def test_a_run_that_waits_for_ever_is_stuck() -> None:
    flow = Flow("w")
    flow.signal("go", "go")
    rehearsal = Rehearsal(flow.build(outputs="{{ steps.go.output }}"))
    assert rehearsal.run().status == "stuck"
    assert rehearsal.run(events=[signal(5, "go", 42)]).output == 42


def many_shapes() -> Flow:
    flow = Flow("shapes", inputs=INPUTS)
    flow.plugin("a", "echo", with_={"v": 1}, compensate={"plugin": "undo", "with": {"v": 1}})
    flow.plugin("left", "flaky", retry={"attempts": 3, "initial": "1m"})
    inner = Group()
    inner.plugin("x", "echo", with_={"v": "{{ item }}"})
    inner.sleep("y", "1h")
    flow.group("each", inner, foreach=[1, 2, 3], max_parallel=2, needs=["a"])
    both = flow.sleep("both", "1d", needs=["left", "each"])
    flow.emit("tell", "told", with_={"who": flow.inputs.who}, needs=[both])
    return flow


class Flaky:
    """Fails twice out of three."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, params: Any) -> Any:
        self.count += 1
        if self.count % 3:
            raise ConnectionError("gone")
        return {"ok": True}


def test_it_ends_the_same_wherever_it_crashes() -> None:
    fakes: dict[str, Any] = {"echo": lambda params: params, "flaky": Flaky()}
    rehearsal = Rehearsal(many_shapes().build(outputs={"left": "{{ steps.left.status }}"}), intents=fakes)
    whole = rehearsal.run({"who": "ada"})
    assert whole.status == "completed"
    assert ("told", {"who": "ada"}) in whole.emitted
    fakes["flaky"] = lambda _: {"ok": True}
    assert Rehearsal(many_shapes().build(), intents=fakes).crash_everywhere({"who": "ada"}).status == "completed"


def test_it_undoes_the_same_wherever_it_crashes() -> None:
    fakes: dict[str, Any] = {"echo": lambda params: params, "undo": lambda _: {}, "flaky": lambda _: 1 / 0}
    run = Rehearsal(many_shapes().build(), intents=fakes).crash_everywhere({"who": "ada"})
    assert run.status == "failed"
    assert "undo" in [name for _, name, _ in run.calls]


def test_a_fake_that_changes_its_mind_is_found() -> None:
    calls = {"count": 0}

    def moody(_: Any) -> int:
        calls["count"] += 1
        return calls["count"]

    flow = Flow("w")
    moody_step = flow.plugin("m", "moody")
    with pytest.raises(AssertionError, match="after a crash behind journal entry 1"):
        Rehearsal(flow.build(outputs=moody_step.output), intents={"moody": moody}).crash_everywhere()


def test_a_recorded_journal_on_a_changed_definition() -> None:
    old = Flow("w")
    old.plugin("a", "echo", with_={"v": 1})
    old.sleep("s", "1d")
    new = Flow("w")
    new.plugin("a", "echo", with_={"v": 2})
    new.sleep("s", "1d")
    new.plugin("b", "echo", with_={"v": "{{ steps.a.output.v }}"})
    fakes = {"echo": lambda params: params}
    recorded = Rehearsal(old.build(), intents=fakes).run().journal
    waiting = next(i for i, (_, entry) in enumerate(recorded) if entry.path == "s") + 1
    run = Rehearsal(new.build(outputs="{{ steps.b.output.v }}"), intents=fakes).resume(recorded[:waiting])
    assert (run.status, run.output, run.seconds) == ("completed", 1, DAY)
    assert [path for path, _, _ in run.calls] == ["b"]


def test_no_fake_and_no_input() -> None:
    rehearsal = Rehearsal(ten_days().build())
    assert "no fake for the plugin 'mail'" in str(rehearsal.run({"who": "a"}).error)
    with pytest.raises(InvalidPayload):
        rehearsal.run({})


# -- the builder -------------------------------------------------------------------------------------------------------


def test_python_builds_the_same_model_as_yaml() -> None:
    flow = Flow("triage", inputs=INPUTS, concurrency={"limit": 2})
    flow.on("on_message", if_="{{ event.data.text }}", with_={"who": flow.event.actor}).cron("0 9 * * *")
    label = flow.plugin("classify", "classify_text", with_=[flow.inputs.who, flow.run["id"]], timeout="30s")
    flow.approve("ok", "Ship it?", roles=["admin"], timeout="2d", needs=[label])
    flow.plugin("each", "notify", foreach=label.output.watchers, with_={"user": flow.item}, max_parallel=5)
    text = """
slug: triage
inputs: {type: object, properties: {who: {type: string}}, required: [who]}
concurrency: {limit: 2}
triggers:
  - event: on_message
    if: "{{ event.data.text }}"
    with: {who: "{{ event.actor }}"}
  - cron: "0 9 * * *"
steps:
  - {id: classify, plugin: classify_text, with: ["{{ inputs.who }}", "{{ run['id'] }}"], timeout: 30s}
  - {id: ok, approve: {message: Ship it?, roles: [admin], timeout: 2d}, needs: [classify]}
  - id: each
    plugin: notify
    foreach: "{{ steps.classify.output.watchers }}"
    with: {user: "{{ item }}"}
    max_parallel: 5
outputs: "{{ steps.classify.output }}"
"""
    assert flow.build(outputs=label.output) == parse_workflow(text)[0]


def test_the_builders_mistakes_are_told() -> None:
    flow = Flow("w")
    flow.plugin("a", "x", wiht={})
    with pytest.raises(InvalidDefinition, match="did you mean 'with'"):
        flow.build()
