"""Runs: list, show, wait."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput
from eventcore.operations.attempts import attempts, deeds
from eventcore.operations.auditing import audit
from eventcore.operations.shapes import run_row
from eventcore.operations.times import span

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
    """One run, with each attempt of each step (input, output, how long, why it ended), and what was done to it."""
    run = await (await engine.workflows.run(id)).row()
    journal = await engine.store.journal(run.id)
    return {**run_row(run), "steps": attempts(journal), "deeds": deeds(journal)}


async def wait(engine: Engine, id: str, timeout: float = 60.0) -> dict[str, Any]:
    """Wait for the end of a run and return its head row; `timeout` seconds at most, the row as it is then."""
    handle = await engine.workflows.run(id)
    await handle.over(timeout)
    return run_row(await handle.row())


async def prune(engine: Engine, older_than: str | float, dry_run: bool = False) -> dict[str, Any]:
    """Remove runs that ended long enough ago, with their journals."""
    age = span(older_than, "older_than")
    gone = await engine.archive.prune_runs(older_than=age, tenant=engine.tenant, dry_run=dry_run)
    if not dry_run:
        await audit(engine, "prune", f"runs that ended more than {age:g} s ago")
    return {"runs": gone.runs, "entries": gone.entries, "dry_run": dry_run}


async def signal(engine: Engine, id: str, signal: str, data: Any = None) -> dict[str, Any]:
    """Tell a run something that a step waits for, or will."""
    await engine.workflows.signal(id, signal, data)
    return run_row(await (await engine.workflows.run(id)).row())


async def answer(engine: Engine, token: str, data: Any = None) -> dict[str, Any]:
    """Take in what another engine sends to a `resume_url`; each token counts once."""
    run = await engine.workflows.answer(token, data)
    return run_row(await (await engine.workflows.run(run)).row())


async def pause(engine: Engine, id: str, reason: str = "") -> dict[str, Any]:
    """Steps in flight finish, nothing new starts."""
    return run_row(await engine.workflows.pause(id, reason))


async def resume(engine: Engine, id: str) -> dict[str, Any]:
    """Let a paused run go on."""
    return run_row(await engine.workflows.resume(id))


async def cancel(engine: Engine, id: str, reason: str = "") -> dict[str, Any]:
    """Stop a run, its children first, and undo what it finished."""
    return run_row(await engine.workflows.cancel(id, reason))


async def terminate(engine: Engine, id: str, reason: str = "") -> dict[str, Any]:
    """Stop a run at once; nothing is undone."""
    return run_row(await engine.workflows.terminate(id, reason))


async def retry(engine: Engine, id: str, same_key: bool = False) -> dict[str, Any]:
    """Go on from the failed steps."""
    return run_row(await engine.workflows.retry(id, same_key=same_key))


async def fork(engine: Engine, id: str, step: str, definition: str = "old") -> dict[str, Any]:
    """A new run from one step of an old one on."""
    handle = await engine.workflows.fork(id, step, definition=definition)
    return run_row(await handle.row())
