"""Approvals that runs wait for."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine


async def list_approvals(engine: Engine) -> list[dict[str, Any]]:
    """What somebody has to decide."""
    return await engine.workflows.verbs.approvals()


async def approve(engine: Engine, id: str, step: str | None = None, note: str = "") -> dict[str, Any]:
    """Say yes."""
    return await _decide(engine, id, step, note, approved=True)


async def deny(engine: Engine, id: str, step: str | None = None, note: str = "") -> dict[str, Any]:
    """Say no; the step fails."""
    return await _decide(engine, id, step, note, approved=False)


async def _decide(engine: Engine, id: str, step: str | None, note: str, *, approved: bool) -> dict[str, Any]:
    decided = await engine.workflows.verbs.decide(id, step, approved=approved, note=note)
    return {"run": id, "step": decided, "approved": approved}
