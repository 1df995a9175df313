"""Hooks, their handlers in order, commands and hook files."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.hooks.registry import STAGES, Handler
from eventcore.hooks.specs import HOOKS


def _handler(handler: Handler) -> dict[str, Any]:
    return {"handler": handler.name, "stage": handler.stage, "owner": handler.owner, "why": handler.why()}


async def list_hooks(engine: Engine) -> dict[str, Any]:
    """Every hook with its handlers in the order of the call, every chat command with its owner, and the hook files."""
    hooks = []
    for spec in HOOKS.values():
        stages = engine.hooks.registry.ordered(spec.name)
        handlers = [_handler(handler) for stage in STAGES for handler in stages[stage]]
        hooks.append({"hook": spec.name, "mode": spec.mode, "doc": spec.doc, "handlers": handlers})
    commands = [
        {"command": one.name, "owner": one.owner, "description": one.description, "usage": one.usage}
        for one in engine.hooks.registry.commands()
    ]
    files = [
        {"slug": one.slug, "path": str(one.path), "error": one.error, "handlers": one.handlers, "events": one.events}
        for one in engine.hook_files
    ]
    return {"hooks": hooks, "commands": commands, "files": files}
