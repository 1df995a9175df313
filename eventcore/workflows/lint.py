"""What `workflows validate` finds beyond mistakes that make a definition unusable.

Everything here is seen without running: who is not there to be called, what can never run, what a start would lack, and
values whose types cannot fit. A definition with errors of this kind could be started; it would fail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from eventcore.kernel.documents import Path
from eventcore.kernel.errors import InvalidDefinition, Problem
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.schemas import Schema, defaults
from eventcore.workflows.definition import Source, Step, Trigger, Workflow, check_value, needs_of, read_value
from eventcore.workflows.expressions import Expressions, Template, leaves
from eventcore.workflows.kinds import Kinds, misfed
from eventcore.workflows.mistakes import all_mistakes
from eventcore.workflows.plan import Plan, compile_plan

_EXPRESSION = "{{"
#: The words of JSON Schema (2020-12) whose values are objects.
_HOLDING_SCHEMAS = frozenset(
    "additionalProperties patternProperties propertyNames dependentSchemas dependentRequired unevaluatedProperties "
    "$defs definitions $vocabulary items contains not if then else const default allOf anyOf oneOf".split()
)
#: Names that every event-triggered start has without a `with`.
_DEFAULT_INPUTS = {"event": "{{ event }}"}


@dataclass(frozen=True)
class Surroundings:
    """What a definition may call.

    Attributes:
        intents: those that somebody answers, or None if that is not known.
        workflows: definitions by slug, or None if they are not known.
        external: slugs that other engines serve, besides those in `workflows`; None: they may serve any.
        kinds: what the capabilities among the intents take and give.
        takes: JSON Schemas of the parameters of intents, as far as plugins say.
        hooks: hooks by name, or None if they are not known; code may declare more.
        searched: the places where workflows were looked for, for messages.
    """

    intents: Collection[str] | None = None
    workflows: Mapping[str, Workflow] | None = None
    external: Collection[str] | None = ()
    searched: tuple[str, ...] = field(default=())
    kinds: Kinds = field(default_factory=dict)
    takes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hooks: Collection[str] | None = None

    def elsewhere(self, slug: str) -> bool:
        """Whether another engine serves a slug, as far as settings tell."""
        return self.external is None or slug in self.external


def check_file(path: FilePath, around: Surroundings | None = None) -> tuple[Plan, list[Problem]]:
    """The compiled definition of a file, and what `lint` says of it.

    Raises:
        InvalidDefinition: it is not usable at all; has file, line and key of each mistake.
    """
    known = around or Surroundings()
    value, place = read_value(path, str(path))

    def look(workflow: Workflow) -> list[Problem]:
        compile_plan(workflow, Expressions(), place)
        return lint(workflow, place, known)

    try:
        workflow = check_value(value, place)
        plan = compile_plan(workflow, Expressions(), place)
    except InvalidDefinition as error:
        raise InvalidDefinition(all_mistakes(value, place, error.problems, look)) from None
    return plan, lint(workflow, place, known)


def lint(workflow: Workflow, place: Source, around: Surroundings) -> list[Problem]:
    """What is wrong, or looks so, in a definition that compiles; in the order of its text."""
    check = _Check(workflow, place, around)
    check.inputs()
    check.triggers()
    check.block(workflow.steps, ("steps",), frozenset())
    check.expressions(workflow.outputs, ("outputs",))
    check.circle()
    return check.found


class _Check:
    def __init__(self, workflow: Workflow, place: Source, around: Surroundings) -> None:
        self._workflow, self._place, self._around = workflow, place, around
        self._templates = Expressions()
        self.found: list[Problem] = []

    def _error(self, at: Path, message: str) -> None:
        self.found.append(self._place.problem(at, message))

    def _warn(self, at: Path, message: str) -> None:
        problem = self._place.problem(at, message)
        problem.warning = True
        self.found.append(problem)

    def inputs(self) -> None:
        """Whether the inputs were written where the words of a JSON Schema stand."""
        schema = self._workflow.inputs or {}
        for name, value in schema.items():
            if "properties" not in schema and isinstance(value, dict) and name not in _HOLDING_SCHEMAS:
                self._warn(("inputs", name), "is no word of JSON Schema; inputs stand under `properties`")

    # -- triggers ----------------------------------------------------------------------------------------------------

    def triggers(self) -> None:
        for index, trigger in enumerate(self._workflow.triggers):
            at: Path = ("triggers", index)
            if self._never(trigger.if_):
                self._warn((*at, "if"), "is never true, so this trigger starts nothing")
            given = _given(trigger)
            if given is not None:
                at = (*at, "with") if trigger.with_ is not None else at
                self._fits(self._workflow.inputs, given, at, f"{self._workflow.slug} starts with")

    def _fits(
        self, schema: Mapping[str, Any] | None, given: Mapping[str, Any], at: Path, what: str, noun: str = "input"
    ) -> None:
        """Whether what is given can fit a schema: `inputs` of a workflow, or the parameters of an intent."""
        if schema is None:
            return
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in given and name not in defaults(schema):
                self._error(at, f"{what} the {noun} {name!r}, which is required and not given here")
        for name, value in given.items():
            here = (*at, name)
            if name not in properties:
                if schema.get("additionalProperties") is False:
                    self._error(here, f"there is no {noun} {name!r}{did_you_mean(name, properties)}")
                elif properties and given is not _DEFAULT_INPUTS:
                    self._warn(here, f"there is no {noun} {name!r}{did_you_mean(name, properties) or ' in its schema'}")
            elif why := _misfit(properties[name], value):
                self._error(here, why)

    # -- steps -------------------------------------------------------------------------------------------------------

    def block(self, steps: tuple[Step, ...], at: Path, before: frozenset[str]) -> None:
        """Steps of a definition or a group; `before` are those outside that are over by then."""
        needs = needs_of(steps)
        ids = frozenset(step.id for step in steps)
        for index, step in enumerate(steps):
            here = (*at, index)
            over = _all_before(step.id, needs)
            self._calls(step, here)
            self._hook(step, here)
            self._reachable(step, here)
            for key in _idle_limits(step):
                self._warn((*here, key), f"has no effect on a step of the kind {step.kinds[0]}")
            for why in misfed(step, self._workflow, self._around.kinds, self._all):
                self._error((*here, "with"), why)
            for key, source in _sources(step):
                inner = ids if key == "outputs" and step.steps else frozenset()
                there = (*here, "wait_for", key) if key == "match" else (*here, key)
                self._order(source, there, (ids - over - {step.id}) - inner)
                self.expressions(source, there)
            if step.steps is not None:
                self.block(step.steps, (*here, "steps"), before | over)

    def _calls(self, step: Step, at: Path) -> None:
        for called, here in ((step, at), (step.compensate, (*at, "compensate"))):
            if called is None:
                continue
            intents = self._around.intents
            if called.plugin is not None and intents is not None and called.plugin not in intents:
                self._warn((*here, "plugin"), f"nobody answers {called.plugin!r}{did_you_mean(called.plugin, intents)}")
            if (schema := self._around.takes.get(called.plugin or "")) and isinstance(called.with_ or {}, dict):
                where = (*here, "with") if called.with_ is not None else here
                self._fits(schema, called.with_ or {}, where, f"{called.plugin} needs", "parameter")
            if called.workflow is not None:
                self._starts(called.workflow, called.with_, here)

    def _hook(self, step: Step, at: Path) -> None:
        hooks = self._around.hooks
        if step.hook is not None and hooks is not None and step.hook not in hooks:
            self._warn((*at, "hook"), f"there is no hook {step.hook!r} here{did_you_mean(step.hook, hooks)}")

    def _starts(self, slug: str, given: Any, at: Path) -> None:
        known = self._around.workflows
        if known is None or _EXPRESSION in slug:
            return
        if slug not in known:
            if not self._around.elsewhere(slug):
                places = f"; searched: {', '.join(self._around.searched)}" if self._around.searched else ""
                self._warn((*at, "workflow"), f"there is no workflow {slug!r}{places}{did_you_mean(slug, known)}")
            return
        if given is None or isinstance(given, dict):
            where = (*at, "with") if given is not None else at
            self._fits(known[slug].inputs, given or {}, where, f"{slug} needs")

    def _reachable(self, step: Step, at: Path) -> None:
        if self._never(step.if_):
            self._warn((*at, "if"), "is never true, so this step never runs")
        if step.if_ is not None and not self._condition(step.if_).single:
            self._warn((*at, "if"), "is text, which is true whenever it is not empty; write one expression")
        if isinstance(step.foreach, str):
            if _EXPRESSION not in step.foreach or not self._templates.compile(step.foreach).single:
                self._error((*at, "foreach"), "is text; foreach goes through a list, so write one expression")
        elif step.foreach == []:
            self._warn((*at, "foreach"), "is empty, so this step never runs")

    def _condition(self, source: str) -> Template:
        return self._templates.compile(source if _EXPRESSION in source else "{{ " + source + " }}")

    def _never(self, source: str | None) -> bool:
        if source is None:
            return False
        template = self._condition(source)
        return not template.reads and not template({})

    # -- expressions -------------------------------------------------------------------------------------------------

    def _order(self, source: Any, at: Path, not_over: frozenset[str]) -> None:
        for here, name, attribute in self._reads(source, at):
            if name == "steps" and attribute in not_over:
                self._warn(here, f"reads steps.{attribute}, which may not have begun; add it to needs")

    def expressions(self, source: Any, at: Path) -> None:
        """Whether the inputs that are read are declared."""
        schema = self._workflow.inputs
        if schema is None or "properties" not in schema:
            return
        for here, name, attribute in self._reads(source, at):
            if name == "inputs" and attribute and attribute not in (properties := schema["properties"]):
                self._warn(here, f"there is no input {attribute!r}{did_you_mean(attribute, properties)}")

    def _reads(self, source: Any, at: Path) -> Iterator[tuple[Path, str, str]]:
        for here, text in leaves(source, at):
            for template in self._all(text):
                yield from ((here, name, attribute) for name, attribute in sorted(template.reads))

    def _all(self, source: Any) -> list[Template]:
        found: list[Template] = []
        self._templates.value(source, None, found)
        return found

    # -- between workflows -------------------------------------------------------------------------------------------

    def circle(self) -> None:
        """Whether the workflow would start itself again through those that it starts."""
        known = {**(self._around.workflows or {}), self._workflow.slug: self._workflow}
        came: dict[str, str] = {}
        waiting = [self._workflow.slug]
        while waiting:
            slug = waiting.pop()
            for called in _called(known[slug]):
                if called == self._workflow.slug:
                    self._warn(("steps",), f"starts itself again: {' -> '.join([*_way(slug, came), called])}")
                    return
                if called in known and called not in came:
                    came[called] = slug
                    waiting.append(called)


def _way(slug: str, came: Mapping[str, str]) -> list[str]:
    way = [slug]
    while way[0] in came:
        way.insert(0, came[way[0]])
    return way


def _called(workflow: Workflow) -> Iterator[str]:
    def inside(steps: tuple[Step, ...]) -> Iterator[str]:
        for step in steps:
            if step.workflow is not None:
                yield step.workflow
            yield from inside(step.steps or ())

    return inside(workflow.steps)


def _all_before(step: str, needs: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    found: set[str] = set()
    waiting = [*needs[step]]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting.extend(needs[one])
    return frozenset(found)


def _sources(step: Step) -> Iterator[tuple[str, Any]]:
    """Everything in a step that may hold expressions, those inside a group left out."""
    if step.if_ is not None:
        yield "if", step.if_ if _EXPRESSION in step.if_ else "{{ " + step.if_ + " }}"
    if step.wait_for is not None:
        yield "match", step.wait_for.match
    for key, source in (("with", step.with_), ("foreach", step.foreach), ("outputs", step.outputs)):
        if source is not None:
            yield key, source


def _idle_limits(step: Step) -> Iterator[str]:
    """Limits of time that nothing looks at: only calls and waits have attempts, only what gathers has a total."""
    kind = step.kinds[0]
    if step.timeout is not None and kind in ("emit", "sleep", "steps"):
        yield "timeout"
    if step.total_timeout is not None and kind in ("emit", "sleep") and step.foreach is None:
        yield "total_timeout"


def _given(trigger: Trigger) -> Mapping[str, Any] | None:
    """The inputs that a trigger gives; None if they come from the caller."""
    if trigger.with_ is not None:
        return trigger.with_
    if trigger.webhook is not None:
        return None
    return _DEFAULT_INPUTS if trigger.event or trigger.command else {}


def _misfit(schema: Any, value: Any) -> str:
    """Why a value can never fit a schema; empty if it may."""
    if not isinstance(schema, dict):
        return ""
    if not _has_expression(value):
        wrong: Callable[[Any], list[str]] = Schema(schema).wrong
        return "; ".join(wrong(value))
    types = schema.get("type")
    types = [types] if isinstance(types, str) else types
    if isinstance(types, list) and (made := _made(value)) and made not in types:
        return f"gives {made}, where {' or '.join(types)} is wanted"
    return ""


def _has_expression(value: Any) -> bool:
    if isinstance(value, str):
        return _EXPRESSION in value
    if isinstance(value, dict | list):
        return any(map(_has_expression, value.values() if isinstance(value, dict) else value))
    return False


def _made(value: Any) -> str:
    """The JSON type that a value with expressions in it comes to, if that can be seen."""
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    return "" if Expressions().compile(value).single else "string"
