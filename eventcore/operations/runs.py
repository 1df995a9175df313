"""Runs: list, show, wait."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput
from eventcore.operations.shapes import instant, run_row

STATUSES = ("queued", "running", "waiting", "paused", "completed", "failed", "cancelled", "terminated")


async def list_runs(
    engine: Engine, slug: str | None = None, status: list[str] | None = None, before: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Runs, newest first."""
    if unknown := set(status or ()) - set(STATUSES):
        raise InvalidInput(f"there is no run status {sorted(unknown)[0]!r}", hint=f"statuses: {', '.join(STATUSES)}")
    if not 1 <= limit <= 10_000:
        raise InvalidInput("limit is between 1 and 10,000")
    rows = await engine.workflows.runs(slug=slug, statuses=tuple(status or ()), before=before, limit=limit)
    return [run_row(row) for row in rows]


async def show(engine: Engine, id: str) -> dict[str, Any]:
    """One run, with each attempt of each step: input, output, how long, and why it ended."""
    run = await (await engine.workflows.run(id)).row()
    attempts: dict[tuple[str, int], dict[str, Any]] = {}
    for entry in await engine.store.journal(run.id):
        data, at = entry.event.data, entry.event.at
        row = attempts.setdefault(
            (entry.step, entry.attempt), {"step": entry.step, "attempt": entry.attempt, "status": "running"}
        )
        match entry.event.type:
            case "step_started":
                row |= {"started": instant(at), "_at": at, "input": data.get("input"), "event": entry.event.id}
                row |= {key: data[key] for key in ("plugin", "emit", "sleep", "interrupted") if key in data}
            case "step_retrying":
                row |= {"status": "retrying", "error": data["error"], "next": instant(data["due"])}
            case "step_completed":
                row |= {"status": data["status"], "ended": instant(at), "output": data.get("output")}
                row |= {"seconds": round(at - row["_at"], 6)} if "_at" in row else {}
            case "step_failed":
                row |= {"error": data["error"]}
    steps = [{key: value for key, value in row.items() if key != "_at"} for row in attempts.values()]
    return {**run_row(run), "steps": steps}


async def wait(engine: Engine, id: str, timeout: float = 60.0) -> dict[str, Any]:
    """Wait for the end of a run and return its head row; `timeout` seconds at most, the row as it is then."""
    handle = await engine.workflows.run(id)
    await handle.over(timeout)
    return run_row(await handle.row())
