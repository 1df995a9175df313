"""The embedding example of the design, as it is printed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from eventcore import EventCore

pytestmark = pytest.mark.anyio


class Tick(BaseModel):
    n: int


yaml_text = """
slug: triage_message
steps:
  - id: classify
    plugin: classify_text
    with: {text: "{{ inputs.text }}"}
outputs: {label: "{{ steps.classify.output.label }}"}
"""


async def test_the_embedding_contract(anyio_backend: Any) -> None:
    handled: list[Any] = []
    tapped: list[str] = []

    async def handle_order(event: Any) -> None:
        handled.append(event.data)

    def tap(sender: str, event: Any) -> None:
        tapped.append(event.type)

    with anyio.fail_after(60):
        async with EventCore() as core:
            core.bus.declare("tick", model=Tick, transient=True)
            core.bus.subscribe("order_*", handle_order)
            receipt = await core.bus.emit("order_created", {"id": 1})

            @core.intent("classify_text")
            async def classify(params: Any) -> Any:
                return {"label": "question" if params["text"] == "hi" else "other"}

            outcome = await core.hooks.call("on_message", {"text": "hi"})
            result = await core.plugins.run("hello_world", {"name": "Ada"}, roles=["user"])
            core.signals.workflow_started.connect(tap)  # blinker
            core.workflows.define(yaml_text)
            run = await core.workflows.start("triage_message", {"text": "hi"}, idempotency_key="m-17")
            output = await run.result(timeout=30)
            steps = [event.type async for event in core.history.query(type="step_*", run=run.id)]

            assert (await core.history.get(receipt.id)).data == {"id": 1}
            assert outcome.event is not None
            assert result == {"message": "Hello World from plugin!"}
            assert output == {"label": "question"}
            assert steps == ["step_started", "step_completed"]
            again = await core.workflows.start("triage_message", {"text": "hi"}, idempotency_key="m-17")
            assert again.id == run.id
            await core.drain()
            assert (handled, tapped) == ([{"id": 1}], ["workflow_started"])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
async def test_the_three_places_a_store_can_be(tmp_path: Path, anyio_backend: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "eventcore.toml").write_text("")
    for open_one, durable in (
        (lambda: EventCore(), False),
        (lambda: EventCore(tmp_path / "home"), True),
        (lambda: EventCore(store=f"sqlite:///{tmp_path}/f.db"), True),
    ):
        async with open_one() as core:
            await core.bus.emit("x", {"n": 1})
        async with open_one() as core:
            assert len([event async for event in core.history.query(type="x")]) == durable
    assert (tmp_path / "home" / ".eventcore").is_dir()
    assert (tmp_path / "f.db").is_file()
