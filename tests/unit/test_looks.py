"""Looking at real runs: graph, differences, progress."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import InvalidInput
from eventcore.operations import looks

V1 = "slug: w\nsteps:\n  - {id: a, emit: begun}\n  - {id: go, wait_for: {signal: go}}\n  - {id: b, emit: done}"
V2 = V1 + "\n  - {id: c, emit: more}"


@pytest.mark.anyio
async def test_a_run_is_watched_drawn_and_compared() -> None:
    seen: list[dict[str, Any]] = []
    waiting = anyio.Event()

    async def send(entry: dict[str, Any]) -> None:
        seen.append(entry)
        if entry["step"] == "go":
            waiting.set()

    async with EventCore() as core:
        core.workflows.define(V1)
        run = await core.workflows.start("w")
        engine = core.engine
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                over: list[Any] = []

                async def watch() -> None:
                    over.append(await looks.watch(engine, send, run.id, 10))

                tasks.start_soon(watch)
                await waiting.wait()
                graph = await looks.run_graph(engine, run.id)
                assert {node["path"]: node["status"] for node in graph["nodes"]}["b"] == "pending"
                assert (await looks.run_diff(engine, run.id))["same"] is True
                core.workflows.define(V2)
                diff = await looks.run_diff(engine, run.id)
                assert [(one["path"], one["change"]) for one in diff["changes"]] == [("c", "added")]
                await core.workflows.signal(run.id, "go", {})
        assert over[0]["status"] == "completed"
        assert [(entry["type"], entry["step"]) for entry in seen if entry["step"] == "b"][-1] == ("step_completed", "b")
        assert "<svg" in (await looks.workflow_graph(engine, "w", "svg"))["text"]
        assert "flowchart" in (await looks.run_graph(engine, run.id, "mermaid"))["text"]
        with pytest.raises(InvalidInput, match="no format"):
            await looks.workflow_graph(engine, "w", "png")
