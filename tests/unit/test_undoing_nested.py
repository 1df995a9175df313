"""Undoing what was done in parallel, in items, in groups and in child runs: its order, its failures, and what is asked
meanwhile."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import Conflict
from eventcore.operations import looks

pytestmark = pytest.mark.anyio


class World:
    """What is done and undone, in order. `undo` waits at `gate` for what is in `slow`, and fails for `broken`."""

    def __init__(self, core: EventCore) -> None:
        self.done, self.undone, self.tries = list[str](), list[str](), list[str]()
        self.slow, self.broken = set[str](), set[str]()
        self.began, self.gate = anyio.Event(), anyio.Event()

        @core.intent("do")
        async def do(params: dict[str, Any]) -> dict[str, Any]:
            await anyio.lowlevel.checkpoint()
            if params["what"] == "boom":
                raise ValueError("boom")
            self.done.append(params["what"])
            return {"what": params["what"]}

        @core.intent("undo")
        async def undo(params: dict[str, Any]) -> None:
            what = params["what"]
            self.tries.append(what)
            if what in self.slow:
                self.began.set()
                await self.gate.wait()
            if what in self.broken:
                raise ValueError("stuck")
            self.undone.append(what)


def do(id: str, what: str, **more: Any) -> dict[str, Any]:
    undo = {"plugin": "undo", "with": {"what": "{{ output.what }}"}, "retry": {"attempts": 2, "initial": "1ms"}}
    return {"id": id, "plugin": "do", "with": {"what": what}, "compensate": undo, **more}


KID = {
    "slug": "kid",
    "inputs": {"type": "object", "properties": {"n": {}, "fails": {"default": False}}},
    "steps": [
        {
            "id": "all",
            "foreach": [1, 2],
            "max_parallel": 1,
            "steps": [
                do("left", "{{ inputs.n }}-{{ item }}-left"),
                do("right", "{{ inputs.n }}-{{ item }}-right", needs=[]),
                do("both", "{{ inputs.n }}-{{ item }}-both", needs=["left", "right"]),
            ],
        },
        {"id": "hold", "wait_for": {"signal": "go"}, "if": "{{ inputs.n == 'slow' }}"},
        do("end", "boom", **{"if": "{{ inputs.fails }}"}),
    ],
}


@pytest.fixture
def world(core: EventCore) -> World:
    core.workflows.define(KID)
    return World(core)


def backwards(done: list[str]) -> list[str]:
    return done[::-1]


async def test_what_was_done_in_items_and_branches_of_a_child_is_undone_backwards(
    core: EventCore, world: World
) -> None:
    run = await core.workflows.start("kid", {"n": "x", "fails": True})
    assert await run.over(10)
    assert await run.status() == "failed"
    assert len(world.done) == 6
    assert world.undone == backwards(world.done)


async def test_a_child_that_failed_has_undone_its_own_before_its_parent_does(core: EventCore, world: World) -> None:
    core.workflows.define(
        {"slug": "w", "steps": [do("a", "a"), {"id": "k", "workflow": "kid", "with": {"n": "x", "fails": True}}]}
    )
    run = await core.workflows.start("w")
    assert await run.over(10)
    assert await run.status() == "failed"
    assert world.undone == backwards(world.done)


async def test_a_cancelled_parent_waits_until_all_children_have_undone_their_own(core: EventCore, world: World) -> None:
    kids = {"id": "k", "foreach": ["slow", "slow"], "workflow": "kid", "with": {"n": "{{ item }}"}}
    core.workflows.define({"slug": "w", "steps": [do("a", "a"), kids]})
    run = await core.workflows.start("w")
    with anyio.fail_after(10):
        while len(world.done) < 13:
            await anyio.sleep(0.005)
    await core.drain(5)
    world.slow = {"slow-1-left"}
    await core.workflows.cancel(run.id)
    await world.began.wait()
    again = await core.workflows.cancel(run.id)  # a second one changes nothing
    assert again.status in ("running", "waiting")
    assert "a" not in world.undone
    world.gate.set()
    assert await run.over(10)
    assert await run.status() == "cancelled"
    assert world.undone[-1] == "a"
    assert sorted(world.undone) == sorted(world.done)
    assert {one.status for one in await core.workflows.runs(slug="kid")} == {"cancelled"}


async def test_what_cannot_be_undone_is_named_and_the_rest_is_undone(core: EventCore, world: World) -> None:
    world.broken = {"x-2-left", "x-1-both"}
    run = await core.workflows.start("kid", {"n": "x", "fails": True})
    assert await run.over(10)
    assert sorted(world.undone) == sorted({*world.done} - world.broken)
    assert [world.tries.count(one) for one in sorted(world.broken)] == [2, 2]
    row = await run.row()
    assert row.raw_error is not None
    assert b'"compensation_failed"' in row.raw_error
    assert b"all[1]/left" in row.raw_error
    failed = [event.subject async for event in core.history.query(type="compensation_failed", run=run.id)]
    assert sorted(str(one) for one in failed) == ["all[0]/both", "all[1]/left"]


async def test_an_undoing_that_is_to_pause_fails_in_place_of_it(core: EventCore, world: World) -> None:
    """Nobody resumes what is ending; `on_exhausted: pause` is for the way forward."""
    undo = {
        "plugin": "undo",
        "with": {"what": "a"},
        "retry": {"attempts": 2, "initial": "1ms", "on_exhausted": "pause"},
    }
    core.workflows.define({"slug": "w", "steps": [do("z", "z"), do("a", "a") | {"compensate": undo}, do("b", "boom")]})
    world.broken = {"a"}
    run = await core.workflows.start("w")
    assert await run.over(10)
    assert (await run.status(), world.undone) == ("failed", ["z"])


async def test_what_was_finished_before_a_pause_of_retries_is_undone_by_a_cancel(core: EventCore, world: World) -> None:
    again = {"attempts": 2, "initial": "1ms", "on_exhausted": "pause"}
    core.workflows.define({"slug": "w", "steps": [do("a", "a"), do("b", "boom", retry=again)]})
    run = await core.workflows.start("w")
    with anyio.fail_after(10):
        while await run.status() != "paused":
            await anyio.sleep(0.005)
    with pytest.raises(Conflict, match="only a run that failed"):
        await core.workflows.verbs.ask("retry", run.id)
    await core.workflows.cancel(run.id)
    assert await run.over(10)
    assert (await run.status(), world.undone) == ("cancelled", ["a"])


async def test_the_graph_of_a_run_tells_what_was_undone(core: EventCore, world: World) -> None:
    world.broken = {"x-1-left", "x-2-left"}
    run = await core.workflows.start("kid", {"n": "x", "fails": True})
    assert await run.over(10)
    found = await looks.run_graph(core.engine, run.id)
    assert {node["path"]: node["status"] for node in found["nodes"]} == {
        "all": "completed",
        "all/left": "completed",  # it could not be undone
        "all/right": "undone",
        "all/both": "undone",
        "hold": "skipped",
        "end": "failed",
    }
    for form, told in (("text", "↶"), ("mermaid", "classDef undone"), ("svg", "↶")):
        assert told in (await looks.run_graph(core.engine, run.id, form))["text"]
