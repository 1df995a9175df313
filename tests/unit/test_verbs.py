"""What is asked of a run, in whatever state it is: it is done, or a clear error says why not; nothing hangs."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from eventcore import EventCore
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import Conflict, InvalidPayload
from eventcore.kernel.records import LIVE
from eventcore.workflows.face import RunHandle

pytestmark = pytest.mark.anyio


class Calls:
    """An intent that remembers what it was called with, and fails for what stands in `fail`."""

    def __init__(self, core: EventCore, name: str = "call") -> None:
        self.made: list[Any] = []
        self.fail: set[Any] = set()
        core.plugins.intent(name, self)

    async def __call__(self, params: Any) -> Any:
        self.made.append(params["n"])
        if params["n"] in self.fail:
            raise ValueError(params["n"])
        return {"n": params["n"]}


def define(core: EventCore, *steps: dict[str, Any], slug: str = "w", **more: Any) -> None:
    core.workflows.define({"slug": slug, "steps": list(steps), **more})


def call(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "plugin": "call", "with": {"n": id}, **more}


def slow(core: EventCore, name: str = "slow") -> tuple[anyio.Event, anyio.Event]:
    began, gate = anyio.Event(), anyio.Event()

    @core.intent(name)
    async def wait(params: Any) -> str:
        began.set()
        await gate.wait()
        return "done"

    return began, gate


async def test_a_pause_does_not_wait_for_the_step_under_way(core: EventCore) -> None:
    began, gate = slow(core)
    calls = Calls(core)
    define(core, {"id": "a", "plugin": "slow"}, call("b"))
    run = await core.workflows.start("w")
    await began.wait()
    with anyio.fail_after(5):
        assert (await core.workflows.pause(run.id)).status == "paused"
        assert (await core.workflows.resume(run.id)).status == "running"
        assert (await core.workflows.pause(run.id)).status == "paused"
    gate.set()
    await core.drain(5)
    assert (await run.status(), calls.made) == ("paused", [])
    await core.workflows.resume(run.id)
    await run.result(5)
    assert calls.made == ["b"]


async def undoing(core: EventCore) -> tuple[RunHandle, anyio.Event]:
    """A run that was cancelled and undoes a step, which lasts until the event is set."""
    began, gate = slow(core)
    Calls(core)
    define(core, call("a", compensate={"plugin": "slow"}), {"id": "b", "wait_for": {"signal": "go"}})
    run = await core.workflows.start("w")
    await core.drain(5)
    await core.workflows.cancel(run.id)
    await began.wait()
    return run, gate


async def test_what_is_asked_while_a_run_undoes(core: EventCore) -> None:
    run, gate = await undoing(core)
    with anyio.fail_after(5):
        assert (await core.workflows.cancel(run.id)).status == "running"  # it is on its way
        for verb, why in (("pause", "is ending"), ("resume", "not paused"), ("retry", "only a run that failed")):
            with pytest.raises(Conflict, match=why):
                await getattr(core.workflows, verb)(run.id)
    gate.set()
    await run.over(5)
    assert await run.status() == "cancelled"
    for verb in ("pause", "resume", "cancel", "terminate"):
        with pytest.raises(Conflict, match=f"is cancelled, so it is too late to {verb}"):
            await getattr(core.workflows, verb)(run.id)


async def test_a_run_that_undoes_can_be_terminated(core: EventCore) -> None:
    run, _ = await undoing(core)
    assert (await core.workflows.terminate(run.id)).status == "terminated"


async def test_a_retry_starts_the_child_anew_that_was_cancelled_with_the_run(core: EventCore) -> None:
    calls = Calls(core)
    calls.fail = {"b"}
    define(core, {"id": "w", "wait_for": {"signal": "go"}}, slug="kid")
    late = {"id": "late", "needs": [], "wait_for": {"signal": "go"}}
    define(core, {"id": "c", "workflow": "kid"}, late, call("b", needs=["late"]))
    run = await core.workflows.start("w")
    await core.drain(5)
    await core.workflows.signal(run.id, "go")
    await run.over(5)
    assert await run.status() == "failed"
    calls.fail = set()
    await core.workflows.retry(run.id)
    await core.drain(5)
    [kid] = await core.workflows.runs(slug="kid", statuses=("waiting",))
    await core.workflows.signal(kid.id, "go")
    again = await core.workflows.run(run.id)
    assert await again.over(5)
    assert await again.status() == "completed"
    assert sorted(one.status for one in await core.workflows.runs(slug="kid")) == ["cancelled", "completed"]


async def test_a_retry_leaves_alone_what_was_tolerated(core: EventCore) -> None:
    calls = Calls(core)
    calls.fail = {"x", "y", "last"}
    each = {
        "id": "each",
        "foreach": ["a", "y"],
        "on_item_error": "ignore",
        "max_parallel": 1,
        "plugin": "call",
        "with": {"n": "{{ item }}"},
    }
    define(core, {"id": "group", "continue_on_error": True, "steps": [call("x")]}, each, call("last"))
    run = await core.workflows.start("w")
    await run.over(5)
    assert calls.made == ["x", "a", "y", "last"]
    calls.fail = set()
    await core.workflows.retry(run.id)
    await core.drain(5)
    assert calls.made[4:] == ["last"]
    assert await run.status() == "completed"


async def test_resume_does_not_call_what_was_given_up(core: EventCore) -> None:
    calls = Calls(core)
    calls.fail = {"x", "y"}
    retry = {"attempts": 3, "initial": "700ms", "jitter": False}
    group = {"id": "group", "continue_on_error": True, "steps": [call("y", retry=retry), call("x", needs=[])]}
    define(core, group, {"id": "b", "wait_for": {"signal": "go"}})
    run = await core.workflows.start("w")
    await core.drain(5)
    assert sorted(calls.made) == ["x", "y"]
    await core.workflows.pause(run.id)
    await anyio.sleep(0.8)  # its time has come and gone
    await core.workflows.resume(run.id)
    await core.drain(5)
    assert sorted(calls.made) == ["x", "y"]
    await core.workflows.signal(run.id, "go")
    await core.drain(5)
    assert await run.status() == "completed"


@pytest.mark.parametrize("key", [None, "{{ inputs.who }}"])
async def test_retry_and_fork_keep_to_the_limit(core: EventCore, key: str | None) -> None:
    calls = Calls(core)
    calls.fail = {"a"}
    limit = {"limit": 1} if key is None else {"limit": 1, "key": key}
    define(core, call("a"), {"id": "b", "wait_for": {"signal": "go"}}, concurrency=limit)
    first = await core.workflows.start("w", {"who": "ada"})
    await first.over(5)
    calls.fail = set()
    second = await core.workflows.start("w", {"who": "ada"})
    await core.drain(5)
    assert await second.status() == "waiting"
    for verb, args in (("retry", [first.id]), ("fork", [second.id, "b"])):
        with pytest.raises(Conflict, match=f"no place to {verb}"):
            await getattr(core.workflows, verb)(*args)
    assert await first.status() == "failed"
    await core.workflows.terminate(second.id)
    assert (await core.workflows.retry(first.id)).status in ("running", "waiting")
    await core.workflows.terminate(first.id)
    fork = await core.workflows.fork(second.id, "b")
    await core.drain(5)
    assert (await fork.row()).limit_key == (None if key is None else "ada")
    with pytest.raises(Conflict, match="no place"):
        await core.workflows.retry(first.id)


async def test_resume_keeps_to_the_limit_and_the_step_under_way_goes_on(core: EventCore) -> None:
    began, gate = slow(core)
    calls = Calls(core)
    two = [{"id": "a", "plugin": "slow"}, {"id": "z", "needs": [], "wait_for": {"signal": "go"}}]
    define(core, *two, call("b", needs=["a", "z"]), concurrency={"limit": 1})
    first = await core.workflows.start("w")
    await began.wait()
    await core.workflows.pause(first.id)
    second = await core.workflows.start("w")
    while await second.status() == "queued":
        await anyio.sleep(0.005)
    with pytest.raises(Conflict, match="no place to resume"):
        await core.workflows.resume(first.id)
    assert await first.status() == "paused"
    await core.workflows.terminate(second.id)
    await core.workflows.signal(first.id, "go")
    gate.set()
    await core.drain(5)
    assert (await first.status(), calls.made) == ("paused", [])
    await core.workflows.resume(first.id)
    assert await first.over(5)
    assert (await first.status(), calls.made) == ("completed", ["b"])


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_done_to_runs_none_is_too_many_and_no_place_is_lost(core: EventCore, seed: int) -> None:
    """Counted from the rows after every operation; in the end every run is over."""
    chance, calls, ids = random.Random(seed), Calls(core), list[str]()
    calls.fail = {"b"}
    wait = {"id": "w", "wait_for": {"signal": "go", "timeout": "20ms", "on_timeout": "continue"}}
    last = call("c", **{"if": "{{ inputs.k == 'x' }}"})
    for slug in ("queue", "skip", "cancel_oldest"):
        limit = {"limit": 2, "key": "{{ inputs.k }}", "on_limit": slug, "max_queued": 5}
        broken = call("b", **{"if": "{{ inputs.bad }}"})
        define(core, call("a"), wait, broken, last, slug=slug, concurrency=limit)
    verbs = ["start"] * 5 + ["pause", "resume", "terminate", "retry", "signal", "fork"]
    for _ in range(150):
        verb, one = chance.choice(verbs), chance.choice(ids[-8:] or [""])
        try:
            if verb == "start" or not one:
                inputs = {"k": chance.choice("xy"), "bad": chance.random() < 0.3}
                ids.append((await core.workflows.start(chance.choice(["queue", "skip", "cancel_oldest"]), inputs)).id)
            elif verb == "fork":
                ids.append((await core.workflows.fork(one, "w")).id)
            else:
                await getattr(core.workflows, verb)(*([one, "go"] if verb == "signal" else [one]))
        except Conflict:
            pass
        live = await core.workflows.runs(statuses=("running", "waiting"), limit=1000)
        assert max(Counter((run.slug, run.limit_key) for run in live).values(), default=0) <= 2
    while left := await core.workflows.runs(statuses=(*LIVE,), limit=1000):
        for run in left:
            if run.status == "paused":
                with contextlib.suppress(Conflict):
                    await core.workflows.resume(run.id)
        await anyio.sleep(0.01)


async def test_what_a_webhook_starts_begins_together_or_not_at_all(core: EventCore) -> None:
    hook: dict[str, Any] = {"triggers": [{"webhook": "h"}]}
    wait = {"id": "w", "wait_for": {"signal": "go"}}
    define(core, wait, slug="a", **hook)
    define(core, wait, slug="b", **hook, inputs={"type": "object", "required": ["x"]})
    context = CallContext("default", "me", frozenset())
    with pytest.raises(InvalidPayload):
        await core.workflows.webhook("h", {}, context)
    assert await core.workflows.runs() == []
    define(core, wait, slug="b", **hook)
    handles = await core.workflows.webhook("h", {}, context)
    await core.drain(5)
    assert [await one.status() for one in handles] == ["waiting", "waiting"]


@pytest.mark.parametrize(
    ("wanted", "given", "fits"),
    [
        (1, 1.0, True),
        (1, True, False),
        (1, "1", False),
        (None, None, True),
        ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1}, True),
        ([1, 2], [2, 1], False),
    ],
)
async def test_values_match_by_one_rule_before_and_after_the_wait_begins(
    core: EventCore, wanted: Any, given: Any, fits: bool
) -> None:
    ask = {"event": "e", "match": {"n": "{{ inputs.n }}"}, "timeout": "300ms"}
    define(core, {"id": "z", "wait_for": {"signal": "go"}}, {"id": "a", "wait_for": ask})
    before, after = [await core.workflows.start("w", {"n": wanted}) for _ in range(2)]
    await core.drain(5)
    await core.workflows.signal(after.id, "go")
    await core.drain(0.2)
    await core.bus.emit("e", {"n": given})
    await core.workflows.signal(before.id, "go")
    assert all([await one.over(5) for one in (before, after)])
    assert [await one.status() for one in (before, after)] == ["completed" if fits else "failed"] * 2


async def test_a_pause_in_any_moment_of_a_run_pauses_it(core: EventCore) -> None:
    """Also in the moment in which a step ends: what is asked and what has ended are committed one after the other."""

    @core.intent("short")
    async def short(params: Any) -> str:
        await anyio.lowlevel.checkpoint()
        return "done"

    define(core, *({"id": f"s{n}", "plugin": "short"} for n in range(12)))
    paused = Counter[str]()
    for wait in range(120):
        run = await core.workflows.start("w")
        for _ in range(wait % 40):
            await anyio.lowlevel.checkpoint()
        try:
            paused[(await core.workflows.pause(run.id)).status] += 1
            await core.workflows.resume(run.id)
        except Conflict as conflict:
            if "is completed" not in str(conflict):
                raise
        await run.result(20)
    assert paused.keys() == {"paused"}
