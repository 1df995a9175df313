"""Steps of one run that succeed at the same time share a commit; each stands by itself where that is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import InvalidPayload
from eventcore.kernel.records import Batch, Guard
from eventcore.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

EACH = {"id": "each", "foreach": [*range(200)], "max_parallel": 50, "plugin": "work", "with": {"n": "{{ item }}"}}


class Counting(MemoryStore):
    """Counts commits by how many completions are in each, and refuses some."""

    def __init__(self, refuse: str = "") -> None:
        super().__init__()
        self.completions: list[int] = []
        self.refuse = refuse

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        done = [entry for entry in batch.log if getattr(entry, "event", entry).type == "step_completed"]
        if len(done) > 1 and self.refuse and any(entry.step == self.refuse for entry in done):  # type: ignore[union-attr]
            raise InvalidPayload("one of these cannot be stored")
        position = await super().commit(batch, guards)
        self.completions.append(len(done))
        return position


async def play(store: Counting, *steps: dict[str, Any], **more: Any) -> tuple[Any, Counter[int]]:
    calls: Counter[int] = Counter()
    gate = anyio.Event()
    async with EventCore(store=store) as core:

        async def work(params: Any) -> int:
            calls[params["n"]] += 1
            if len(calls) >= 50:
                gate.set()
            await gate.wait()
            return int(params["n"]) * 2

        core.plugins.intent("work", work)
        core.workflows.define({"slug": "w", "steps": list(steps), **more})
        run = await core.workflows.start("w")
        output = await run.result(60)
        events = [event async for event in core.history.query(type="step_completed", run=run.id)]
        assert len({event.subject for event in events}) == len(events), "each is completed once"
    return output, calls


async def test_items_that_end_together_are_committed_together(anyio_backend: Any) -> None:
    store = Counting()
    output, calls = await play(store, EACH, outputs="{{ steps.each.output }}")
    assert output == [n * 2 for n in range(200)]
    assert set(calls.values()) == {1}
    assert sum(store.completions) == 201
    assert max(store.completions) > 5
    assert len(store.completions) < 100


async def test_what_cannot_be_committed_together_is_committed_alone(anyio_backend: Any) -> None:
    store = Counting(refuse="each[7]")
    output, calls = await play(store, EACH, outputs="{{ steps.each.output }}")
    assert output == [n * 2 for n in range(200)]
    assert set(calls.values()) == {1}


async def test_a_failure_among_them_is_told_as_before(anyio_backend: Any) -> None:
    store = Counting()
    step = {**EACH, "on_item_error": "ignore", "with": {"n": "{{ item if item % 10 else none }}"}}
    async with EventCore(store=store) as core:

        async def work(params: Any) -> int:
            await anyio.lowlevel.checkpoint()
            return int(params["n"])

        core.plugins.intent("work", work)
        core.workflows.define({"slug": "w", "steps": [step], "outputs": "{{ steps.each.output }}"})
        output = await (await core.workflows.start("w")).result(60)
        assert output == [n if n % 10 else None for n in range(200)]
