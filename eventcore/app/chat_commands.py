"""Chat commands that start workflows: a trigger `command: /report` is one that nobody else has to declare."""

from __future__ import annotations

from typing import Any

from eventcore.hooks.registry import ChatCommand, Handler
from eventcore.workflows.registry import Registry


class WorkflowCommands:
    """The commands of all definitions, as they are now. What they start is started by the event of the command."""

    def __init__(self, definitions: Registry) -> None:
        self._definitions = definitions

    def __call__(self) -> list[ChatCommand]:
        found: dict[str, ChatCommand] = {}
        for plan in self._definitions:
            about = plan.workflow.description or plan.workflow.name or f"Start {plan.slug}"
            for one in plan.triggers:
                if one.trigger.command is not None:
                    name = f"/{one.trigger.command.removeprefix('/')}"
                    owner, place = f"workflow:{plan.slug}", self._definitions.origin(plan.slug)
                    handler = Handler("on_command", owner, "trigger", "reply", place=place, local=_say_nothing)
                    found.setdefault(name, ChatCommand(name, owner, about, name, handler))
        return [*found.values()]


async def _say_nothing(command: str, args: list[Any]) -> None:
    """The run is the answer."""
