"""What several people ask of one run in the same moment: each of them is told what came of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import Conflict, EventCoreError
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

#: Run events that say that a verb was carried out.
_SAID = {
    "pause": "workflow_paused",
    "resume": "workflow_resumed",
    "cancel": "workflow_cancelling",
    "terminate": "workflow_cancelled",
    "retry": "workflow_retried",
}


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"debug": True}  # what SQLite runs on


async def together(*calls: Any) -> list[Any]:
    """What each came to: its result, or the error."""
    found: list[Any] = [None] * len(calls)

    async def one(place: int, call: Any) -> None:
        try:
            found[place] = await call()
        except EventCoreError as error:
            found[place] = error

    async with anyio.create_task_group() as tasks:
        for place, call in enumerate(calls):
            tasks.start_soon(one, place, call)
    return found


# A run that is over can only be retried: nothing else races with that.
@pytest.mark.parametrize(
    ("first", "second"), [*product(("pause", "cancel", "terminate", "resume"), repeat=2), ("retry",) * 2]
)
async def test_two_verbs_at_once_are_both_carried_out_or_refused(store: Any, first: str, second: str) -> None:
    """No verb is acknowledged and lost, and no run ends twice, whichever of the two comes first."""
    async with EventCore(store=store) as core:
        core.workflows.define(
            {"slug": "w", "steps": [{"id": "a", "wait_for": {"event": "never"}}, {"id": "b", "emit": "x"}]}
        )
        run = await core.workflows.start("w")
        await core.drain(5)
        if "resume" in (first, second) or "retry" in (first, second):
            await core.workflows.verbs.ask("pause" if "resume" in (first, second) else "cancel", run.id)
            await core.drain(5)
        before = [event.type async for event in core.history.query(run=run.id)]
        with anyio.fail_after(20):
            found = await together(
                *(lambda verb=verb: core.workflows.verbs.ask(verb, run.id) for verb in (first, second))
            )
        assert await core.drain(5)
        said = [event.type async for event in core.history.query(run=run.id)]
        for verb, what in zip((first, second), found, strict=True):
            assert isinstance(what, Conflict) or first == second or _SAID[verb] in said, (verb, what, said)
        assert any(not isinstance(what, Conflict) for what in found)
        assert said.count("workflow_completed") - before.count("workflow_completed") <= 1
        if "cancel" in (first, second) and not isinstance(found[(first, second).index("cancel")], Conflict):
            assert await run.status() == "cancelled"
        if first == second:
            assert said.count(_SAID[first]) - before.count(_SAID[first]) == 1


async def test_a_verb_that_comes_when_the_run_has_just_ended_leaves_the_end_as_it_is(store: Any) -> None:
    async with EventCore(store=store) as core:
        core.workflows.define({"slug": "w", "steps": [{"id": "a", "wait_for": {"signal": "go"}}]})
        for verb in ("cancel", "terminate", "pause"):
            run = await core.workflows.start("w")
            await core.drain(5)
            ask = core.engine.runner.ask

            async def late(*asked: Any, ask: Any = ask, mine: Any = run) -> Any:
                await core.workflows.signal(mine.id, "go")
                assert await mine.over(5)
                return await ask(*asked)

            core.engine.runner.ask = late
            with pytest.raises(Conflict, match=f"is completed, so it is too late to {verb} it"):
                await getattr(core.workflows, verb)(run.id)
            core.engine.runner.ask = ask
            assert await run.status() == "completed"
            ends = [event.type async for event in core.history.query(run=run.id, type="workflow_completed")]
            assert len(ends) == 1


async def test_of_two_decisions_at_once_one_counts_and_the_other_is_told(store: Any) -> None:
    """By two engines on one store too, of which one does not know yet that the step waits."""
    async with EventCore(store=store) as core, EventCore(store=store) as other:
        for one in (core, other):
            one.workflows.define({"slug": "w", "steps": [{"id": "ok", "approve": "Go?"}]})
        for engines in ((core, core), (core, other), (other, other)):
            run = await core.workflows.start("w")
            await core.drain(5)
            found = await together(
                lambda run=run, it=engines[0]: it.workflows.verbs.decide(run.id, "ok", approved=True),
                lambda run=run, it=engines[1]: it.workflows.verbs.decide(run.id, "ok", approved=False),
            )
            assert await run.over(5)
            counted = [not isinstance(what, EventCoreError) for what in found]
            assert sorted(counted) == [False, True], found
            [lost] = [what for what in found if isinstance(what, EventCoreError)]
            assert isinstance(lost, Conflict)
            assert "somebody else decided" in str(lost)
            assert await run.status() == ("completed" if counted[0] else "failed")
            decided = [event.data async for event in core.history.query(type="approval_decided")]
            assert [one["approved"] for one in decided if one["run"] == run.id] == [counted[0]]


async def test_a_fork_leaves_what_goes_on_again_to_the_run_it_came_from(store: Any) -> None:
    """A step that failed, was retried and waits for its child is none that is over."""
    async with EventCore(store=store) as core:
        core.workflows.define(
            {"slug": "kid", "steps": [{"id": "w", "wait_for": {"signal": "go"}}, {"id": "b", "plugin": "p"}]}
        )
        core.workflows.define({"slug": "w", "steps": [{"id": "a", "workflow": "kid"}, {"id": "b", "emit": "x"}]})

        @core.intent("p")
        async def p(params: Any) -> None:
            raise ValueError("no")

        run = await core.workflows.start("w")
        await core.drain(5)
        [kid] = await core.workflows.runs(slug="kid")
        await core.workflows.signal(kid.id, "go")
        assert await run.over(5)
        await core.workflows.retry(run.id)
        await core.drain(5)
        fork = await core.workflows.fork(run.id, "b")
        await core.drain(5)
        await core.workflows.cancel(fork.id)
        assert await fork.over(5)
        await core.drain(5)
        assert await run.status() == "waiting"
