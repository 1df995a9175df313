"""A workflow definition: the model of what people write, and how its mistakes are told.

YAML, a mapping, and Python code make the same model. `plan.py` compiles it into what the reducer reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from eventcore.kernel.documents import Document, dotted, parse
from eventcore.kernel.errors import InvalidDefinition, InvalidName, Problem
from eventcore.kernel.json import encode
from eventcore.kernel.names import (
    CORE_EVENTS,
    canonical_pattern,
    did_you_mean,
    event_type,
    is_hook_event,
    workflow_slug,
)
from eventcore.workflows.durations import Duration

MAX_STEPS = 1000
_STEP_ID = re.compile(r"[a-z][a-z0-9_]{0,63}")
STEP_KINDS = ("plugin", "workflow", "emit", "wait_for", "approve", "sleep", "hook", "steps")
UNDO_KINDS = ("plugin", "workflow", "emit")
#: The most items that one `foreach` goes through.
MAX_ITEMS = 10_000


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Retry(_Model):
    """When a step's failure is tried again.

    `attempts` counts all tries. The wait before try n+1 is `initial` (constant) or `initial * 2**(n-1)` (exponential),
    at most `max` seconds, and with `jitter` a random part of that ("full jitter"). `on_exhausted: pause` pauses the run
    when no try is left: `runs resume` then gives the step a fresh budget.
    """

    attempts: int = Field(3, ge=1, le=100)
    backoff: Literal["constant", "exponential"] = "exponential"
    initial: Duration = 1.0
    max: Duration = 60.0
    jitter: bool = True
    only: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    on_exhausted: Literal["fail", "pause"] = "fail"


class WaitFor(_Model):
    """An event that a step waits for, the run's past since its start included.

    `match` maps paths into the event (`run`, `order.id` mean `data.run`, `data.order.id`; `event.actor` the envelope)
    to values. `signal` waits for `runs signal` instead of an event. The output is the event, of a signal its data.
    """

    event: str | None = None
    signal: str | None = None
    match: dict[str, Any] = Field(default_factory=dict)
    timeout: Duration | None = None
    on_timeout: Literal["fail", "continue"] = "fail"


class Approve(_Model):
    """A person's yes or no. Any of `roles` may decide; no roles: the operator. The output tells who, when and why."""

    message: str = ""
    roles: tuple[str, ...] = ()
    timeout: Duration | None = None
    on_timeout: Literal["fail", "continue"] = "fail"


class Compensate(_Model):
    """What undoes a finished step when its run fails or is cancelled. Sees the step's `output`."""

    plugin: str | None = None
    workflow: str | None = None
    emit: str | None = None
    with_: Any = Field(None, alias="with")
    retry: Retry = Retry(attempts=5)
    timeout: Duration | None = None

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in UNDO_KINDS if getattr(self, kind) is not None]


def _approve(value: Any) -> Any:
    """`approve: "Ship it?"` is short for its message."""
    return {"message": value} if isinstance(value, str) else {} if value is True else value


class Step(_Model):
    """One node. Exactly one of `STEP_KINDS` says what it does; the rest modifies how.

    `foreach` runs it once an item (`item`, `index` in expressions), `max_parallel` at once, outputs in the items'
    order. `on_item_error`: `stop` starts no further items and fails, `finish` runs all and then fails, `ignore` leaves
    null for the failed. `timeout` limits an attempt, `total_timeout` all of them with the waits between.
    """

    id: str
    plugin: str | None = None
    workflow: str | None = None
    emit: str | None = None
    wait_for: WaitFor | None = None
    approve: Annotated[Approve | None, BeforeValidator(_approve)] = None
    sleep: Duration | None = None
    hook: str | None = None
    steps: tuple[Step, ...] | None = None
    with_: Any = Field(None, alias="with")
    if_: str | None = Field(None, alias="if")
    needs: tuple[str, ...] | None = None
    foreach: str | list[Any] | None = None
    max_parallel: int = Field(10, ge=1, le=1000)
    on_item_error: Literal["stop", "finish", "ignore"] = "stop"
    retry: Retry | None = None
    timeout: Duration | None = None
    total_timeout: Duration | None = None
    continue_on_error: bool = False
    compensate: Compensate | None = None
    outputs: Any = None

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in STEP_KINDS if getattr(self, kind) is not None]


TRIGGER_KINDS = ("event", "command", "cron", "at", "webhook")


class Trigger(_Model):
    """What starts a run by itself: exactly one of `TRIGGER_KINDS`. `id` defaults to a hash of the trigger's text.

    `event` is a type or pattern (hooks are events: `on_message`), `command` a chat command (`/report`), `cron` five
    fields, `at` a time (RFC 3339), `webhook` a name that callers put into the address.
    """

    id: str | None = None
    event: str | None = None
    command: str | None = None
    cron: str | None = None
    at: str | None = None
    webhook: str | None = None
    if_: str | None = Field(None, alias="if")
    with_: dict[str, Any] | None = Field(None, alias="with")
    timezone: str = "UTC"
    missed: Literal["none", "last", "all"] = "last"
    window: Duration = 86400.0
    overlap: Literal["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow"] = "skip"
    jitter: Duration = 0.0

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in TRIGGER_KINDS if getattr(self, kind) is not None]


class Concurrency(_Model):
    """How many runs may be live at once, of the workflow or of each `key`; what happens to one too many."""

    limit: int = Field(ge=1, le=100_000)
    key: str | None = None
    on_limit: Literal["queue", "skip", "cancel_oldest"] = "queue"
    max_queued: int = Field(10_000, ge=1, le=1_000_000)


class Rate(_Model):
    """At most `limit` runs begin in any `per` seconds; the others are queued."""

    limit: int = Field(ge=1, le=100_000)
    per: Duration = 60.0


class Workflow(_Model):
    """A definition as people write it."""

    slug: str
    name: str | None = None
    description: str = ""
    triggers: tuple[Trigger, ...] = ()
    inputs: dict[str, Any] | None = None
    concurrency: Concurrency | None = None
    rate: Rate | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] | str = 0
    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS)
    outputs: Any = None

    def as_dict(self) -> dict[str, Any]:
        """The definition as JSON, without defaults: what is hashed, stored and shown."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def read_workflow(path: Path) -> tuple[Workflow, Source]:
    """The definition in a YAML file; raises as `parse_workflow` does."""
    value, place = read_value(path, str(path))
    return check_value(value, place), place


def parse_workflow(source: str | Mapping[str, Any] | Workflow, file: str = "<definition>") -> tuple[Workflow, Source]:
    """The definition in a YAML text, or the same as a mapping.

    Raises:
        InvalidDefinition: with line and key of each mistake.
    """
    value, place = read_value(source, file)
    return check_value(value, place), place


def read_value(source: str | Mapping[str, Any] | Workflow | Path, file: str) -> tuple[Any, Source]:
    """What stands in a definition, whatever that is; raises InvalidDefinition where it cannot be read."""
    if isinstance(source, Path):
        try:
            source = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidDefinition([Problem(file, None, "", f"cannot be read: {error}")]) from None
    if isinstance(source, Workflow):
        document, value = None, source.as_dict()
    elif isinstance(source, str):
        document = parse(source, file, "yaml", error=InvalidDefinition)
        value = document.value
    else:
        document, value = None, dict(source)
        encode(value, what="the definition")
    return value, Source(file, document)


def check_value(value: Any, place: Source) -> Workflow:
    """The definition that a value holds; raises as `parse_workflow` does."""
    if not isinstance(value, dict):
        raise InvalidDefinition([place.problem((), "a workflow is a mapping with slug and steps")])
    try:
        workflow = Workflow.model_validate(value)
    except ValidationError as error:
        raise InvalidDefinition([_problem(item, place) for item in _telling(error.errors())]) from None
    problems = [*_check_names(workflow, place), *_check_steps(workflow, place)]
    if problems:
        raise InvalidDefinition(problems)
    return workflow


class Source:
    """Where a definition comes from, for messages."""

    def __init__(self, file: str, document: Document | None) -> None:
        self._file, self._document = file, document

    def problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        line = self._document.line(path) if self._document else None
        column = self._document.column(path) if self._document else None
        return Problem(self._file, line, dotted(path), message, column=column)


_MODELS: dict[str, type[BaseModel]] = {
    "steps": Step,
    "triggers": Trigger,
    "retry": Retry,
    "wait_for": WaitFor,
    "approve": Approve,
    "compensate": Compensate,
    "concurrency": Concurrency,
    "rate": Rate,
}


#: Fields that take one of several types: their mistakes come once a type, which nobody can read.
_EITHER = {
    "foreach": "is a list, or an expression that gives one",
    "priority": "is a number from -1000 to 1000, or an expression of inputs",
}


def _telling(items: list[Any]) -> list[Any]:
    """Each mistake once; without "steps is too short" where the steps that are there have mistakes."""
    merged: dict[Any, Any] = {}
    for item in items:
        path = item["loc"]
        if len(path) > 1 and path[-2] in _EITHER and isinstance(path[-1], str):
            path, item = path[:-1], {**item, "loc": path[:-1], "type": "either", "msg": _EITHER[path[-2]]}
        merged.setdefault((path, item["type"]), item)
    items = list(merged.values())
    wrong_steps = any(item["loc"][:1] == ("steps",) and len(item["loc"]) > 1 for item in items)
    return [item for item in items if not (wrong_steps and item["loc"] == ("steps",) and item["type"] == "too_short")]


def _problem(item: Any, place: Source) -> Problem:
    path: tuple[str | int, ...] = tuple(item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        names = [part for part in path[:-1] if isinstance(part, str)]
        model = _MODELS[names[-1]] if names and names[-1] in _MODELS else Workflow
        known = [field.alias or name for name, field in model.model_fields.items()]
        message = f"unknown key{did_you_mean(str(path[-1]), known)}"
    elif item["type"] == "too_short" and path == ("steps",):
        message = "a workflow has at least one step"
    elif item["type"] == "missing":
        message, path = f"{path[-1]} is required", path[:-1]
    return place.problem(path, message)


def _check_names(workflow: Workflow, place: Source) -> list[Problem]:
    problems: list[Problem] = []

    def check(call: Any, value: str, path: tuple[str | int, ...]) -> None:
        try:
            call(value)
        except InvalidName as error:
            problems.append(place.problem(path, str(error)))

    check(workflow_slug, workflow.slug, ("slug",))
    for index, trigger in enumerate(workflow.triggers):
        if len(trigger.kinds) != 1:
            found = " and ".join(trigger.kinds) or "none"
            wanted = ", ".join(TRIGGER_KINDS)
            message = f"a trigger has exactly one of {wanted}; this has {found}"
            problems.append(place.problem(("triggers", index), message))
        if trigger.event is not None:
            check(canonical_pattern, trigger.event, ("triggers", index, "event"))
        if trigger.id is not None and trigger.id in [one.id for one in workflow.triggers[:index]]:
            problems.append(place.problem(("triggers", index, "id"), f"there is a trigger {trigger.id!r} already"))
    for path, step in walk(workflow.steps):
        for called, at in ((step, path), (step.compensate, (*path, "compensate"))):
            if called is not None and called.workflow is not None:
                check(workflow_slug, called.workflow, (*at, "workflow"))
            if called is not None and called.emit is not None:
                check(_own_event, called.emit, (*at, "emit"))
        if step.wait_for is not None and step.wait_for.event is not None:
            check(canonical_pattern, step.wait_for.event, (*path, "wait_for", "event"))
    return problems


def walk(steps: tuple[Step, ...], at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Step]]:
    """Every step with its place in the definition, those inside groups after the group."""
    for index, step in enumerate(steps):
        path = (*at, "steps", index)
        yield path, step
        if step.steps is not None:
            yield from walk(step.steps, path)


def _own_event(name: str) -> None:
    stored = event_type(name)
    if stored in CORE_EVENTS or is_hook_event(stored):
        raise InvalidName(f"only the host emits {stored}", hint="use a name of your own")


def _check_steps(workflow: Workflow, place: Source) -> list[Problem]:
    problems = _check_block(workflow.steps, ("steps",), place)
    if sum(1 for _ in walk(workflow.steps)) > MAX_STEPS:
        message = f"a workflow has at most {MAX_STEPS} steps, those in groups included"
        problems.append(place.problem(("steps",), message))
    return problems


def _check_block(steps: tuple[Step, ...], at: tuple[str | int, ...], place: Source) -> list[Problem]:
    problems: list[Problem] = []
    ids = [step.id for step in steps]
    for index, step in enumerate(steps):
        here = (*at, index)
        if not _STEP_ID.fullmatch(step.id):
            problems.append(place.problem((*here, "id"), f"{step.id!r} is no step id; use a-z, 0-9 and _"))
        if step.id in ids[:index]:
            problems.append(place.problem((*here, "id"), f"there is a step {step.id!r} already"))
        problems.extend(place.problem((*here, *key), message) for key, message in _misfits(step))
        problems.extend(
            place.problem((*here, "needs"), f"there is no step {need!r}{did_you_mean(need, ids)}")
            for need in step.needs or ()
            if need not in ids
        )
        if step.steps is not None:
            problems.extend(_check_block(step.steps, (*here, "steps"), place))
    return problems or _check_cycle(steps, at, place)


def _misfits(step: Step) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not go together in one step: (key, message)."""
    if len(step.kinds) != 1:
        found = " and ".join(step.kinds) or "none"
        yield (), f"a step has exactly one of {', '.join(STEP_KINDS)}; this has {found}"
    if step.steps is not None and not step.steps:
        yield ("steps",), "a group has at least one step"
    if step.retry is not None and step.kinds[:1] not in (["plugin"], ["workflow"], ["hook"]):
        yield ("retry",), "only plugin, workflow and hook steps are retried; in a group, give it to the steps"
    if step.wait_for is not None and (step.wait_for.event is None) == (step.wait_for.signal is None):
        yield ("wait_for",), "wait_for names either an event or a signal"
    if step.compensate is not None and len(step.compensate.kinds) != 1:
        yield ("compensate",), f"compensate has exactly one of {', '.join(UNDO_KINDS)}"
    if isinstance(step.foreach, list) and len(step.foreach) > MAX_ITEMS:
        yield ("foreach",), f"a foreach has at most {MAX_ITEMS:,} items"


def _check_cycle(steps: tuple[Step, ...], at: tuple[str | int, ...], place: Source) -> list[Problem]:
    try:
        TopologicalSorter(needs_of(steps)).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        first = min([step.id for step in steps].index(one) for one in circle)
        message = f"steps need each other in a circle: {' -> '.join(circle)}"
        return [place.problem((*at, first, "needs"), message)]
    return []


def needs_of(steps: tuple[Step, ...]) -> dict[str, tuple[str, ...]]:
    """What each step of a block waits for: its `needs`, or the step above it."""
    result: dict[str, tuple[str, ...]] = {}
    above: tuple[str, ...] = ()
    for step in steps:
        result[step.id] = above if step.needs is None else step.needs
        above = (step.id,)
    return result
