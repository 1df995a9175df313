"""Runs: steps, failures, waiting, triggers, recovery, two engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import (
    IdempotencyConflict,
    InvalidPayload,
    NotFound,
    RunFailed,
    StoreError,
    UnknownIntent,
    UnknownWorkflow,
)
from eventcore.kernel.event import Event
from eventcore.kernel.faults import FaultPlan
from eventcore.kernel.records import Batch, Guard, JournalEntry, RunAt, RunMove
from eventcore.storage.memory import MemoryStore
from tests.unit.hand_clock import LIMIT, Ahead, pass_limit

pytestmark = pytest.mark.anyio


def do_not_drain(core: EventCore) -> None:
    """Close without waiting for what runs, as a stop under a deadline does."""
    settings = core.engine.settings
    hasty = settings.engine.model_copy(update={"drain_timeout": 0.0})
    core.engine.settings = settings.model_copy(update={"engine": hasty})


async def of_type(core: EventCore, pattern: str, **more: Any) -> list[Event]:
    return [event async for event in core.history.query(type=pattern, **more)]


async def until(condition: Callable[[], Any]) -> Any:
    """The first true answer of an async condition; the test's own time limit ends a vain wait."""
    while not (found := await condition()):
        await anyio.sleep(0.005)
    return found


def define(core: EventCore, *steps: dict[str, Any], slug: str = "w", **more: Any) -> None:
    core.workflows.define({"slug": slug, "steps": list(steps), **more})


async def result_of(core: EventCore, *steps: dict[str, Any], inputs: Any = None, **more: Any) -> Any:
    define(core, *steps, **more)
    return await (await core.workflows.start("w", inputs or {})).result(5)


async def failure_of(core: EventCore, *steps: dict[str, Any], **more: Any) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        await result_of(core, *steps, **more)
    return caught.value


class Flaky:
    """Fails so often, then answers with what it was called with."""

    def __init__(self, fails: int, error: Exception | None = None) -> None:
        self.fails, self.error = fails, error or ValueError("not yet")
        self.calls: list[Any] = []

    async def __call__(self, params: Any) -> Any:
        self.calls.append(params)
        if len(self.calls) <= self.fails:
            raise self.error
        return {"tries": len(self.calls)}


# -- steps ------------------------------------------------------------------------------------------------------------


async def test_chained_steps(core: EventCore) -> None:
    core.plugins.intent("double", lambda params: {"n": params["n"] * 2})
    output = await result_of(
        core,
        {"id": "first", "plugin": "double", "with": {"n": "{{ inputs.n }}"}},
        {"id": "second", "plugin": "double", "with": {"n": "{{ steps.first.output.n }}"}},
        {"id": "tell", "emit": "doubled", "with": {"n": "{{ steps.second.output.n }}"}},
        inputs={"n": 3},
        outputs={"n": "{{ steps.second.output.n }}"},
    )
    assert output == {"n": 12}
    [told] = await of_type(core, "doubled")
    [run] = await core.workflows.runs()
    assert (told.data, told.actor, told.run, told.hops) == ({"n": 12}, "workflow:w", run.id, 1)
    assert [event.type for event in await of_type(core, "step_*", run=run.id)] == ["step_started", "step_completed"] * 3


async def test_every_step_has_its_metadata_and_a_key_of_its_own(core: EventCore) -> None:
    one, two = Flaky(2), Flaky(0)
    core.plugins.intent("one", one)
    core.plugins.intent("two", two)
    define(core, {"id": "a", "plugin": "one", "retry": {"attempts": 3, "initial": 0.001}}, {"id": "b", "plugin": "two"})
    run = await core.workflows.start("w")
    await run.result(5)
    metadata = [params["metadata"] for params in (*one.calls, *two.calls)]
    assert [(one["step"], one["attempt"], one["run"], one["tenant"]) for one in metadata] == [
        ("a", 1, run.id, "default"),
        ("a", 2, run.id, "default"),
        ("a", 3, run.id, "default"),
        ("b", 1, run.id, "default"),
    ]
    keys = [one["idempotency_key"] for one in metadata]
    assert len({*keys[:3]}) == 1
    assert keys[3] != keys[0]
    assert len({one["call_id"] for one in metadata}) == 4
    again = await core.workflows.start("w")
    await again.result(5)
    assert one.calls[-1]["metadata"]["idempotency_key"] != keys[0]  # another run, another key


async def test_parallel_branches_run_at_once(core: EventCore) -> None:
    together = anyio.Event()
    running = 0

    async def meet(params: Any) -> Any:
        nonlocal running
        running += 1
        if running == 3:
            together.set()
        await together.wait()
        return params["n"]

    core.plugins.intent("meet", meet)
    steps = [{"id": f"s{n}", "plugin": "meet", "needs": [], "with": {"n": n}} for n in range(3)]
    output = await result_of(core, *steps, outputs=[f"{{{{ steps.s{n}.output }}}}" for n in range(3)])
    assert output == [0, 1, 2]


async def test_a_timer_fires_while_another_branch_is_being_called(core: EventCore) -> None:
    go = anyio.Event()

    async def slow(params: Any) -> Any:
        await go.wait()
        return {}

    core.plugins.intent("slow", slow)
    define(
        core,
        {"id": "slow", "plugin": "slow"},
        {"id": "pause", "sleep": 0.01, "needs": []},
        {"id": "after_pause", "emit": "pause_over"},
    )
    run = await core.workflows.start("w")
    with anyio.fail_after(15):
        await until(lambda: of_type(core, "pause_over"))
    go.set()
    await run.result(5)


async def test_retry(core: EventCore) -> None:
    flaky = Flaky(2)
    core.plugins.intent("flaky", flaky)
    step = {"id": "a", "plugin": "flaky", "retry": {"attempts": 3, "initial": "1ms"}}
    assert await result_of(core, step, outputs="{{ steps.a.output.tries }}") == 3
    assert [event.type for event in await of_type(core, "step_*")] == [
        "step_started",
        "step_retrying",
        "step_started",
        "step_retrying",
        "step_started",
        "step_completed",
    ]


@pytest.mark.parametrize(
    ("rule", "tries"),
    [({"attempts": 2}, 2), ({"unless": ["KeyError"]}, 1), ({"only": ["ValueError"]}, 1), ({"only": ["KeyError"]}, 3)],
)
async def test_retries_end(core: EventCore, rule: dict[str, Any], tries: int) -> None:
    flaky = Flaky(99, KeyError("k"))
    core.plugins.intent("flaky", flaky)
    error = await failure_of(core, {"id": "a", "plugin": "flaky", "retry": {"initial": 0, **rule}})
    assert (len(flaky.calls), error.details["error"]["type"]) == (tries, "KeyError")


@pytest.mark.parametrize("message", ["boom", "\ud800", "x" * 400_000])
async def test_a_failed_run(core: EventCore, message: str) -> None:
    core.plugins.intent("bad", Flaky(9, ValueError(message)))
    error = await failure_of(core, {"id": "a", "plugin": "bad"}, {"id": "b", "emit": "never"})
    assert (error.details["status"], error.details["step"]) == ("failed", "a")
    assert error.details["error"]["type"] == "ValueError"
    failed = await of_type(core, "workflow_*")
    assert [event.type for event in failed] == ["workflow_started", "workflow_failed", "workflow_completed"]
    assert failed[-1].data["status"] == "failed"
    assert [event.type for event in await of_type(core, "step_*")] == ["step_started", "step_failed", "step_completed"]
    assert await of_type(core, "never") == []
    row = await core.engine.store.run(failed[0].run or "")
    assert row is not None
    assert row.status == "failed"


async def test_continue_on_error_and_if(core: EventCore) -> None:
    core.plugins.intent("bad", Flaky(9))
    output = await result_of(
        core,
        {"id": "a", "plugin": "bad", "continue_on_error": True},
        {"id": "b", "emit": "b_done", "if": "steps.a.status == 'failed'"},
        {"id": "c", "emit": "c_done", "if": "{{ steps.a.status == 'completed' }}"},
        outputs={"a": "{{ steps.a.error.type }}", "b": "{{ steps.b.status }}", "c": "{{ steps.c.status }}"},
    )
    assert output == {"a": "ValueError", "b": "completed", "c": "skipped"}
    assert await of_type(core, "c_done") == []


async def test_a_steps_time_limit(core: EventCore) -> None:
    async def hangs(params: Any) -> None:
        await anyio.sleep_forever()

    core.plugins.intent("hangs", hangs)
    error = await failure_of(core, {"id": "a", "plugin": "hangs", "timeout": "30ms"})
    assert error.details["error"]["type"] == "PluginTimeout"
    assert "0.03 s" in error.details["error"]["message"]


async def test_a_timeout_of_the_steps_own_is_told_as_it_is(core: EventCore) -> None:
    core.plugins.intent("slow_db", Flaky(9, TimeoutError("the database is slow")))
    error = await failure_of(core, {"id": "a", "plugin": "slow_db"})
    assert error.details["error"]["type"] == "TimeoutError"
    assert "the database is slow" in error.details["error"]["message"]


async def test_a_result_that_reports_failure_fails_the_step(core: EventCore) -> None:
    core.plugins.intent("refuses", lambda params: {"success": False, "error": "no_funds", "message": "no money"})
    error = await failure_of(core, {"id": "a", "plugin": "refuses"})
    assert error.details["error"] == {"step": "a", "type": "no_funds", "message": "no money"}
    core.plugins.intent("refuses", lambda params: {"success": True})
    assert await result_of(core, {"id": "a", "plugin": "refuses"}) is None


@pytest.mark.parametrize("after", [0.2, 0])
async def test_a_result_may_say_when_to_come_again(core: EventCore, after: float) -> None:
    tries: list[float] = []

    def busy(params: Any) -> dict[str, Any]:
        tries.append(time.monotonic())
        return {"success": len(tries) > 1, "error": "busy", "retry_after": after}

    core.plugins.intent("busy", busy)
    await result_of(core, {"id": "a", "plugin": "busy", "retry": {"attempts": 2, "initial": "1h", "max": "1h"}})
    assert len(tries) == 2
    assert tries[1] - tries[0] >= after - 0.05  # it is due by another clock than this one


@pytest.mark.parametrize("after", [True, -1, "soon", None, [1]])
async def test_what_is_no_time_to_come_again_is_not_obeyed(core: EventCore, after: Any) -> None:
    tries: list[int] = []

    def busy(params: Any) -> dict[str, Any]:
        tries.append(1)
        return {"success": len(tries) > 1, "error": "busy", "retry_after": after}

    core.plugins.intent("busy", busy)
    retry = {"attempts": 2, "initial": "10ms", "backoff": "constant", "jitter": False}
    await result_of(core, {"id": "a", "plugin": "busy", "retry": retry})
    [waits] = await of_type(core, "step_retrying")
    assert waits.data["wait"] == 0.01


@pytest.mark.parametrize("result", [object(), float("nan"), {1: 2}, b"x", "x" * 300_000, "\ud800"])
async def test_a_result_that_is_no_json_fails_the_step(core: EventCore, result: Any) -> None:
    core.plugins.intent("odd", lambda params: result)
    error = await failure_of(core, {"id": "a", "plugin": "odd"})
    assert error.details["error"]["type"] == "InvalidPayload"


@pytest.mark.parametrize("where", ["with", "if", "outputs"])
async def test_a_template_that_fails(core: EventCore, where: str) -> None:
    core.plugins.intent("p", lambda params: {})
    step: dict[str, Any] = {"id": "a", "plugin": "p"}
    more = {}
    if where == "outputs":
        more["outputs"] = "{{ inputs.missing }}"
    else:
        step[where] = "{{ inputs.missing }}"
    error = await failure_of(core, step, **more)
    assert error.details["error"]["type"] == "ExpressionError"
    assert error.details["step"] == (None if where == "outputs" else "a")
    assert "missing" in str(error)


async def test_a_run_that_ends_in_its_first_commit(core: EventCore) -> None:
    assert await result_of(core, {"id": "a", "emit": "x"}, outputs="{{ inputs.n }}", inputs={"n": 1}) == 1
    error = await failure_of(core, {"id": "a", "emit": "x", "with": "{{ inputs.n }}"})
    assert error.details["step"] == "a"
    assert core.engine.idle


async def test_sleep(core: EventCore) -> None:
    began = time.monotonic()
    await result_of(core, {"id": "a", "sleep": "50ms"}, {"id": "b", "sleep": 0}, {"id": "c", "emit": "x"})
    assert time.monotonic() - began >= 0.04  # it is due by another clock than this one
    assert await core.engine.store.next_timer() is None


async def test_many_runs_at_once_all_end(core: EventCore) -> None:
    flaky: dict[str, int] = {}

    async def work(params: Any) -> Any:
        key = params["metadata"]["idempotency_key"]
        flaky[key] = flaky.get(key, 0) + 1
        await anyio.lowlevel.checkpoint()
        if flaky[key] == 1 and params["n"] % 3 == 0:
            raise ValueError("first try")
        return {"n": params["n"]}

    core.plugins.intent("work", work)
    step = {"plugin": "work", "with": {"n": "{{ inputs.n }}"}, "retry": {"initial": 0.001}}
    define(
        core,
        {"id": "a", **step},
        {"id": "b", **step, "needs": ["a"]},
        {"id": "c", **step, "needs": ["a"]},
        {"id": "d", **step, "needs": ["b", "c"]},
        outputs="{{ steps.d.output.n }}",
    )
    runs = [await core.workflows.start("w", {"n": n}) for n in range(30)]
    assert [await run.result(15) for run in runs] == list(range(30))
    assert len(flaky) == 120


# -- starting ---------------------------------------------------------------------------------------------------------


async def test_what_start_refuses(core: EventCore) -> None:
    define(core, {"id": "a", "plugin": "nobody_has_it"})
    with pytest.raises(UnknownIntent, match="nobody_has_it"):
        await core.workflows.start("w")
    with pytest.raises(UnknownWorkflow, match=r"'ww'; did you mean 'w'.*searched"):
        await core.workflows.start("ww")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    define(core, {"id": "a", "emit": "x"}, inputs=schema)
    with pytest.raises(InvalidPayload, match="n: "):
        await core.workflows.start("w", {"n": "one"})
    with pytest.raises(InvalidPayload):
        await core.workflows.start("w", {"n": 1, "extra": float("nan")})
    assert await core.workflows.runs() == []
    assert await of_type(core, "workflow_*") == []
    with pytest.raises(NotFound, match="there is no run"):
        await core.workflows.run("nothing")


async def test_idempotency_key(core: EventCore) -> None:
    define(core, {"id": "a", "sleep": 0.01}, outputs="{{ inputs.n }}")
    define(core, {"id": "a", "emit": "x"}, slug="other")
    handles: list[Any] = []

    async def start() -> None:
        handles.append(await core.workflows.start("w", {"n": 1}, idempotency_key="k"))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(start)
    assert len({one.id for one in handles}) == 1
    assert {await one.result(5) for one in handles} == {1}
    again = await core.workflows.start("w", {"n": 1}, idempotency_key="k")
    assert (again.id, await again.result(5)) == (handles[0].id, 1)
    with pytest.raises(IdempotencyConflict, match="'k'"):
        await core.workflows.start("w", {"n": 2}, idempotency_key="k")
    assert (await core.workflows.start("other", {"n": 1}, idempotency_key="k")).id != again.id
    assert len(await core.workflows.runs(slug="w")) == 1


async def test_result_gives_up_and_the_run_goes_on(core: EventCore) -> None:
    go = anyio.Event()

    async def slow(params: Any) -> Any:
        await go.wait()
        return {}

    core.plugins.intent("slow", slow)
    define(core, {"id": "a", "plugin": "slow"})
    run = await core.workflows.start("w")
    with pytest.raises(TimeoutError):
        await run.result(0.01)
    assert await run.status() == "running"
    go.set()
    assert await run.result(5) is None
    assert await (await core.workflows.run(run.id)).result(5) is None


async def test_runs_of_another_tenant_are_not_there(core: EventCore) -> None:
    define(core, {"id": "a", "emit": "x"})
    run = await core.workflows.start("w", context=caller("user:a", tenant="acme"))
    with pytest.raises(NotFound):
        await core.workflows.run(run.id)
    assert await core.workflows.runs() == []


# -- triggers ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("H6")
async def test_an_event_starts_a_run_in_its_own_commit_if_the_filter_lets_it(core: EventCore) -> None:
    batches: list[list[str]] = []
    stop = core.engine.store.watch(lambda entries: batches.append([getattr(e, "event", e).type for e in entries]))
    define(
        core,
        {"id": "a", "emit": "noted", "with": {"amount": "{{ inputs.amount }}"}},
        triggers=[
            {"event": "order_created", "if": "event.data.amount > 100", "with": {"amount": "{{ event.data.amount }}"}}
        ],
    )
    await core.bus.emit("order_created", {"amount": 5})
    assert batches == [["order_created"]]
    assert await core.workflows.runs() == []
    receipt = await core.bus.emit("order_created", {"amount": 500})
    stop()
    assert batches[1][:2] == ["order_created", "workflow_started"]
    [run] = await core.workflows.runs()
    assert (run.causation_id, run.correlation_id) == (receipt.id, receipt.id)
    assert [event.data for event in await of_type(core, "noted")] == [{"amount": 500}]


async def test_a_trigger_that_fails_is_recorded_and_the_event_stands(core: EventCore) -> None:
    schema = {"type": "object", "required": ["n"]}
    for slug, trigger in {
        "bad-if": {"event": "order", "if": "event.data.missing > 1"},
        "bad-with": {"event": "order", "with": {"x": "{{ event.data.n | dictsort }}"}},
        "bad-inputs": {"event": "order", "with": {}},
    }.items():
        define(core, {"id": "a", "emit": "x"}, slug=slug, triggers=[trigger], inputs=schema)
    define(core, {"id": "a", "emit": "x"}, slug="good", triggers=[{"event": "order"}])
    define(core, {"id": "a", "emit": "x"}, slug="meta", triggers=[{"event": "trigger_failed", "if": "event.nope.x"}])
    receipt = await core.bus.emit("order", {"n": 5})
    await core.drain()
    assert (await core.history.get(receipt.id)).type == "order"
    failed = await of_type(core, "trigger_failed")
    assert [event.data["slug"] for event in failed] == ["bad-if", "bad-inputs", "bad-with"]
    assert all(event.causation_id == receipt.id and event.data["event"] == receipt.id for event in failed)
    assert [run.slug for run in await core.workflows.runs()] == ["good"]


async def test_a_duplicate_emit_starts_nothing_again(core: EventCore) -> None:
    define(core, {"id": "a", "emit": "x"}, triggers=[{"event": "order"}])
    for _ in range(3):
        await core.bus.emit("order", {}, idempotency_key="k")
    assert len(await core.workflows.runs()) == 1


async def test_a_run_has_the_roles_of_whoever_caused_it(core: EventCore) -> None:
    seen: list[Any] = []
    core.plugins.intent("open", lambda params: seen.append(params["user_context"]) or {})
    core.plugins.intent("guarded", lambda params: seen.append("reached") or {}, roles=["admin"])
    define(core, {"id": "a", "plugin": "open"}, {"id": "b", "plugin": "guarded"}, triggers=[{"event": "order"}])
    await core.bus.emit("order", context=caller("user:ada", ["user"]))
    await core.drain()
    [run] = await core.workflows.runs()
    assert (run.status, run.actor, run.roles) == ("failed", "user:ada", ("user",))
    assert seen == [{"user_id": "user:ada", "roles": ["user"], "tenant": "default"}]
    [denied] = await of_type(core, "permission_denied")
    assert (denied.data["intent"], denied.data["roles"], denied.actor) == ("guarded", ["user"], "user:ada")
    [failed] = await of_type(core, "step_failed")
    assert failed.data["error"]["type"] == "AccessDenied"
    await core.bus.emit("order", context=caller("user:root", ["admin"]))
    await core.drain()
    assert seen[-1] == "reached"


# -- waiting for an intent --------------------------------------------------------------------------------------------


async def stuck(core: EventCore, run_id: str) -> Any:
    row = await core.engine.store.run(run_id)
    return row if row is not None and row.status == "waiting" and row.raw_error else None


async def test_a_run_whose_intent_is_missing_after_a_restart_waits_visibly(anyio_backend: Any) -> None:
    store = MemoryStore()
    with anyio.fail_after(60):
        async with EventCore(store=store) as core:
            began = anyio.Event()

            async def hangs(params: Any) -> None:
                began.set()
                await anyio.sleep_forever()

            core.plugins.intent("late_intent", hangs)
            define(core, {"id": "a", "plugin": "late_intent"}, outputs="{{ steps.a.output.ok }}")
            run_id = (await core.workflows.start("w")).id
            await began.wait()
            do_not_drain(core)
        async with EventCore(store=store) as core:
            row = await until(lambda: stuck(core, run_id))
            assert b"late_intent" in row.raw_error
            for number in range(5):
                core.plugins.intent(f"unrelated_{number}", lambda params: {})
            await core.drain()
            await anyio.sleep(0.02)
            assert len(await of_type(core, "step_started", run=run_id)) <= 2  # other intents set nothing in motion
            calls: list[Any] = []

            @core.intent("late_intent")
            async def now_there(params: Any) -> Any:
                calls.append(params["metadata"])
                return {"ok": True}

            handle = await core.workflows.run(run_id)
            assert await handle.result(5) is True
            assert len(calls) == 1
            row = await handle.row()
            assert (row.status, row.raw_error) == ("completed", None)


async def test_an_intent_that_goes_away_during_a_run_is_waited_for_visibly(core: EventCore) -> None:
    def first(params: Any) -> Any:
        del core.plugins.registry.host["second"]
        return {}

    core.plugins.intent("first", first)
    core.plugins.intent("second", lambda params: {"ok": 1})
    define(core, {"id": "a", "plugin": "first"}, {"id": "b", "plugin": "second"}, outputs="{{ steps.b.output.ok }}")
    run = await core.workflows.start("w")
    row = await until(lambda: stuck(core, run.id))
    assert b"second" in row.raw_error
    core.plugins.intent("second", lambda params: {"ok": 2})
    assert await run.result(5) == 2
    assert [event.data["step"] for event in await of_type(core, "step_completed", run=run.id)] == ["a", "b"]


# -- a store that fails -----------------------------------------------------------------------------------------------


class FailingStore(MemoryStore):
    """Refuses the commits and reads that it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[Batch], bool] = lambda batch: False
        self.refusals = self.timer_refusals = 0

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        if self.refuse(batch):
            self.refusals += 1
            raise StoreError("the disk is full")
        return await super().commit(batch, guards)

    async def next_timer(self) -> float | None:
        if self.timer_refusals:
            self.timer_refusals -= 1
            raise StoreError("the disk cannot be read")
        return await super().next_timer()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventcore.workflows.saving._STORE_RETRY", (0.005, 0.005))
    monkeypatch.setattr("eventcore.workflows.timers._NOTHING_OURS", 0.05)


@pytest.mark.parametrize("type", ["step_completed", "workflow_completed", "step_retrying"])
async def test_a_store_that_fails_for_a_while_strands_no_run(type: str, anyio_backend: Any) -> None:
    store = FailingStore()

    def holds(batch: Batch) -> bool:
        return store.refusals < 2 and any(getattr(entry, "event", entry).type == type for entry in batch.log)

    store.refuse = holds
    with anyio.fail_after(60):
        async with EventCore(store=store) as core:
            flaky = Flaky(1)
            core.plugins.intent("flaky", flaky)
            step = {"id": "a", "plugin": "flaky", "retry": {"initial": 0.001}}
            assert await result_of(core, step, outputs="{{ steps.a.output.tries }}") == 2
            assert store.refusals == 2
            assert len(flaky.calls) == 2  # a commit that failed does not call the step again


async def test_timers_outlive_a_store_that_cannot_be_read_for_a_while(anyio_backend: Any) -> None:
    store = FailingStore()
    with anyio.fail_after(60):
        async with EventCore(store=store) as core:
            store.timer_refusals = 2
            await result_of(core, {"id": "a", "sleep": 0.01})
            await core.bus.emit("x")


# -- two engines ------------------------------------------------------------------------------------------------------


class Dead(MemoryStore):
    """The store as an engine sees it that hangs: it renews nothing, and gives nothing up."""

    def __init__(self, inner: MemoryStore) -> None:
        self.__dict__ = inner.__dict__

    async def renew(self, owner: str, now: float, lease: float) -> int:
        return 0

    async def release(self, owner: str) -> None:
        pass


async def test_only_one_engine_drives_a_run_and_another_takes_over_when_its_lease_ends(anyio_backend: Any) -> None:
    shared, clock = MemoryStore(), Ahead()
    calls: list[tuple[str, int, str]] = []
    release, began = anyio.Event(), anyio.Event()

    def intent(name: str) -> Any:
        async def work(params: Any) -> Any:
            metadata = params["metadata"]
            calls.append((name, metadata["attempt"], metadata["idempotency_key"]))
            if name == "first":
                began.set()
                await release.wait()
            return {"by": name}

        return work

    with anyio.fail_after(60):
        async with EventCore(store=Dead(shared)) as first, EventCore(store=shared, clock=clock) as second:
            for core, name in ((first, "first"), (second, "second")):
                core.plugins.intent("work", intent(name))
                define(core, {"id": "a", "plugin": "work"}, {"id": "b", "emit": "done"}, outputs="{{ steps.a.output }}")
            run = await first.workflows.start("w")
            await began.wait()
            assert await second.engine.runner.recover() == 0  # the lease still runs
            assert [name for name, _, _ in calls] == ["first"]
            clock.seconds = 31.0
            assert await second.engine.runner.recover() == 1
            assert await (await second.workflows.run(run.id)).result(5) == {"by": "second"}
            release.set()  # the first one comes back, too late
            await first.drain()
            assert await run.result(5) == {"by": "second"}
            assert [(name, attempt) for name, attempt, _ in calls] == [("first", 1), ("second", 2)]
            assert len({key for _, _, key in calls}) == 1
            assert len(await of_type(second, "done")) == 1
            assert len(await of_type(second, "workflow_completed")) == 1


async def test_a_definition_that_was_pruned_is_stored_again_with_the_next_run(anyio_backend: Any) -> None:
    store, clock = MemoryStore(), Ahead()
    async with EventCore(store=store, clock=clock) as core:
        define(core, {"id": "a", "emit": "done"})
        names = []
        for _ in range(2):
            run = await core.workflows.start("w")
            await run.result(5)
            names.append((await run.row()).definition)
            assert await store.definition(names[-1]) is not None
            clock.seconds += 100 * 86_400
            assert (await core.engine.archive.prune_runs(older_than=90 * 86_400)).definitions == 1
            assert await store.definition(names[-1]) is None
        assert names[0] == names[1]


async def test_a_run_is_resumed_where_it_was(anyio_backend: Any) -> None:
    store, clock = MemoryStore(), Ahead()
    calls: list[str] = []
    with anyio.fail_after(60):
        async with EventCore(store=store) as core:
            do_not_drain(core)
            core.plugins.intent("note", lambda params: calls.append(params["n"]) or {})
            define(
                core,
                {"id": "a", "plugin": "note", "with": {"n": "a"}},
                {"id": "nap", "sleep": LIMIT},
                {"id": "b", "plugin": "note", "with": {"n": "b"}},
            )
            run = await core.workflows.start("w")
            await until(lambda: of_type(core, "step_completed"))
        clock.seconds = LIMIT + 1
        async with EventCore(store=store, clock=clock) as core:
            core.plugins.intent("note", lambda params: calls.append(params["n"]) or {})
            assert await (await core.workflows.run(run.id)).result(5) is None  # its definition is in the store
            assert calls == ["a", "b"]


# -- timers -----------------------------------------------------------------------------------------------------------


class SlowStore(MemoryStore):
    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        if batch.timers_done:
            await anyio.sleep(0.05)
        return await super().commit(batch, guards)


async def test_a_timer_whose_commit_takes_long_fires_once(anyio_backend: Any) -> None:
    plan = FaultPlan()
    with anyio.fail_after(60):
        async with EventCore(store=SlowStore(), faults=plan) as core:
            core.plugins.intent("p", lambda params: {})
            await result_of(core, {"id": "nap", "sleep": 0.01}, {"id": "a", "plugin": "p"})
            await anyio.sleep(0.02)
    assert plan.hits["step.before_commit"] == 1  # the timer's tick; the step's own ends the run
    assert plan.hits["run.before_end"] == 1


async def test_a_timer_that_wakes_a_run_which_waits_for_an_intent_doubles_no_call(anyio_backend: Any) -> None:
    calls: list[str] = []
    began, go = anyio.Event(), anyio.Event()

    def first(params: Any) -> Any:
        del core.plugins.registry.host["gone"]
        return {}

    async def slow(params: Any) -> Any:
        calls.append("slow")
        began.set()
        await go.wait()
        return {}

    with anyio.fail_after(60):
        async with EventCore(clock=Ahead()) as core:
            core.plugins.intent("first", first)
            core.plugins.intent("slow", slow)
            core.plugins.intent("gone", lambda params: {})
            define(
                core,
                {"id": "first", "plugin": "first"},
                {"id": "gone", "plugin": "gone"},
                {"id": "nap", "sleep": LIMIT, "needs": ["first"]},
                {"id": "slow", "plugin": "slow", "needs": ["nap"]},
            )
            run = await core.workflows.start("w")
            await until(lambda: stuck(core, run.id))
            pass_limit(core)
            await began.wait()
            core.plugins.intent("gone", lambda params: calls.append("gone") or {})
            while len(calls) < 2:
                await anyio.sleep(0.002)
            core.plugins.intent("another", lambda params: {})
            await anyio.sleep(0.02)
            go.set()
            await run.result(5)
            assert sorted(calls) == ["gone", "slow"]


async def test_a_stored_definition_that_is_no_longer_valid_keeps_nobody_out(anyio_backend: Any) -> None:
    store = MemoryStore()
    with anyio.fail_after(60):
        async with EventCore(store=store) as core:
            define(core, {"id": "a", "sleep": 3600})
            run = await core.workflows.start("w")
        for digest, row in store._tables.definitions.items():
            store._tables.definitions[digest] = replace(row, raw=b'{"slug": "w", "steps": "none"}')
        async with EventCore(store=store) as core:
            await core.bus.emit("x")
            assert await (await core.workflows.run(run.id)).status() == "waiting"


class HeldStore(MemoryStore):
    """Holds the reading of a journal back once, as a busy disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = False
        self.held, self.go_on = anyio.Event(), anyio.Event()

    async def journal(self, run: str) -> list[JournalEntry]:
        if self.hold:
            self.hold = False
            self.held.set()
            await self.go_on.wait()
        return await super().journal(run)


async def test_a_run_that_moved_on_while_it_was_loaded_is_loaded_again(anyio_backend: Any) -> None:
    store = HeldStore()
    with anyio.fail_after(60):
        async with EventCore(store=store) as core:
            host = core.plugins.registry.host
            core.plugins.intent("late", lambda params: {})
            core.plugins.intent("first", lambda params: str(host.pop("late")))  # gone when its step's turn comes
            define(core, {"id": "first", "plugin": "first"}, {"id": "a", "plugin": "late"})
            handle = await core.workflows.start("w")
            await until(lambda: stuck(core, handle.id))
            store.hold = True
            core.plugins.intent("late", lambda params: {})
            await store.held.wait()  # its row is read, its journal is not
            row = await store.run(handle.id)
            assert row is not None
            move = RunMove(row.id, "waiting", row.version + 1, row.updated)
            await store.commit(Batch(moves=[move]), [RunAt(row.id, row.version)])
            store.go_on.set()
            await handle.result(5)
