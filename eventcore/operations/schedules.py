"""Schedules of triggers: list, pause, run."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.workflows.schedules import Scheduler


def _of(engine: Engine) -> Scheduler:
    assert engine.workflows.schedules is not None
    return engine.workflows.schedules


async def list_schedules(engine: Engine) -> list[dict[str, Any]]:
    """Every schedule, and when it is next."""
    return await _of(engine).listed()


async def pause(engine: Engine, id: str, resume: bool = False) -> dict[str, Any]:
    """Let a schedule rest; or go on from now."""
    await _of(engine).pause(id, paused=not resume)
    return {"id": id, "paused": not resume}


async def run(engine: Engine, id: str) -> dict[str, Any]:
    """Start its run now."""
    return {"id": id, "run": await _of(engine).run(id)}
