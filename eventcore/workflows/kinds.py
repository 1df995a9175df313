"""Whether what one step gives is what the next one takes, by the words that plugins' capabilities have for it.

A capability says `input_type` and `output_type`: `text`, `image`, `audio`, or whatever word its author chose. Words are
compared as they are; one that is missing, or `any`, fits everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from eventcore.workflows.definition import Step, Workflow
from eventcore.workflows.expressions import Template

#: Intent -> (what it takes, what it gives).
Kinds: TypeAlias = Mapping[str, tuple[str, str]]

_ANY = frozenset({"", "any", "json"})


def misfed(step: Step, workflow: Workflow, kinds: Kinds, templates: Callable[[Any], list[Template]]) -> Iterator[str]:
    """Why a step that calls a capability cannot take what it is given, for each step that it reads.

    Args:
        templates: the expressions in a value.
    """
    takes, _ = kinds.get(step.plugin or "", ("", ""))
    if takes in _ANY:
        return
    made = {one.id: kinds.get(one.plugin or "", ("", ""))[1] for one in _all(workflow.steps)}
    read = {attribute for found in templates(step.with_) for name, attribute in found.reads if name == "steps"}
    for source in sorted(one for one in read if one):
        if (gives := made.get(source, "")) not in _ANY and gives != takes:
            yield f"{step.plugin} takes {takes}, and steps.{source} gives {gives}"


def _all(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from _all(step.steps or ())
