"""Workflow definitions, and starting runs."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.workflows.plan import Plan, TriggerPlan


def _starts(one: TriggerPlan) -> str:
    """What a trigger waits for, in few words: a pattern of events, or `cron 0 9 * * *`."""
    trigger = one.trigger
    kind = next((kind for kind in ("cron", "at", "webhook") if getattr(trigger, kind) is not None), "")
    return f"{kind} {getattr(trigger, kind)}" if kind else one.pattern


def _row(engine: Engine, plan: Plan) -> dict[str, Any]:
    return {
        "slug": plan.slug,
        "name": plan.workflow.name,
        "description": plan.workflow.description,
        "steps": len(plan.steps),
        "triggers": [_starts(one) for one in plan.triggers],
        "intents": sorted(plan.intents),
        "missing_intents": sorted(
            intent for intent in plan.intents if not engine.plugins.calls.knows(intent, engine.tenant)
        ),
        "hash": plan.hash,
        "origin": engine.workflows.registry.origin(plan.slug),
    }


async def list_workflows(engine: Engine) -> list[dict[str, Any]]:
    """Every workflow that can be started."""
    return [_row(engine, plan) for plan in engine.workflows.definitions()]


async def show(engine: Engine, slug: str) -> dict[str, Any]:
    """One workflow with its definition."""
    plan = engine.workflows.registry.get(slug)
    return {**_row(engine, plan), "definition": plan.workflow.as_dict()}


async def start(
    engine: Engine, slug: str, inputs: dict[str, Any] | None = None, idempotency_key: str | None = None
) -> dict[str, Any]:
    """Start a run; returns once it is durable."""
    run = await engine.workflows.start(slug, inputs, idempotency_key=idempotency_key)
    return {"run": run.id, "slug": run.slug}
