"""Hooks, their handlers in order, commands and hook files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eventcore.engine import Engine
from eventcore.home.catalogue import catalogue_root
from eventcore.hooks.files import HookFile
from eventcore.hooks.registry import STAGES, Handler
from eventcore.hooks.specs import HookSpec
from eventcore.kernel.errors import InvalidInput


def _handler(handler: Handler) -> dict[str, Any]:
    return {"handler": handler.name, "stage": handler.stage, "owner": handler.owner, "why": handler.why()}


def _file(one: HookFile) -> dict[str, Any]:
    return {
        "slug": one.slug,
        "path": str(one.path),
        "error": one.error,
        "handlers": one.handlers,
        "events": one.events,
        "vanished": one.vanished,
        "degraded": one.degraded,
    }


async def list_hooks(engine: Engine) -> dict[str, Any]:
    """Every hook with its handlers in the order of the call, every chat command with its owner, and the hook files."""
    hooks = []
    for spec in engine.hooks.specs:
        stages = engine.hooks.registry.ordered(spec.name)
        handlers = [_handler(handler) for stage in STAGES for handler in stages[stage]]
        hooks.append({"hook": spec.name, "mode": spec.mode, "doc": spec.doc, "handlers": handlers})
    commands = [
        {"command": one.name, "owner": one.owner, "description": one.description, "usage": one.usage}
        for one in engine.hooks.registry.commands()
    ]
    return {"hooks": hooks, "commands": commands, "files": [_file(one) for one in engine.hook_files]}


async def explain(engine: Engine, hook: str) -> dict[str, Any]:
    """The handlers of a hook in the order of a call, each with all that put it there.

    Paths are relative to the home, or begin with `catalogue/`: the answer is the same on every machine.
    """
    spec = engine.hooks.specs.get(hook)
    asked = engine.hooks.specs.get("on_message") if hook == "on_command" else spec
    stages = engine.hooks.registry.ordered(asked.name)
    order = [("gate", one) for one in stages["gate"]]
    order += [("filter", one) for one in stages["filter"]]
    order += [("recheck", one) for one in stages["gate"] if one.recheck]
    if hook == "on_command":
        owners = {one.handler.owner: one.handler for one in engine.hooks.registry.commands()}
        order += [("reply", owners[owner]) for owner in sorted(owners)]
        order += [("observe", one) for one in engine.hooks.registry.ordered(hook)["observe"]]
    else:
        order += [(stage, one) for stage in ("reply", "observe") for one in stages[stage]]
    handlers: list[dict[str, Any]] = []
    before: tuple[str, Handler] | None = None
    for number, (stage, one) in enumerate(order, 1):
        handlers.append({"order": number, **_explained(engine, stage, one, before)})
        before = (stage, one)
    return {"hook": hook, **_rules(spec), "handlers": handlers}


def _rules(spec: HookSpec) -> dict[str, Any]:
    return {
        "mode": spec.mode,
        "doc": spec.doc,
        "timeout": spec.timeout,
        "budget": spec.budget,
        "on_error": spec.on_error,
        "record": spec.record,
    }


def _explained(engine: Engine, stage: str, one: Handler, before: tuple[str, Handler] | None) -> dict[str, Any]:
    return {
        "stage": stage,
        "handler": one.name,
        "plugin": one.owner,
        "tier": one.tier,
        "before": list(one.before),
        "after": list(one.after),
        "priority": one.priority,
        "place": _place(engine, one.place),
        "why": _why(stage, one, before),
        "degraded": engine.hooks.room.breaker.open(one.owner),
    }


def _why(stage: str, one: Handler, before: tuple[str, Handler] | None) -> str:
    """What decided that it stands behind the one before it."""
    if before is None or before[0] != stage:
        return f"first of the stage {stage}"
    other = before[1]
    if other.tier != one.tier:
        return f"tier {one.tier} comes after tier {other.tier}"
    if one.after or other.before:
        for name in (*one.after, *other.before):
            if name in (one.owner, one.name, other.owner, other.name):
                return f"before/after puts it behind {other.name}"
    if other.priority > one.priority:
        return f"priority {one.priority} is lower than {other.priority}"
    if one.priority == other.priority and other.owner < one.owner:
        return f"the name {one.owner} comes after {other.owner}"
    if one.priority == other.priority and other.owner == one.owner:
        return f"line {one.line} comes after line {other.line}"
    return "before/after put others ahead of it"


def _place(engine: Engine, place: str) -> str:
    roots = [("catalogue/", catalogue_root())]
    if engine.home is not None:
        roots.insert(0, ("", Path(engine.home)))
    for prefix, root in roots:
        if Path(place).is_relative_to(root):
            return prefix + Path(place).relative_to(root).as_posix()
    return place


async def reload(engine: Engine, name: str) -> dict[str, Any]:
    """Read a hook file again. One that cannot be loaded leaves the running code as it is.

    Raises:
        NotFound: there is no such hook file.
        InvalidInput: it could not be loaded; says why.
    """
    found = await engine.hook_files.reload(name)
    if found.error is not None:
        raise InvalidInput(f"{name} could not be reloaded; what it was goes on: {found.error}", hint=str(found.path))
    return _file(found)
