"""The engine in full: groups, foreach, waits, children, verbs, limits, schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from eventcore import EventCore
from eventcore.kernel.errors import Conflict, NotFound, RunFailed
from eventcore.kernel.event import Event
from eventcore.storage.memory import MemoryStore
from tests.unit.hand_clock import LIMIT, Ahead, pass_limit

pytestmark = pytest.mark.anyio


async def of_type(core: EventCore, pattern: str, **more: Any) -> list[Event]:
    return [event async for event in core.history.query(type=pattern, **more)]


async def until(condition: Callable[[], Any]) -> Any:
    with anyio.fail_after(20):
        while not (found := await condition()):
            await anyio.sleep(0.005)
    return found


def define(core: EventCore, *steps: dict[str, Any], slug: str = "w", **more: Any) -> None:
    core.workflows.define({"slug": slug, "steps": list(steps), **more})


async def status_is(run: Any, status: str) -> bool:
    return bool(await run.status() == status)


class Log:
    """An intent that remembers how it was called, and how many calls ran at once."""

    def __init__(self, core: EventCore, name: str = "log") -> None:
        self.calls: list[Any] = []
        self.now = self.most = 0
        self.fail: set[Any] = set()
        core.plugins.intent(name, self)

    async def __call__(self, params: Any) -> Any:
        metadata = params.pop("metadata")
        self.calls.append({**params, "step": metadata["step"], "key": metadata["idempotency_key"]})
        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(0.001)
        self.now -= 1
        if params.get("n") in [*self.fail]:
            raise ValueError(f"no {params['n']}")
        return {"n": params.get("n")}


# -- containers -------------------------------------------------------------------------------------------------------


async def test_foreach_keeps_order_and_never_exceeds_max_parallel(core: EventCore) -> None:
    log = Log(core)
    define(
        core,
        {
            "id": "each",
            "foreach": "{{ inputs.items }}",
            "max_parallel": 5,
            "plugin": "log",
            "with": {"n": "{{ item }}"},
        },
        outputs={"all": "{{ steps.each.output }}"},
    )
    run = await core.workflows.start("w", {"items": [*range(20)]})
    assert await run.result(5) == {"all": [{"n": n} for n in range(20)]}
    assert 2 <= log.most <= 5
    assert {call["step"] for call in log.calls[:5]} == {f"each[{n}]" for n in range(5)}


@pytest.mark.parametrize("rule", ["stop", "finish", "ignore"])
async def test_partial_failure_of_a_foreach(core: EventCore, rule: str) -> None:
    log = Log(core)
    log.fail = {1}
    each = {"id": "each", "foreach": [0, 1, 2, 3], "max_parallel": 1, "plugin": "log", "with": {"n": "{{ item }}"}}
    define(core, {**each, "on_item_error": rule}, outputs={"all": "{{ steps.each.output }}"})
    run = await core.workflows.start("w")
    if rule == "ignore":
        assert await run.result(5) == {"all": [{"n": 0}, None, {"n": 2}, {"n": 3}]}
    else:
        with pytest.raises(RunFailed, match="1 of 4 items failed; item 1: ValueError: no 1"):
            await run.result(5)
    assert len(log.calls) == (2 if rule == "stop" else 4)


async def test_groups_nest_in_foreach_and_see_their_own_steps(core: EventCore) -> None:
    Log(core)
    inner = [
        {"id": "a", "plugin": "log", "with": {"n": "{{ item + steps.base.output.n }}"}},
        {"id": "b", "plugin": "log", "with": {"n": "{{ steps.a.output.n * 2 + index }}"}},
    ]
    define(
        core,
        {"id": "base", "plugin": "log", "with": {"n": 100}},
        {"id": "each", "foreach": [1, 2], "steps": inner, "outputs": "{{ steps.b.output.n }}"},
        {"id": "last", "plugin": "log", "with": {"n": "{{ steps.each.output }}"}},
        outputs="{{ steps.last.output.n }}",
    )
    run = await core.workflows.start("w")
    assert await run.result(5) == [202, 205]


async def test_an_empty_foreach_and_one_that_is_no_list(core: EventCore) -> None:
    Log(core)
    define(core, {"id": "each", "foreach": "{{ inputs.items }}", "plugin": "log"}, outputs="{{ steps.each.output }}")
    assert await (await core.workflows.start("w", {"items": []})).result(5) == []
    with pytest.raises(RunFailed, match="is no list"):
        await (await core.workflows.start("w", {"items": 3})).result(5)


async def test_a_group_that_runs_over_fails_and_cuts_its_calls_off(anyio_backend: Any) -> None:
    began, cut = anyio.Event(), anyio.Event()

    async def hang(params: Any) -> None:
        try:
            began.set()
            await anyio.sleep_forever()
        finally:
            cut.set()

    with anyio.fail_after(60):
        async with EventCore(clock=Ahead()) as core:
            core.plugins.intent("hang", hang)
            define(core, {"id": "g", "total_timeout": LIMIT, "steps": [{"id": "a", "plugin": "hang"}]})
            run = await core.workflows.start("w")
            await began.wait()
            pass_limit(core)
            with pytest.raises(RunFailed, match="ran over its"):
                await run.result(5)
            await cut.wait()


# -- waits ------------------------------------------------------------------------------------------------------------


async def test_wait_for_takes_the_event_that_matches(core: EventCore) -> None:
    define(
        core,
        {"id": "wait", "wait_for": {"event": "paid", "match": {"order.id": "{{ inputs.id }}"}}},
        outputs="{{ steps.wait.output.data.amount }}",
    )
    runs = [await core.workflows.start("w", {"id": n}) for n in range(3)]
    await until(lambda: status_is(runs[2], "waiting"))
    assert core.engine.runner.idle or await core.drain(5)
    await core.bus.emit("paid", {"order": {"id": 1}, "amount": 5})
    assert await runs[1].result(5) == 5
    assert [await run.status() for run in runs] == ["waiting", "completed", "waiting"]
    await core.bus.emit("paid", {"order": {"id": 0}, "amount": 6})
    assert await runs[0].result(5) == 6


async def test_wait_for_looks_back_and_one_event_ends_one_wait_of_a_run(core: EventCore) -> None:
    Log(core)
    gate = anyio.Event()

    async def hold(params: Any) -> None:
        await gate.wait()

    core.plugins.intent("hold", hold)
    wait = {"event": "tick"}
    define(
        core,
        {"id": "hold", "plugin": "hold"},
        {"id": "one", "wait_for": wait},
        {"id": "two", "wait_for": wait},
        outputs=["{{ steps.one.output.data }}", "{{ steps.two.output.data }}"],
    )
    await core.bus.emit("tick", "before")
    run, other = await core.workflows.start("w"), await core.workflows.start("w")
    await core.bus.emit("tick", "first")
    gate.set()
    await until(lambda: status_is(run, "waiting"))
    await core.bus.emit("tick", "second")
    assert await run.result(5) == ["first", "second"]
    assert await other.result(5) == ["first", "second"]


async def test_signals_and_timeouts(core: EventCore) -> None:
    define(core, {"id": "s", "wait_for": {"signal": "go"}}, outputs="{{ steps.s.output }}")
    run = await core.workflows.start("w")
    await core.workflows.signal(run.id, "stop", 1)
    await core.workflows.signal(run.id, "go", {"speed": 2})
    assert await run.result(5) == {"speed": 2}
    with pytest.raises(Conflict, match="too late to signal"):
        await core.workflows.signal(run.id, "go")
    define(core, {"id": "s", "wait_for": {"event": "never", "timeout": 0.02}}, slug="late")
    with pytest.raises(RunFailed, match="nothing came within"):
        await (await core.workflows.start("late")).result(5)
    define(core, {"id": "s", "wait_for": {"event": "never", "timeout": 0.02, "on_timeout": "continue"}}, slug="on")
    assert await (await core.workflows.start("on")).result(5) is None


async def test_approvals(core: EventCore) -> None:
    define(core, {"id": "ok", "approve": "Ship {{ 'it' }}?", "with": {"what": "x"}}, outputs="{{ steps.ok.output.by }}")
    yes, no = await core.workflows.start("w"), await core.workflows.start("w")
    for run in (yes, no):
        await until(lambda run=run: status_is(run, "waiting"))
    pending = await core.workflows.verbs.approvals()
    assert {one["run"] for one in pending} == {yes.id, no.id}
    await core.workflows.verbs.decide(yes.id, None, approved=True)
    await core.workflows.verbs.decide(no.id, "ok", approved=False, note="too soon")
    assert await yes.result(5) == "operator"
    with pytest.raises(RunFailed, match="denied by operator: too soon"):
        await no.result(5)
    assert await core.workflows.verbs.approvals() == []
    with pytest.raises(NotFound):
        await core.workflows.verbs.decide(yes.id, None, approved=True)


async def test_waits_survive_the_engine() -> None:
    store = MemoryStore()
    async with EventCore(store=store) as core:
        define(core, {"id": "wait", "wait_for": {"event": "paid"}}, outputs="{{ steps.wait.output.data }}")
        run = await core.workflows.start("w")
        await core.drain(5)
    async with EventCore(store=store) as core:
        await core.bus.emit("paid", 7)
        assert await (await core.workflows.run(run.id)).result(5) == 7
        assert await core.engine.store.listening() == []
        assert await core.engine.store.timers(1e12) == []


# -- children, hooks --------------------------------------------------------------------------------------------------


async def test_a_child_run_gives_its_output_and_its_failure(core: EventCore) -> None:
    log = Log(core)
    define(
        core,
        {"id": "c", "plugin": "log", "with": {"n": "{{ inputs.n }}"}},
        slug="child",
        outputs="{{ steps.c.output.n }}",
    )
    define(core, {"id": "p", "workflow": "child", "with": {"n": 4}}, outputs="{{ steps.p.output }}")
    run = await core.workflows.start("w")
    assert await run.result(5) == 4
    [child] = await core.workflows.runs(slug="child")
    assert child.parent == f"{run.id}/p"
    log.fail = {4}
    with pytest.raises(RunFailed, match="child failed: ValueError: no 4"):
        await (await core.workflows.start("w")).result(5)


async def test_cancelling_ends_children_first_then_undoes(core: EventCore) -> None:
    log = Log(core)
    define(core, {"id": "z", "sleep": "1h"}, slug="child")
    define(
        core,
        {
            "id": "a",
            "plugin": "log",
            "with": {"n": 1},
            "compensate": {"plugin": "log", "with": {"n": "{{ output.n + 10 }}"}},
        },
        {"id": "b", "plugin": "log", "with": {"n": 2}, "compensate": {"plugin": "log", "with": {"n": 12}}},
        {"id": "p", "workflow": "child"},
    )
    run = await core.workflows.start("w")
    await until(lambda: core.workflows.runs(slug="child", statuses=("waiting",)))
    await until(lambda: status_is(run, "waiting"))
    await core.workflows.cancel(run.id, "no need")
    with pytest.raises(RunFailed, match="cancelled by operator: no need"):
        await run.result(5)
    assert [call["n"] for call in log.calls] == [1, 2, 12, 11]
    assert [call["step"] for call in log.calls[2:]] == ["b~undo", "a~undo"]
    [child] = await core.workflows.runs(slug="child")
    assert (child.status, await run.status()) == ("cancelled", "cancelled")
    types = [event.type for event in await of_type(core, "workflow_*") if event.type != "workflow_started"]
    assert types[:3] == ["workflow_cancelling", "workflow_cancelling", "workflow_cancelled"]
    ended = [event.run for event in await of_type(core, "workflow_cancelled")]
    assert ended == [child.id, run.id]


@pytest.mark.parametrize("inside", [False, True])
async def test_what_undoes_an_item_sees_it(core: EventCore, inside: bool) -> None:
    """As its step did: `item` and `index`, also in a group; the last item first."""
    log = Log(core)
    call = {"plugin": "log", "with": {"n": "{{ item }}"}}
    undo = {"plugin": "log", "with": {"n": "{{ item + 10 * index + 10 }}", "was": "{{ output.n }}"}}
    each = {"foreach": [1, 2, 3], "max_parallel": 1}
    step = {"id": "a", **call, "compensate": undo}
    define(core, {"id": "g", **each, "steps": [step]} if inside else {**step, **each}, {"id": "f", "plugin": "nothing"})
    core.plugins.intent("nothing", lambda params: {"success": False})
    with pytest.raises(RunFailed) as caught:
        await (await core.workflows.start("w")).result(5)
    assert "compensation_failed" not in caught.value.details["error"]
    assert [call["n"] for call in log.calls] == [1, 2, 3, 33, 22, 11]


async def test_a_call_under_way_is_cut_off_by_cancel(core: EventCore) -> None:
    began = anyio.Event()

    async def hang(params: Any) -> None:
        began.set()
        await anyio.sleep_forever()

    core.plugins.intent("hang", hang)
    define(core, {"id": "a", "plugin": "hang"})
    for verb, status in (("cancel", "cancelled"), ("terminate", "terminated")):
        began = anyio.Event()
        run = await core.workflows.start("w")
        await began.wait()
        row = await core.workflows.verbs.ask(verb, run.id)
        assert row.status == status
    assert core.engine.runner.idle or await core.drain(15)


async def test_undo_that_fails_is_recorded_and_the_rest_is_undone(core: EventCore) -> None:
    log = Log(core)
    log.fail = {3, 12}
    undo = {"retry": {"attempts": 2, "initial": 0.001}}
    define(
        core,
        {"id": "a", "plugin": "log", "with": {"n": 1}, "compensate": {"plugin": "log", "with": {"n": 11}, **undo}},
        {"id": "b", "plugin": "log", "with": {"n": 2}, "compensate": {"plugin": "log", "with": {"n": 12}, **undo}},
        {"id": "c", "plugin": "log", "with": {"n": 3}},
    )
    run = await core.workflows.start("w")
    with pytest.raises(RunFailed, match="no 3") as caught:
        await run.result(5)
    assert [call["n"] for call in log.calls] == [1, 2, 3, 12, 12, 11]
    assert caught.value.details["error"]["compensation_failed"] == ["b"]
    assert str(caught.value).endswith("; could not be undone: b")
    [event] = await of_type(core, "compensation_failed")
    assert event.subject == "b"


# -- verbs ------------------------------------------------------------------------------------------------------------


async def test_pause_lets_steps_finish_and_resume_goes_on(core: EventCore) -> None:
    log, gate = Log(core), anyio.Event()

    async def hold(params: Any) -> None:
        await gate.wait()

    core.plugins.intent("hold", hold)
    define(core, {"id": "a", "plugin": "hold"}, {"id": "s", "sleep": 0}, {"id": "b", "plugin": "log"})
    run = await core.workflows.start("w")
    driven = core.engine.runner._driven[run.id]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(core.workflows.pause, run.id)
        while not (driven.inbox or driven.active.state.paused):  # it was asked for before the step ends
            await anyio.lowlevel.checkpoint()
        gate.set()
    assert await run.status() == "paused"
    await core.drain(15)
    assert not log.calls
    await core.workflows.resume(run.id)
    await run.result(5)
    assert len(log.calls) == 1


async def test_retry_continues_from_the_failed_step_under_a_new_key(core: EventCore) -> None:
    log = Log(core)
    log.fail = {2}
    each = {"id": "c", "foreach": [1, 2, 3], "plugin": "log", "with": {"n": "{{ item }}"}, "on_item_error": "finish"}
    define(core, {"id": "a", "plugin": "log", "with": {"n": 0}}, each, outputs="{{ steps.c.output }}")
    run = await core.workflows.start("w")
    with pytest.raises(RunFailed):
        await run.result(5)
    log.fail = set()
    await core.workflows.retry(run.id)
    again = await core.workflows.run(run.id)
    assert await again.result(5) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert sorted(call["n"] for call in log.calls) == [0, 1, 2, 2, 3]
    keys = [call["key"] for call in log.calls if call["n"] == 2]
    assert keys[0] != keys[1]
    with pytest.raises(Conflict, match="only a run that failed"):
        await core.workflows.retry(run.id)


async def test_exhausted_retries_may_pause(core: EventCore) -> None:
    log = Log(core)
    log.fail = {1}
    retry = {"attempts": 2, "initial": 0.001, "on_exhausted": "pause"}
    define(core, {"id": "a", "plugin": "log", "with": {"n": 1}, "retry": retry}, outputs="{{ steps.a.output.n }}")
    run = await core.workflows.start("w")
    await until(lambda: status_is(run, "paused"))
    assert len(log.calls) == 2
    log.fail = set()
    await core.workflows.resume(run.id)
    assert await run.result(5) == 1


async def test_fork_keeps_what_came_before(core: EventCore) -> None:
    log = Log(core)
    define(
        core,
        {"id": "a", "plugin": "log", "with": {"n": 1}},
        {"id": "b", "plugin": "log", "with": {"n": "{{ steps.a.output.n + 1 }}"}},
        outputs="{{ steps.b.output.n }}",
    )
    run = await core.workflows.start("w")
    assert await run.result(5) == 2
    forked = await core.workflows.fork(run.id, "b")
    assert await forked.result(5) == 2
    assert [call["step"] for call in log.calls] == ["a", "b", "b"]
    assert forked.id != run.id
    with pytest.raises(NotFound):
        await core.workflows.fork(run.id, "x")


# -- limits, schedules ------------------------------------------------------------------------------------------------


async def test_concurrency_queues_by_key(core: EventCore) -> None:
    log = Log(core)
    define(
        core,
        {"id": "a", "plugin": "log", "with": {"n": "{{ inputs.user }}"}},
        concurrency={"limit": 1, "key": "{{ inputs.user }}"},
    )
    runs = [await core.workflows.start("w", {"user": user}) for user in ("ada", "bob", "ada", "bob", "ada")]
    for run in runs:
        await run.result(5)
    assert log.most <= 2
    assert len(log.calls) == 5


async def test_on_limit_skip_and_cancel_oldest(core: EventCore) -> None:
    nap = {"id": "a", "sleep": "1h"}
    define(core, nap, concurrency={"limit": 1, "on_limit": "skip"}, slug="skip")
    define(core, nap, concurrency={"limit": 1, "on_limit": "cancel_oldest"}, slug="oldest")
    first, second = [await core.workflows.start("skip") for _ in range(2)]
    await until(lambda: status_is(second, "cancelled"))
    assert await first.status() == "waiting"
    old, new = [await core.workflows.start("oldest") for _ in range(2)]
    await until(lambda: status_is(old, "cancelled"))
    await until(lambda: status_is(new, "waiting"))


async def test_a_child_that_has_to_queue_still_reports(core: EventCore) -> None:
    Log(core)
    define(core, {"id": "c", "plugin": "log"}, slug="child", concurrency={"limit": 1})
    define(core, {"id": "p", "foreach": [1, 2, 3], "workflow": "child"})
    run = await core.workflows.start("w")
    await run.result(5)
    assert len(await core.workflows.runs(slug="child", statuses=("completed",))) == 3


# -- emitted events ---------------------------------------------------------------------------------------------------


class Order(BaseModel):
    id: int
    note: str = ""


async def test_what_a_step_emits_is_held_against_the_model_of_its_type(core: EventCore) -> None:
    define(core, {"id": "tell", "emit": "order_created", "with": {"id": "{{ inputs.id }}"}})
    core.bus.declare("order_created", Order, version=3)
    run = await core.workflows.start("w", {"id": 7})
    await run.result()
    [event] = await of_type(core, "order_created")
    assert (event.data, event.schema_version) == ({"id": 7, "note": ""}, 3)

    refused = await core.workflows.start("w", {"id": "seven"})
    with pytest.raises(RunFailed, match="order_created: id: Input should be a valid integer"):
        await refused.result()
    assert len(await of_type(core, "order_created")) == 1


async def test_what_undoes_a_step_is_held_against_it_too(core: EventCore) -> None:
    core.bus.declare("order_cancelled", Order)
    log = Log(core)
    log.fail = {2}
    define(
        core,
        {"id": "a", "plugin": "log", "with": {"n": 1}, "compensate": {"emit": "order_cancelled", "with": {"id": "x"}}},
        {"id": "b", "plugin": "log", "with": {"n": 2}, "needs": ["a"]},
    )
    run = await core.workflows.start("w")
    with pytest.raises(RunFailed):
        await run.result()
    failed = [event.data for event in await of_type(core, "step_failed")]
    assert "order_cancelled: id" in str([one for one in failed if one["step"] == "a~undo"])
    assert await of_type(core, "order_cancelled") == []
