"""A workflow definition: the model of what people write, and how its mistakes are told.

YAML, a mapping, and Python code make the same model. `plan.py` compiles it into what the reducer reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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

MAX_STEPS = 1000
_MAX_DURATION = 100 * 366 * 86400
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_STEP_ID = re.compile(r"[a-z][a-z0-9_]{0,63}")
STEP_KINDS = ("plugin", "emit", "sleep")


def seconds(value: Any) -> float:
    """A duration in seconds: a number, or a text like `500ms`, `30s`, `1h30m`, `2d`.

    Raises:
        ValueError: it is neither, or negative.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("a duration cannot be negative")
        return _bounded(float(value), value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match or not any(match.groups()):
        raise ValueError(f"{value!r} is no duration; write seconds, or 500ms, 30s, 1h30m, 2d")
    days, hours, minutes, secs, millis = (float(part or 0) for part in match.groups())
    return _bounded(days * 86400 + hours * 3600 + minutes * 60 + secs + millis / 1000, value)


def _bounded(found: float, written: Any) -> float:
    if not found <= _MAX_DURATION:  # NaN is not, either
        raise ValueError(f"{written!r:.40} is no duration; the longest is {_MAX_DURATION // 86400:,} days")
    return found


Duration = Annotated[float, BeforeValidator(seconds)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Retry(_Model):
    """When a step's failure is tried again.

    `attempts` counts all tries. The wait before try n+1 is `initial` (constant) or `initial * 2**(n-1)` (exponential),
    at most `max` seconds, and with `jitter` a random part of that ("full jitter").
    """

    attempts: int = Field(3, ge=1, le=100)
    backoff: Literal["constant", "exponential"] = "exponential"
    initial: Duration = 1.0
    max: Duration = 60.0
    jitter: bool = True
    only: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


class Step(_Model):
    """One node. Exactly one of `plugin`, `emit` and `sleep` says what it does."""

    id: str
    plugin: str | None = None
    emit: str | None = None
    sleep: Duration | None = None
    with_: Any = Field(None, alias="with")
    if_: str | None = Field(None, alias="if")
    needs: tuple[str, ...] | None = None
    retry: Retry | None = None
    timeout: Duration | None = None
    continue_on_error: bool = False

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in STEP_KINDS if getattr(self, kind) is not None]


class Trigger(_Model):
    """What starts a run by itself. `id` defaults to a hash of the trigger's text."""

    id: str | None = None
    event: str
    if_: str | None = Field(None, alias="if")
    with_: dict[str, Any] | None = Field(None, alias="with")


class Workflow(_Model):
    """A definition as people write it."""

    slug: str
    name: str | None = None
    description: str = ""
    triggers: tuple[Trigger, ...] = ()
    inputs: dict[str, Any] | None = None
    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS)
    outputs: Any = None

    def as_dict(self) -> dict[str, Any]:
        """The definition as JSON, without defaults: what is hashed, stored and shown."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def read_workflow(path: Path) -> tuple[Workflow, Source]:
    """The definition in a YAML file.

    Raises:
        InvalidDefinition: with file, line and key of each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDefinition([Problem(str(path), None, "", f"cannot be read: {error}")]) from None
    return parse_workflow(text, str(path))


def parse_workflow(source: str | Mapping[str, Any] | Workflow, file: str = "<definition>") -> tuple[Workflow, Source]:
    """The definition in a YAML text, or the same as a mapping.

    Raises:
        InvalidDefinition: with line and key of each mistake.
    """
    if isinstance(source, Workflow):
        document, value = None, source.as_dict()
    elif isinstance(source, str):
        document = parse(source, file, "yaml", error=InvalidDefinition)
        value = document.value
    else:
        document, value = None, dict(source)
        encode(value, what="the definition")
    place = Source(file, document)
    if not isinstance(value, dict):
        raise InvalidDefinition([place.problem((), "a workflow is a mapping with slug and steps")])
    try:
        workflow = Workflow.model_validate(value)
    except ValidationError as error:
        raise InvalidDefinition([_problem(item, place) for item in _telling(error.errors())]) from None
    problems = [*_check_names(workflow, place), *_check_steps(workflow, place)]
    if problems:
        raise InvalidDefinition(problems)
    return workflow, place


class Source:
    """Where a definition comes from, for messages."""

    def __init__(self, file: str, document: Document | None) -> None:
        self._file, self._document = file, document

    def problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        line = self._document.line(path) if self._document else None
        return Problem(self._file, line, dotted(path), message)


_MODELS: dict[str, type[BaseModel]] = {"steps": Step, "triggers": Trigger, "retry": Retry}


def _telling(items: list[Any]) -> list[Any]:
    """Without "steps is too short" where it is only so because the steps that are there have mistakes."""
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
        check(canonical_pattern, trigger.event, ("triggers", index, "event"))
        if trigger.id is not None and trigger.id in [one.id for one in workflow.triggers[:index]]:
            problems.append(place.problem(("triggers", index, "id"), f"there is a trigger {trigger.id!r} already"))
    for index, step in enumerate(workflow.steps):
        if step.emit is not None:
            check(_own_event, step.emit, ("steps", index, "emit"))
    return problems


def _own_event(name: str) -> None:
    stored = event_type(name)
    if stored in CORE_EVENTS or is_hook_event(stored):
        raise InvalidName(f"only the host emits {stored}", hint="use a name of your own")


def _check_steps(workflow: Workflow, place: Source) -> list[Problem]:
    problems: list[Problem] = []
    ids = [step.id for step in workflow.steps]
    for index, step in enumerate(workflow.steps):
        at = ("steps", index)
        if not _STEP_ID.fullmatch(step.id):
            problems.append(place.problem((*at, "id"), f"{step.id!r} is no step id; use a-z, 0-9 and _"))
        if step.id in ids[:index]:
            problems.append(place.problem((*at, "id"), f"there is a step {step.id!r} already"))
        if len(step.kinds) != 1:
            found = " and ".join(step.kinds) or "none"
            problems.append(place.problem(at, f"a step has exactly one of {', '.join(STEP_KINDS)}; this has {found}"))
        problems.extend(
            place.problem((*at, "needs"), f"there is no step {need!r}{did_you_mean(need, ids)}")
            for need in step.needs or ()
            if need not in ids
        )
    return problems or _check_cycle(workflow, place)


def _check_cycle(workflow: Workflow, place: Source) -> list[Problem]:
    try:
        TopologicalSorter(needs_of(workflow)).prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        return [place.problem(("steps",), f"steps need each other in a circle: {cycle}")]
    return []


def needs_of(workflow: Workflow) -> dict[str, tuple[str, ...]]:
    """What each step waits for: its `needs`, or the step above it."""
    result: dict[str, tuple[str, ...]] = {}
    above: tuple[str, ...] = ()
    for step in workflow.steps:
        result[step.id] = above if step.needs is None else step.needs
        above = (step.id,)
    return result
