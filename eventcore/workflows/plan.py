"""A compiled definition: what the reducer reads. Nothing in it changes, and nothing in it does I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from eventcore.kernel.documents import Path
from eventcore.kernel.errors import ExpressionError, InvalidDefinition, InvalidInput, Problem
from eventcore.kernel.json import digest, encode, text_digest
from eventcore.kernel.names import ALIASES, did_you_mean
from eventcore.kernel.schemas import Schema, defaults
from eventcore.workflows.clockwork import mistimed
from eventcore.workflows.definition import Retry, Source, Step, Trigger, Workflow, needs_of, walk
from eventcore.workflows.expressions import Expressions, Template, leaves
from eventcore.workflows.marks import MARK, Place, marked
from eventcore.workflows.state import UNDO

Value = Callable[[Mapping[str, Any]], Any]
#: (event type, data) -> the payload. Raises InvalidInput for data that the type does not take.
Payload = Callable[[str, Any], Any]

#: A priority is at most this, and at least as much below zero.
MOST_URGENT = 1000
#: What a signal to a run is recorded as.
SIGNALLED = "workflow_signalled"

_STEP_NAMES = frozenset({"inputs", "steps", "event", "run"})
_ITEM_NAMES = frozenset({"item", "index"})
_OUTPUT = frozenset({"output"})
_SECRETS = frozenset({"secrets"})
#: What is handed over when the step is called; all else that a step is given is stored.
_TAKE_SECRETS = frozenset({"plugin", "workflow", "hook"})
_TRIGGER_NAMES = frozenset({"event"})
_INDEXES = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, ready to run.

    Attributes:
        kind: one of `STEP_KINDS`; `target` the intent, slug, hook, event type or signal.
        params: what `with` comes to; of `wait_for` what `match` does; of `approve` both `message` and `input`.
        needs: ids of steps of the same block.
        children: the steps of a group.
        items: what a `foreach` goes through, or None.
        undo: what undoes it, or None.
        secrets: where the secrets are that `with` names.
    """

    id: str
    kind: str
    target: str
    params: Value
    condition: Template | None
    needs: tuple[str, ...]
    step: Step
    retry: Retry | None
    timeout: float | None
    children: tuple[StepPlan, ...] = ()
    items: Value | None = None
    undo: StepPlan | None = None
    outputs: Value | None = None
    secrets: tuple[Place, ...] = ()

    @property
    def continue_on_error(self) -> bool:
        return self.step.continue_on_error

    @property
    def patience(self) -> float | None:
        """How long a `wait_for` or an `approve` waits: its own limit or the step's, whichever ends first."""
        wait = self.step.wait_for or self.step.approve
        limits = (wait.timeout if wait is not None else None, self.step.timeout, self.step.total_timeout)
        return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class TriggerPlan:
    """One trigger, ready to match. `pattern` is empty for those that no event sets off."""

    id: str
    pattern: str
    condition: Template | None
    inputs: Value
    trigger: Trigger


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
    limit_key: Value | None = None
    priority: Value | None = None

    @cached_property
    def by_id(self) -> dict[str, StepPlan]:
        return {step.id: step for step in self.steps}

    def node(self, path: str) -> StepPlan:
        """The step of a path, whatever the iteration; of what undoes a step, the undoing one."""
        found = self.by_path.get(path)
        return self.by_path[_INDEXES.sub("", path)] if found is None else found

    @cached_property
    def by_path(self) -> dict[str, StepPlan]:
        """Every step by its path without iterations; what undoes it under `path~undo`."""
        return dict(_walk(self.steps, ""))

    @cached_property
    def intents(self) -> frozenset[str]:
        """The intents that its steps call."""
        return frozenset(step.target for step in self.by_path.values() if step.kind == "plugin")

    @cached_property
    def children(self) -> frozenset[str]:
        """The workflows that its steps start."""
        return frozenset(step.target for step in self.by_path.values() if step.kind == "workflow")

    def priority_of(self, inputs: Mapping[str, Any]) -> int:
        """How soon a queued run with these inputs has its turn; 0 where its expression makes no number."""
        if self.priority is None:
            return int(self.workflow.priority)
        try:
            found = self.priority({"inputs": inputs})
        except ExpressionError:
            return 0
        return max(-MOST_URGENT, min(int(found), MOST_URGENT)) if isinstance(found, int | float) else 0

    @property
    def limited(self) -> bool:
        """Whether its runs may have to queue."""
        return self.workflow.concurrency is not None or self.workflow.rate is not None

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Inputs that the schema has a `default` for, by name."""
        return defaults(self.workflow.inputs)

    def filled(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs, with the defaults of those that were not given."""
        return {**self.defaults, **inputs} if self.defaults else inputs

    def check_inputs(self, inputs: Mapping[str, Any]) -> bytes:
        """The inputs with their defaults as JSON, checked against the definition's schema.

        Raises:
            InvalidPayload: they do not fit; the message names each field.
        """
        inputs = self.filled(inputs)
        raw = encode(inputs, what=f"the inputs of {self.slug}")
        if self.schema is not None:
            self.schema.check(inputs, f"inputs of {self.slug}")
        return raw


def _walk(steps: tuple[StepPlan, ...], prefix: str) -> Iterator[tuple[str, StepPlan]]:
    for step in steps:
        path = prefix + step.id
        yield path, step
        if step.undo is not None:
            yield path + UNDO, step.undo
        yield from _walk(step.children, path + "/")


def compile_plan(
    workflow: Workflow, expressions: Expressions, source: Source, payload: Payload = lambda name, data: data
) -> Plan:
    """Compile a definition that was read from `source`.

    Args:
        payload: what an event of a type carries when it is emitted with some data; raises InvalidInput for what it
            does not take.

    Raises:
        InvalidDefinition: an expression does not parse or names what is not there, or `inputs` is no JSON Schema.
    """
    return _Compiler(workflow, expressions, source, payload).compile()


def _kind_of(step: Step) -> tuple[str, str]:
    kind = step.kinds[0]
    if step.wait_for is not None:
        return kind, step.wait_for.event or SIGNALLED
    return kind, getattr(step, kind) if kind in ("plugin", "workflow", "emit", "hook") else ""


def _given(step: Step) -> tuple[Any, Path]:
    """What a step is given, which may hold expressions, and where it stands."""
    if step.wait_for is not None:
        return step.wait_for.match, ("wait_for", "match")
    if step.approve is not None:
        return {"message": step.approve.message, "input": step.with_ or {}}, ("approve",)
    return step.with_, ("with",)


def _emitted(value: Value, payload: Payload, type: str, scope: Mapping[str, Any]) -> Any:
    return payload(type, value(scope))


def _as_written(path: Path) -> Path:
    """Where a text stands in the definition: what an approval shows besides its message is its `with`, and what stands
    around a secret is one text with it."""
    if len(path) > 2 and path[-2] == MARK:
        return path[:-2]
    if len(path) > 3 and path[-3] == "approve" and path[-2] == "input":
        return (*path[:-3], "with", path[-1])
    return path


class _Compiler:
    def __init__(self, workflow: Workflow, expressions: Expressions, source: Source, payload: Payload) -> None:
        self._workflow, self._expressions, self._source, self._payload = workflow, expressions, source, payload
        self._problems: list[Problem] = []
        self._ids: list[str] = []

    def compile(self) -> Plan:
        workflow = self._workflow
        body = workflow.as_dict()
        steps = self._block(workflow.steps, ("steps",), _STEP_NAMES)
        self._ids = [step.id for step in workflow.steps]
        triggers = tuple(self._trigger(trigger, ("triggers", i)) for i, trigger in enumerate(workflow.triggers))
        outputs = self._value(workflow.outputs, _STEP_NAMES, ("outputs",))
        key = workflow.concurrency.key if workflow.concurrency else None
        limit_key = None if key is None else self._value(key, frozenset({"inputs"}), ("concurrency", "key"))
        priority = self._priority(workflow.priority)
        schema = self._schema()
        if self._problems:
            raise InvalidDefinition(self._problems)
        about = (workflow.slug, digest(body), encode(body), workflow)
        return Plan(*about, steps, triggers, outputs, schema, limit_key, priority)

    def _priority(self, source: int | str) -> Value | None:
        if isinstance(source, str) and "{{" not in source:
            self._problems.append(self._source.problem(("priority",), "is a number, or an expression of inputs"))
        return self._value(source, frozenset({"inputs"}), ("priority",)) if isinstance(source, str) else None

    def _block(self, steps: tuple[Step, ...], at: Path, names: frozenset[str]) -> tuple[StepPlan, ...]:
        """The steps of a definition or a group; their expressions see the steps around the group too."""
        around, needs = self._ids, needs_of(steps)
        self._ids = [*around, *(step.id for step in steps)]
        found = tuple(self._step(step, needs[step.id], (*at, i), names) for i, step in enumerate(steps))
        self._ids = around
        return found

    def _step(self, step: Step, needs: tuple[str, ...], at: Path, names: frozenset[str]) -> StepPlan:
        inner = names if step.foreach is None else names | _ITEM_NAMES
        kind, target = _kind_of(step)
        source, key = _given(step)
        params, secrets = self._given(kind, target, {} if source is None else source, inner, (*at, *key))
        return StepPlan(
            id=step.id,
            kind=kind,
            target=target,
            params=params,
            condition=self._condition(step.if_, names, (*at, "if")),
            needs=needs,
            step=step,
            retry=step.retry,
            timeout=step.timeout,
            children=self._block(step.steps or (), (*at, "steps"), inner),
            items=None if step.foreach is None else self._value(step.foreach, names, (*at, "foreach")),
            undo=self._undo(step, (*at, "compensate"), inner),
            outputs=None if step.outputs is None else self._outputs(step, (*at, "outputs"), inner),
            secrets=secrets,
        )

    def _outputs(self, step: Step, at: Path, names: frozenset[str]) -> Value:
        around = self._ids
        self._ids = [*around, *(one.id for one in step.steps or ())]
        value = self._value(step.outputs, names | _OUTPUT, at)
        self._ids = around
        return value

    def _undo(self, step: Step, at: Path, names: frozenset[str]) -> StepPlan | None:
        undo = step.compensate
        if undo is None:
            return None
        source = {"output": "{{ output }}"} if undo.with_ is None else undo.with_
        target = getattr(undo, kind := undo.kinds[0])
        params, secrets = self._given(kind, target, source, names | _OUTPUT, (*at, "with"))
        return StepPlan(
            id=step.id + UNDO,
            kind=kind,
            target=target,
            params=params,
            condition=None,
            needs=(),
            step=step,
            retry=undo.retry,
            timeout=undo.timeout,
            secrets=secrets,
        )

    def _trigger(self, trigger: Trigger, at: Path) -> TriggerPlan:
        text = encode(trigger.model_dump(mode="json", by_alias=True, exclude_defaults=True)).decode()
        self._problems += [self._source.problem((*at, key), message) for key, message in mistimed(trigger)]
        pattern = "on_command" if trigger.command else trigger.event or ""
        given = {"event": "{{ event }}"} if trigger.event or trigger.command else {}
        return TriggerPlan(
            id=trigger.id or text_digest(text)[:16],
            pattern=ALIASES.get(pattern, pattern),
            condition=self._condition(trigger.if_, _TRIGGER_NAMES, (*at, "if")),
            inputs=self._value(given if trigger.with_ is None else trigger.with_, _TRIGGER_NAMES, (*at, "with")),
            trigger=trigger,
        )

    def _condition(self, source: str | None, names: frozenset[str], at: Path) -> Template | None:
        if source is None:
            return None
        # People write `if: steps.a.output.ok` as often as with braces; both mean the expression.
        text = source if "{{" in source or "{%" in source else "{{ " + source + " }}"
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
            self._problems += self._faults(source, names, at) or [self._source.problem(at, str(error))]
            return lambda scope: None
        compiled = {one.source: one for one in found}
        for path, text in leaves(source, at):
            if text in compiled:
                self._check_steps_named([compiled[text]], _as_written(path))
        self._check_secrets(source, compiled, at)
        return value

    def _check_secrets(self, source: Any, compiled: Mapping[str, Template], at: Path) -> None:
        """A secret is put in when the step is called. Anything made of it here would be made of its name."""
        for path, text in leaves(source, at):
            reads = compiled[text].reads if text in compiled else ()
            if any(name == "secrets" for name, _ in reads) and not marked(text)[1]:
                message = (
                    f"{text!r:.200}: a secret stands by itself: '{{{{ secrets.name }}}}', with text around it or none"
                )
                self._problems.append(self._source.problem(_as_written(path), message))

    def _faults(self, source: Any, names: frozenset[str], at: Path) -> list[Problem]:
        """Where in a value the expressions are that do not compile."""
        problems: list[Problem] = []
        for path, text in leaves(source, at):
            try:
                self._expressions.value(text, names)
            except ExpressionError as error:
                problems.append(self._source.problem(_as_written(path), str(error)))
        return problems

    def _given(
        self, kind: str, target: str, source: Any, names: frozenset[str], at: Path
    ) -> tuple[Value, tuple[Place, ...]]:
        """What a step is given, and where the secrets are in it."""
        if kind in _TAKE_SECRETS:
            source, places = marked(source)
            return self._value(source, names | _SECRETS, at), places
        value = self._value(source, names, at)
        # What a step emits is held against the payload model of its type before it begins.
        return (value if kind != "emit" else partial(_emitted, value, self._payload, target)), ()

    def _check_steps_named(self, templates: list[Template], at: Path) -> None:
        for template in templates:
            for name, attribute in sorted(template.reads):
                if name == "steps" and attribute and attribute not in self._ids:
                    message = f"{template.source!r}: there is no step {attribute!r}{self._instead(attribute)}"
                    self._problems.append(self._source.problem(at, message))

    def _instead(self, step: str) -> str:
        for _, one in walk(self._workflow.steps):
            if one.steps is not None and step in [inner.id for inner in one.steps]:
                return f" here; it is inside the group {one.id!r}, of which others see the output only"
        return did_you_mean(step, self._ids)

    def _schema(self) -> Schema | None:
        if self._workflow.inputs is None:
            return None
        try:
            return Schema(self._workflow.inputs)
        except InvalidInput as error:
            self._problems.append(self._source.problem(("inputs",), error.message))
            return None
