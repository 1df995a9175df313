"""Workflow definitions: what they may say, and how their mistakes are told."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from eventcore.kernel.errors import InvalidDefinition, InvalidInput, UnknownWorkflow
from eventcore.workflows.definition import Retry, Step, Workflow, parse_workflow
from eventcore.workflows.durations import seconds
from eventcore.workflows.registry import Registry

GOOD = """
slug: triage_message
triggers:
  - event: on_message
    if: "{{ event.data.text | length > 0 }}"
    with: {text: "{{ event.data.text }}"}
inputs: {type: object, properties: {text: {type: string}}, required: [text]}
steps:
  - id: classify
    plugin: classify_text
    with: {text: "{{ inputs.text }}"}
    retry: {attempts: 3, backoff: exponential, initial: 1s, max: 1m, jitter: true, unless: [ValidationError]}
    timeout: 30s
  - id: pause
    sleep: 1h30m
  - id: tell
    if: steps.classify.output.label == 'question'
    emit: message_triaged
    with: {label: "{{ steps.classify.output.label }}"}
outputs: {label: "{{ steps.classify.output.label }}"}
"""

# what is wrong: (text, line, the message, as far as it matters)
WRONG: dict[str, tuple[str, int, str]] = {
    "no slug": ("steps:\n  - {id: a, emit: x}\n", 1, "slug is required"),
    "no steps": ("slug: w\n", 1, "steps is required"),
    "empty steps": ("slug: w\nsteps: []\n", 2, "steps: .*at least one step"),
    "bad slug": ("slug: My Flow\nsteps:\n  - {id: a, emit: x}\n", 1, "slug: 'My Flow' is not a workflow slug"),
    "misspelt key": ("slug: w\nstps: []\nsteps:\n  - {id: a, emit: x}\n", 2, "stps: unknown key; did you mean 'steps'"),
    "misspelt key of a step": (
        "slug: w\nsteps:\n  - id: a\n    plugn: x\n    emit: y\n",
        4,
        r"steps\[0\]\.plugn: unknown key; did you mean 'plugin'",
    ),
    "misspelt key of retry": (
        "slug: w\nsteps:\n  - id: a\n    plugin: x\n    retry:\n      attemps: 3\n",
        6,
        r"retry\.attemps: unknown key; did you mean 'attempts'",
    ),
    "misspelt key of a trigger": (
        "slug: w\ntriggers:\n  - event: x\n    whit: {}\nsteps:\n  - {id: a, emit: x}\n",
        4,
        r"triggers\[0\]\.whit: unknown key; did you mean 'with'",
    ),
    "no id": ("slug: w\nsteps:\n  - emit: x\n", 3, "id is required"),
    "bad id": ("slug: w\nsteps:\n  - id: Not Good\n    emit: x\n", 3, "'Not Good' is no step id"),
    "id twice": ("slug: w\nsteps:\n  - {id: a, emit: x}\n  - {id: a, emit: y}\n", 4, "there is a step 'a' already"),
    "no kind": ("slug: w\nsteps:\n  - id: a\n    with: {}\n", 3, "sleep, hook, steps; this has none"),
    "two kinds": ("slug: w\nsteps:\n  - {id: a, emit: x, plugin: y}\n", 3, "this has plugin and emit"),
    "unknown need": (
        "slug: w\nsteps:\n  - {id: first, emit: x}\n  - id: b\n    emit: x\n    needs: [frist]\n",
        6,
        r"needs.*there is no step 'frist'; did you mean 'first'",
    ),
    "circle": (
        "slug: w\nsteps:\n  - {id: a, emit: x, needs: [b]}\n  - {id: b, emit: x, needs: [a]}\n",
        3,
        "in a circle: (a -> b -> a|b -> a -> b)",
    ),
    "needs itself": ("slug: w\nsteps:\n  - {id: a, emit: x, needs: [a]}\n", 3, "in a circle: a -> a"),
    "bad duration": ("slug: w\nsteps:\n  - id: a\n    sleep: soon\n", 4, "sleep: 'soon' is no duration"),
    "negative duration": ("slug: w\nsteps:\n  - id: a\n    sleep: -1\n", 4, "cannot be negative"),
    "endless duration": ("slug: w\nsteps:\n  - id: a\n    sleep: .inf\n", 4, "sleep: .*duration|JSON"),
    "wrong type": ("slug: w\nsteps:\n  - id: a\n    plugin: [x]\n", 4, r"steps\[0\]\.plugin: .*string"),
    "attempts out of range": (
        "slug: w\nsteps:\n  - id: a\n    plugin: x\n    retry: {attempts: 0}\n",
        5,
        r"retry\.attempts: .*greater than or equal to 1",
    ),
    "bad backoff": ("slug: w\nsteps:\n  - id: a\n    plugin: x\n    retry: {backoff: often}\n", 5, "'constant' or"),
    "core event": (
        "slug: w\nsteps:\n  - id: a\n    emit: workflow_started\n",
        4,
        "only the host emits workflow_started",
    ),
    "core event, dotted": ("slug: w\nsteps:\n  - id: a\n    emit: step.failed\n", 4, "only the host emits step_failed"),
    "hook event": ("slug: w\nsteps:\n  - id: a\n    emit: on_message\n", 4, "only the host emits on_message"),
    "bad event": ("slug: w\nsteps:\n  - id: a\n    emit: Bad Name\n", 4, "'Bad Name' is not an event type"),
    "bad pattern": (
        "slug: w\ntriggers:\n  - event: Bad!\nsteps:\n  - {id: a, emit: x}\n",
        3,
        r"triggers\[0\]\.event: 'Bad!' is not an event pattern",
    ),
    "bad template": (
        "slug: w\nsteps:\n  - id: a\n    plugin: x\n    with:\n      t: '{{ inputs.'\n",
        6,
        r"steps\[0\]\.with\.t: ",
    ),
    "template deep inside": (
        "slug: w\nsteps:\n  - id: a\n    plugin: x\n    with:\n      t:\n        - fine\n        - u: '{{ item }}'\n",
        8,
        r":8:11 steps\[0\]\.with\.t\[1\]\.u: .*'item' is not available here",
    ),
    "template of an approval": (
        "slug: w\nsteps:\n  - id: a\n    approve: ok?\n    with:\n      t: '{{ steps.b }}'\n",
        6,
        r"steps\[0\]\.with\.t: .*there is no step 'b'",
    ),
    "template of a wait": (
        "slug: w\nsteps:\n  - id: a\n    wait_for:\n      event: e\n      match:\n        t: '{{ x }}'\n",
        7,
        r"steps\[0\]\.wait_for\.match\.t: ",
    ),
    "statement as a condition": (
        "slug: w\nsteps:\n  - id: a\n    sleep: 1\n    if: '{% if x %}1{% endif %}'\n",
        5,
        r"if: '\{% if x %\}1\{% endif %\}': only expressions are available",
    ),
    "step of a group": (
        "slug: w\nsteps:\n  - id: g\n    steps: [{id: h, sleep: 1}]\n"
        "  - {id: a, emit: x, with: {t: '{{ steps.h }}'}}\n",
        5,
        "no step 'h' here; it is inside the group 'g', of which others see the output only",
    ),
    "none of several types": (
        "slug: w\nsteps:\n  - id: a\n    emit: x\n    foreach: 5\n",
        5,
        r"steps\[0\]\.foreach: is a list, or an expression that gives one",
    ),
    "tab": ("slug: w\nsteps:\n\t- id: a\n", 3, ":3:1 is not YAML: a tab at the beginning of a line; use spaces"),
    "statement": (
        "slug: w\nsteps:\n  - id: a\n    plugin: x\n    with: '{% for i in x %}{% endfor %}'\n",
        5,
        "expressions",
    ),
    "unknown name": (
        "slug: w\nsteps:\n  - id: a\n    plugin: x\n    with: '{{ input.text }}'\n",
        5,
        "'input' is not available here; did you mean 'inputs'",
    ),
    "unknown step in a template": (
        "slug: w\nsteps:\n  - {id: first, emit: x}\n  - id: b\n    plugin: x\n    if: steps.frist.output\n",
        6,
        "there is no step 'frist'; did you mean 'first'",
    ),
    "unknown step in outputs": (
        "slug: w\nsteps:\n  - {id: a, emit: x}\noutputs: '{{ steps.b.output }}'\n",
        4,
        "outputs: .*there is no step 'b'",
    ),
    "unknown filter": (
        "slug: w\nsteps:\n  - {id: a, emit: x}\noutputs: '{{ inputs|uper }}'\n",
        4,
        "did you mean 'upper'",
    ),
    "steps in a trigger": (
        "slug: w\ntriggers:\n  - event: x\n    if: steps.a.output\nsteps:\n  - {id: a, emit: x}\n",
        4,
        "'steps' is not available here",
    ),
    "no schema": ("slug: w\ninputs: {type: thing}\nsteps:\n  - {id: a, emit: x}\n", 2, "inputs: is no JSON Schema"),
    "a list": ("- slug: w\n", 1, "a workflow is a mapping|mapping"),
    "no YAML": ("slug: [w\n", 2, ""),
    "trigger twice": (
        "slug: w\ntriggers:\n  - {id: t, event: x}\n  - {id: t, event: y}\nsteps:\n  - {id: a, emit: z}\n",
        4,
        "there is a trigger 't' already",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_each_mistake_is_told_with_file_line_and_key(tmp_path: Path, mistake: str) -> None:
    text, line, message = WRONG[mistake]
    path = tmp_path / "flow.yaml"
    path.write_text(text)
    with pytest.raises(InvalidDefinition, match=message or "flow") as caught:
        Registry().compile(path)
    assert (str(caught.value.problems[0].file), caught.value.problems[0].line) == (str(path), line)
    assert str(caught.value).startswith((f"{path}:{line}:", f"{path}:{line} "))


def test_all_mistakes_are_told_at_once() -> None:
    text = "slug: w\nsteps:\n  - {id: a, emit: 'Bad Name', needs: [x]}\n  - {id: a}\n"
    with pytest.raises(InvalidDefinition) as caught:
        Registry().compile(text)
    assert len(caught.value.problems) == 4


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match="cannot be read"):
        Registry().compile(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"slug: caf\xe9\n")
    with pytest.raises(InvalidDefinition):
        Registry().compile(tmp_path / "latin.yaml")


def test_yaml_mapping_and_python_make_the_same_plan() -> None:
    from_yaml = Registry().compile(GOOD)
    model = Workflow.model_validate(from_yaml.workflow.as_dict())
    assert Registry().compile(model).hash == from_yaml.hash
    assert Registry().compile(from_yaml.workflow.as_dict()).hash == from_yaml.hash
    step = Step(id="a", plugin="x", retry=Retry(attempts=2, initial=0.5))
    assert Registry().compile(Workflow(slug="w", steps=(step,))).steps[0].retry == Retry(attempts=2, initial=0.5)
    assert [one.kind for one in from_yaml.steps] == ["plugin", "sleep", "emit"]
    assert from_yaml.by_id["pause"].step.sleep == 5400
    assert from_yaml.intents == {"classify_text"}


def test_a_stored_definition_reads_back_with_the_same_hash() -> None:
    plan = Registry().compile(GOOD)
    again = Registry().pin(plan.raw, plan.slug)
    assert again.hash == plan.hash


def test_spelling_does_not_change_the_hash_but_meaning_does() -> None:
    one = Registry().compile("slug: w\nsteps:\n  - {id: a, plugin: x, timeout: 60s}\n")
    same = Registry().compile("steps:\n- id: a\n  timeout: 1m\n  plugin: x\nslug: w\n")
    other = Registry().compile("slug: w\nsteps:\n  - {id: a, plugin: x, timeout: 61s}\n")
    assert one.hash == same.hash != other.hash


def test_needs() -> None:
    text = """
    slug: w
    steps:
      - {id: a, emit: x}
      - {id: b, emit: x}
      - {id: c, emit: x, needs: []}
      - {id: d, emit: x, needs: [a, c]}
      - {id: e, emit: x}
    """
    plan = Registry().compile(textwrap.dedent(text))
    assert {step.id: step.needs for step in plan.steps} == {
        "a": (),
        "b": ("a",),
        "c": (),
        "d": ("a", "c"),
        "e": ("d",),
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("500ms", 0.5), ("30s", 30), ("1.5s", 1.5), ("1h30m", 5400), ("2d", 172800), (7, 7), (0, 0), ("1m", 60)],
)
def test_durations(text: Any, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text", ["", "s", "1", "1x", "30s1h", "-1s", -1, True, None, float("nan"), float("inf"), "9" * 400 + "d", [1]]
)
def test_no_durations(text: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


def test_inputs_are_checked_against_the_schema() -> None:
    plan = Registry().compile(GOOD)
    plan.check_inputs({"text": "hi"})
    with pytest.raises(InvalidInput, match=r"inputs of triage_message: text: 7 is not of type"):
        plan.check_inputs({"text": 7})
    with pytest.raises(InvalidInput, match='"text" is a required property'):
        plan.check_inputs({})


def test_definitions_by_slug_and_by_hash() -> None:
    registry = Registry()
    first = registry.define("slug: w\nsteps:\n  - {id: a, emit: x}\n")
    second = registry.define("slug: w\nsteps:\n  - {id: a, emit: y}\n")
    assert registry.get("w") is second
    assert registry.pinned(first.hash) is first
    with pytest.raises(InvalidDefinition):
        registry.define("slug: w\nsteps: []\n")
    assert registry.get("w") is second
    with pytest.raises(UnknownWorkflow, match="there is no workflow 'ww'; did you mean 'w'"):
        registry.get("ww")
    registry.remove("w")
    assert registry.find("w") is None
    assert registry.pinned(second.hash) is second


def test_a_mistake_in_the_only_step_is_told_once() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_workflow("slug: w\nsteps:\n  - id: a\n    plugin: p\n    retri: {}\n")
    assert [problem.key for problem in caught.value.problems] == ["steps[0].retri"]
    with pytest.raises(InvalidDefinition, match="at least one step"):
        parse_workflow("slug: w\nsteps: []\n")
