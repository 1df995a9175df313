"""Schedules of triggers and plans of plugins: list, pause, run, cancel."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import NotFound
from eventcore.operations.shapes import instant
from eventcore.plugins.plans import Plan
from eventcore.workflows.schedules import Scheduler


def _of(engine: Engine) -> Scheduler:
    assert engine.workflows.schedules is not None
    return engine.workflows.schedules


async def list_schedules(engine: Engine) -> list[dict[str, Any]]:
    """Every schedule of a workflow and every plan of a plugin, and when it is next."""
    workflows = [{**row, "does": f"start {row['slug']}"} for row in await _of(engine).listed()]
    plans = [] if engine.plugins.plans is None else await engine.plugins.plans.listed(engine.tenant)
    return [*workflows, *(_row(name, plan) for name, plan in plans)]


def _row(name: str, plan: Plan) -> dict[str, Any]:
    return {
        "id": name,
        "slug": plan.plugin,
        "says": plan.cron or instant(plan.next),
        "timezone": plan.timezone,
        "paused": False,
        "next": instant(plan.next),
        "buffered": 0,
        "does": f"{plan.do} {plan.target}",
    }


async def cancel(engine: Engine, id: str) -> dict[str, Any]:
    """Give up what a plugin has planned."""
    if engine.plugins.plans is None:
        raise NotFound(f"no plugin has planned {id!r}")
    await engine.plugins.plans.cancel(engine.tenant, id)
    return {"id": id, "cancelled": True}


async def pause(engine: Engine, id: str, resume: bool = False) -> dict[str, Any]:
    """Let a schedule rest; or go on from now."""
    await _of(engine).pause(id, paused=not resume)
    return {"id": id, "paused": not resume}


async def run(engine: Engine, id: str) -> dict[str, Any]:
    """Start its run now."""
    return {"id": id, "run": await _of(engine).run(id)}
