"""A compiled definition: what the reducer reads. Nothing in it changes, and nothing in it does I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eventcore.kernel.documents import Path
from eventcore.kernel.errors import ExpressionError, InvalidDefinition, InvalidInput, Problem
from eventcore.kernel.json import digest, encode, text_digest
from eventcore.kernel.names import ALIASES, did_you_mean
from eventcore.kernel.schemas import Schema
from eventcore.workflows.definition import Retry, Source, Step, Trigger, Workflow, needs_of
from eventcore.workflows.expressions import Expressions, Template

Value = Callable[[Mapping[str, Any]], Any]

_STEP_NAMES = frozenset({"inputs", "steps", "event", "run"})
_TRIGGER_NAMES = frozenset({"event"})


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, ready to run. `kind` is `plugin`, `emit` or `sleep`; `target` the intent or event type."""

    id: str
    kind: str
    target: str
    params: Value
    condition: Template | None
    needs: tuple[str, ...]
    retry: Retry | None
    timeout: float | None
    continue_on_error: bool
    sleep: float


@dataclass(frozen=True, slots=True)
class TriggerPlan:
    """One event trigger, ready to match."""

    id: str
    pattern: str
    condition: Template | None
    inputs: Value


@dataclass(frozen=True)
class Plan:
    """A whole definition, compiled."""

    slug: str
    hash: str
    raw: bytes
    workflow: Workflow
    steps: tuple[StepPlan, ...]
    triggers: tuple[TriggerPlan, ...]
    outputs: Value
    schema: Schema | None

    @cached_property
    def by_id(self) -> dict[str, StepPlan]:
        return {step.id: step for step in self.steps}

    @cached_property
    def intents(self) -> frozenset[str]:
        """The intents that its steps call."""
        return frozenset(step.target for step in self.steps if step.kind == "plugin")

    def check_inputs(self, inputs: Mapping[str, Any]) -> bytes:
        """The inputs as JSON, checked against the definition's schema.

        Raises:
            InvalidPayload: they do not fit; the message names each field.
        """
        raw = encode(inputs, what=f"the inputs of {self.slug}")
        if self.schema is not None:
            self.schema.check(inputs, f"inputs of {self.slug}")
        return raw


def compile_plan(workflow: Workflow, expressions: Expressions, source: Source) -> Plan:
    """Compile a definition that was read from `source`.

    Raises:
        InvalidDefinition: an expression does not parse or names what is not there, or `inputs` is no JSON Schema.
    """
    return _Compiler(workflow, expressions, source).compile()


class _Compiler:
    def __init__(self, workflow: Workflow, expressions: Expressions, source: Source) -> None:
        self._workflow, self._expressions, self._source = workflow, expressions, source
        self._problems: list[Problem] = []
        self._ids = [step.id for step in workflow.steps]

    def compile(self) -> Plan:
        workflow = self._workflow
        body = workflow.as_dict()
        needs = needs_of(workflow)
        steps = tuple(self._step(step, needs[step.id], ("steps", i)) for i, step in enumerate(workflow.steps))
        triggers = tuple(self._trigger(trigger, ("triggers", i)) for i, trigger in enumerate(workflow.triggers))
        outputs = self._value(workflow.outputs, _STEP_NAMES, ("outputs",))
        schema = self._schema()
        if self._problems:
            raise InvalidDefinition(self._problems)
        return Plan(workflow.slug, digest(body), encode(body), workflow, steps, triggers, outputs, schema)

    def _step(self, step: Step, needs: tuple[str, ...], at: Path) -> StepPlan:
        kind = step.kinds[0]
        return StepPlan(
            id=step.id,
            kind=kind,
            target=step.plugin or step.emit or "",
            params=self._value({} if step.with_ is None else step.with_, _STEP_NAMES, (*at, "with")),
            condition=self._condition(step.if_, _STEP_NAMES, (*at, "if")),
            needs=needs,
            retry=step.retry,
            timeout=step.timeout,
            continue_on_error=step.continue_on_error,
            sleep=step.sleep or 0.0,
        )

    def _trigger(self, trigger: Trigger, at: Path) -> TriggerPlan:
        text = encode(trigger.model_dump(mode="json", by_alias=True, exclude_defaults=True)).decode()
        return TriggerPlan(
            id=trigger.id or text_digest(text)[:16],
            pattern=ALIASES.get(trigger.event, trigger.event),
            condition=self._condition(trigger.if_, _TRIGGER_NAMES, (*at, "if")),
            inputs=self._value(
                {"event": "{{ event }}"} if trigger.with_ is None else trigger.with_, _TRIGGER_NAMES, (*at, "with")
            ),
        )

    def _condition(self, source: str | None, names: frozenset[str], at: Path) -> Template | None:
        if source is None:
            return None
        # People write `if: steps.a.output.ok` as often as with braces; both mean the expression.
        text = source if "{{" in source else "{{ " + source + " }}"
        try:
            template = self._expressions.compile(text, names)
        except ExpressionError as error:
            self._problems.append(self._source.problem(at, str(error)))
            return None
        self._check_steps_named([template], at)
        return template

    def _value(self, source: Any, names: frozenset[str], at: Path) -> Value:
        found: list[Template] = []
        try:
            value = self._expressions.value(source, names, found)
        except ExpressionError as error:
            self._problems.append(self._source.problem(at, str(error)))
            return lambda scope: None
        self._check_steps_named(found, at)
        return value

    def _check_steps_named(self, templates: list[Template], at: Path) -> None:
        for template in templates:
            for name, attribute in sorted(template.reads):
                if name == "steps" and attribute and attribute not in self._ids:
                    message = f"{template.source!r}: there is no step {attribute!r}{did_you_mean(attribute, self._ids)}"
                    self._problems.append(self._source.problem(at, message))

    def _schema(self) -> Schema | None:
        if self._workflow.inputs is None:
            return None
        try:
            return Schema(self._workflow.inputs)
        except InvalidInput as error:
            self._problems.append(self._source.problem(("inputs",), error.message))
            return None
