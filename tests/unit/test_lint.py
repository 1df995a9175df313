"""What `workflows validate` finds in definitions that compile, and the schema that editors read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from eventcore.kernel.errors import InvalidDefinition
from eventcore.workflows.definition import Workflow, parse_workflow, read_workflow
from eventcore.workflows.lint import Surroundings, check_file, lint
from eventcore.workflows.schema import json_schema

OTHER = parse_workflow(
    "slug: other\ninputs: {type: object, properties: {n: {type: integer}}, required: [n]}\n"
    "steps: [{id: back, workflow: circle}]"
)[0]
TAKES = {"measure": {"type": "object", "properties": {"of": {"type": "string"}}, "required": ["of"]}}
AROUND = Surroundings(
    {"greet", "measure"}, {"other": OTHER}, searched=("workflows",), takes=TAKES, hooks={"on_message"}
)


def found(text: str, around: Surroundings = AROUND) -> list[str]:
    return [str(problem) for problem in lint(*parse_workflow(text, "w.yaml"), around)]


HEAD = "slug: w\ninputs: {type: object, properties: {n: {type: integer}, t: {type: string}}, required: [n]}\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("slug: w\nsteps:\n  - id: a\n    plugin: gret", "w.yaml:4:5 warning: steps[0].plugin: nobody answers 'gret'"),
        ("slug: w\nsteps:\n  - id: a\n    workflow: othr", "steps[0].workflow: there is no workflow 'othr'"),
        ("slug: w\nsteps:\n  - {id: a, workflow: other}", "other needs the input 'n', which is required"),
        ("slug: w\nsteps:\n  - {id: a, workflow: other, with: {n: one}}", 'with.n: "one" is not of type "integer"'),
        ("slug: w\nsteps:\n  - {id: a, plugin: greet, if: '1 > 2'}", "is never true, so this step never runs"),
        ("slug: w\nsteps:\n  - {id: a, plugin: greet, if: 'x {{ 1 }}'}", "is text, which is true whenever"),
        ("slug: w\nsteps:\n  - {id: a, plugin: greet, foreach: abc}", "foreach goes through a list"),
        ("slug: w\nsteps:\n  - {id: a, plugin: greet, foreach: []}", "is empty, so this step never runs"),
        ("slug: w\nsteps:\n  - {id: a, sleep: 1s, timeout: 5s}", "timeout: has no effect on a step of the kind sleep"),
        ("slug: w\nsteps:\n  - {id: a, emit: e, total_timeout: 5s}", "total_timeout: has no effect on a step of"),
        (
            "slug: w\nsteps:\n  - {id: a, timeout: 5s, steps: [{id: b, sleep: 1s}]}",
            "w.yaml:3:13 warning: steps[0].timeout: has no effect on a step of the kind steps",
        ),
        (
            HEAD + "triggers: [{event: e}]\nsteps: [{id: a, sleep: 1s}]",
            "w starts with the input 'n', which is required",
        ),
        (HEAD + "triggers: [{cron: '0 9 * * *'}]\nsteps: [{id: a, sleep: 1s}]", "the input 'n', which is required"),
        (
            HEAD + "triggers:\n  - {event: e, with: {n: 'x {{ event.id }}'}}\nsteps: [{id: a, sleep: 1s}]",
            "w.yaml:4:23 triggers[0].with.n: gives string, where integer is wanted",
        ),
        (HEAD + "triggers: [{event: e, if: 'false', with: {n: 1}}]\nsteps: [{id: a, sleep: 1s}]", "starts nothing"),
        (HEAD + "steps: [{id: a, plugin: greet, with: {x: '{{ inputs.m }}'}}]", "there is no input 'm'"),
        (
            "slug: w\nsteps:\n  - {id: a, plugin: greet}\n  - {id: b, needs: [], plugin: greet, with: '{{ steps.a }}'}",
            "w.yaml:4:39 warning: steps[1].with: reads steps.a, which may not have begun",
        ),
        (
            "slug: w\nsteps:\n  - {id: a, hook: on_mesage}",
            "there is no hook 'on_mesage' here; did you mean 'on_message'",
        ),
        (
            "slug: w\nsteps:\n  - {id: a, plugin: measure, with: {of: 5}}",
            'w.yaml:3:37 steps[0].with.of: 5 is not of type "string"',
        ),
        ("slug: w\nsteps:\n  - {id: a, plugin: measure}", "measure needs the parameter 'of', which is required"),
        (
            "slug: w\nsteps:\n  - {id: a, plugin: greet, compensate: {plugin: measure, with: {off: '{{ output }}'}}}",
            "warning: steps[0].compensate.with.off: there is no parameter 'off'; did you mean 'of'?",
        ),
        (
            "slug: w\nsteps:\n  - {id: a, workflow: other, with: {n: 1, colour: red}}",
            "w.yaml:3:43 warning: steps[0].with.colour: there is no input 'colour' in its schema",
        ),
        (
            "slug: w\ninputs:\n  text: {type: string}\nsteps: [{id: a, sleep: 1s}]",
            "w.yaml:3:3 warning: inputs.text: is no word of JSON Schema; inputs stand under `properties`",
        ),
        (
            "slug: circle\nsteps: [{id: a, workflow: other, with: {n: 1}}]",
            "starts itself again: circle -> other -> circle",
        ),
    ],
)
def test_each_finding(text: str, wanted: str) -> None:
    assert any(wanted in one for one in found(text)), found(text)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "triggers: [{webhook: w}, {event: e, with: {n: '{{ event.data.n }}'}}]\nsteps: [{id: a, plugin: greet}]",
        "slug: w\nsteps:\n  - {id: a, plugin: greet}\n  - {id: b, plugin: greet, with: '{{ steps.a.output }}'}",
        "slug: w\nsteps:\n  - id: g\n    steps: [{id: a, plugin: greet}]\n    outputs: '{{ steps.a.output }}'",
        "slug: w\nsteps: [{id: a, workflow: other, with: {n: '{{ 1 }}'}}]",
    ],
)
def test_what_is_right_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_without_surroundings_nobody_is_missed() -> None:
    assert found("slug: w\nsteps: [{id: a, plugin: x}, {id: b, workflow: y}]", Surroundings()) == []
    assert found("slug: w\nsteps: [{id: b, workflow: y}]", Surroundings(set(), {}, external=None)) == []


# -- the schema --------------------------------------------------------------------------------------------------------

SCHEMA = jsonschema_rs.validator_for(json_schema())
FULL: dict[str, Any] = {
    "slug": "w",
    "triggers": [{"event": "e", "if": "true"}, {"cron": "0 9 * * *", "window": "1d"}, {"webhook": "w"}],
    "concurrency": {"limit": 1},
    "steps": [
        {"id": "a", "plugin": "p", "with": {"x": 1}, "timeout": "1h30m", "retry": {"initial": "500ms"}},
        {"id": "b", "approve": "Ship it?"},
        {"id": "c", "sleep": 5},
        {"id": "d", "steps": [{"id": "e", "wait_for": {"event": "x"}}], "compensate": {"emit": "undone"}},
    ],
}


def test_the_schema_takes_what_the_model_takes() -> None:
    Workflow.model_validate(FULL)
    assert SCHEMA.is_valid(FULL), [error.message for error in SCHEMA.iter_errors(FULL)]
    for file in (Path(__file__).parents[2] / "workflows").glob("*.yaml"):
        assert SCHEMA.is_valid(yaml.safe_load(file.read_text(encoding="utf-8"))), file


@pytest.mark.parametrize(
    "step",
    [{"id": "a"}, {"id": "a", "plugin": "p", "sleep": 1}, {"id": "a", "plgin": "p"}, {"id": "a", "sleep": "soon"}],
)
def test_the_schema_refuses_what_the_model_refuses(step: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid({"slug": "w", "steps": [step]})


BAD = """\
slug: Bad Slug
triggers:
  - cron: "99 * * * *"
  - evnt: x
inputs: {type: objct}
steps:
  - id: a
    plugin: greet
    wiht: {a: 1}
  - id: b
    plugin: greet
    needs: [zz]
    timeout: soon
    with: {t: "{{ steps.q.output }}"}
  - id: c
    emit: plugin_error
  - id: c
    plugin: nobody_has_it
    with: {t: "{{ inputs.x | uper }}", u: "{{ steps.b.output }}"}
outputs: "{{ stesp.a }}"
"""


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD, encoding="utf-8")
    with pytest.raises(InvalidDefinition) as error:
        check_file(file, AROUND)
    assert sorted((one.line, one.key) for one in error.value.problems) == [
        (1, "slug"),
        (3, "triggers[0].cron"),
        (4, "triggers[1].evnt"),
        (5, "inputs"),
        (9, "steps[0].wiht"),
        (12, "steps[1].needs"),
        (13, "steps[1].timeout"),
        (14, "steps[1].with.t"),
        (16, "steps[2].emit"),
        (17, "steps[3].id"),
        (18, "steps[3].plugin"),
        (19, "steps[3].with.t"),
        (20, "outputs"),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "slug: w", "slug: w\nsteps: []", "slug: [\n", "steps: 5", "slug: w\nsteps:\n  - {id: Ä, sleep: 1}"],
)
def test_what_cannot_be_mended_is_told_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidDefinition) as error:
        check_file(file, AROUND)
    told = {str(one) for one in error.value.problems}
    assert len(told) == len(error.value.problems)
    with pytest.raises(InvalidDefinition) as alone:
        read_workflow(file)
    assert {str(one) for one in alone.value.problems} <= told
