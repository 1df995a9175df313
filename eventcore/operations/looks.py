"""Looking at workflows and runs: graphs, differences, progress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from eventcore.engine import Engine
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.records import JournalEntry, LogEntry
from eventcore.operations import runs
from eventcore.operations.shapes import instant
from eventcore.workflows.definition import Workflow
from eventcore.workflows.diff import compare, statuses_of
from eventcore.workflows.drawing import lines, mermaid, svg
from eventcore.workflows.graph import Graph, graph_of
from eventcore.workflows.schema import json_schema
from eventcore.workflows.state import UNDO

FORMATS = ("text", "mermaid", "svg")
_OVER = ("completed", "failed", "cancelled", "terminated")


async def schema(engine: Engine) -> dict[str, Any]:
    """The JSON Schema of workflow files."""
    return json_schema()


async def workflow_graph(engine: Engine, slug: str, format: str = "text") -> dict[str, Any]:
    """The graph of a definition. `format`: text, mermaid or svg."""
    return drawn(graph_of(engine.workflows.registry.get(slug).workflow), format)


async def run_graph(engine: Engine, id: str, format: str = "text") -> dict[str, Any]:
    """The graph of the definition that a run is pinned to, with how far each step has come."""
    run = await runs.show(engine, id)
    return drawn(graph_of(await _pinned(engine, id), _with_undone(statuses_of(run["steps"]))), format)


def _with_undone(statuses: dict[str, str]) -> dict[str, str]:
    undone = [
        path.removesuffix(UNDO) for path, status in statuses.items() if path.endswith(UNDO) and status == "completed"
    ]
    return statuses | dict.fromkeys(undone, "undone")


async def run_diff(engine: Engine, id: str) -> dict[str, Any]:
    """What has changed between the definition that a run is pinned to and the one that its slug has now."""
    run = await runs.show(engine, id)
    pinned = await _pinned(engine, id)
    plan = engine.workflows.registry.get(pinned.slug)
    row = await (await engine.workflows.run(id)).row()
    changes = compare(pinned, plan.workflow, statuses_of(run["steps"]))
    return {
        "run": id,
        "slug": pinned.slug,
        "status": run["status"],
        "pinned": row.definition,
        "now": plan.hash,
        "same": row.definition == plan.hash,
        "changes": [change.as_dict() for change in changes],
    }


async def watch(engine: Engine, send: Callable[[Any], Awaitable[None]], id: str, timeout: float = 86400.0) -> Any:
    """Send each journal entry of a run, those that are there and those that come, until it is over.

    Returns:
        The run's row as it is then; after `timeout` seconds, whether it is over or not.
    """
    await engine.workflows.run(id)
    news, sent = anyio.Event(), 0

    def heard(entries: Sequence[LogEntry]) -> None:
        if any((entry.event if isinstance(entry, JournalEntry) else entry).run == id for entry in entries):
            news.set()

    stop = engine.store.watch(heard)
    try:
        with anyio.move_on_after(timeout):
            while True:
                news = anyio.Event()
                journal = await engine.store.journal(id)
                for entry in journal[sent:]:
                    await send(_progress(entry))
                sent = len(journal)
                if (await (await engine.workflows.run(id)).row()).status in _OVER:
                    break
                await news.wait()
    finally:
        stop()
    return await runs.wait(engine, id, 0)


def _progress(entry: JournalEntry) -> dict[str, Any]:
    data = entry.event.data
    kept = ("plugin", "workflow", "emit", "status", "output", "error", "due", "waits")
    said = {key: data[key] for key in kept if isinstance(data, dict) and data.get(key) is not None}
    return {
        "at": instant(entry.event.at),
        "type": entry.event.type,
        "step": entry.step,
        "attempt": entry.attempt,
        **said,
    }


async def _pinned(engine: Engine, id: str) -> Workflow:
    """The definition that a run is pinned to."""
    row = await (await engine.workflows.run(id)).row()
    if (plan := engine.workflows.registry.pinned(row.definition)) is not None:
        return plan.workflow
    stored = await engine.store.definition(row.definition)
    if stored is None:
        raise NotFound(f"the definition of run {id} is not in the store")
    return engine.workflows.registry.pin(stored.raw, row.slug).workflow


def drawn(graph: Graph, format: str) -> dict[str, Any]:
    """A graph as data, and drawn in `format`."""
    match format:
        case "text":
            text = "\n".join(row + (f" {node.label}  {node.does}" if node else "") for row, node in lines(graph))
        case "mermaid":
            text = mermaid(graph)
        case "svg":
            text = svg(graph)
        case _:
            raise InvalidInput(f"there is no format {format!r}", hint=f"formats: {', '.join(FORMATS)}")
    nodes = [
        {"path": node.path, "does": node.does, "notes": list(node.notes), "status": node.status or None}
        for node in graph.nodes
    ]
    rows = [[row, node.path if node else None] for row, node in lines(graph)] if format == "text" else None
    edges = [list(edge) for edge in graph.edges]
    return {"title": graph.title, "nodes": nodes, "edges": edges, "format": format, "text": text, "rows": rows}
