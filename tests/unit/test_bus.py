"""The bus: commit, order, isolation, who gets what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from eventcore import EventCore
from eventcore.kernel.context import CallContext, caller
from eventcore.kernel.errors import (
    EngineClosed,
    InvalidInput,
    InvalidName,
    InvalidPayload,
    NotFound,
    StoreError,
    WrongProcess,
)
from eventcore.kernel.event import Event
from eventcore.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def of_type(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


async def eventually(core: EventCore, pattern: str, count: int = 1) -> list[Event]:
    """The events of a pattern, once there are so many; the caller's time limit ends a vain wait."""
    while len(found := await of_type(core, pattern)) < count:
        await anyio.sleep(0.005)
    return found


# -- commit and order -------------------------------------------------------------------------------------------------


@pytest.mark.req("A4")
async def test_emit_returns_once_committed_and_a_slow_subscriber_holds_nobody_up(core: EventCore) -> None:
    got: list[Any] = []
    arrived = anyio.Event()

    async def slow(event: Event) -> None:
        await anyio.sleep_forever()

    async def quick(event: Event) -> None:
        got.append(event.data["id"])
        if len(got) == 10:
            arrived.set()

    slow_one = core.bus.subscribe("order_created", slow, timeout=60)
    core.bus.subscribe("order_created", quick)
    with anyio.fail_after(15):  # who waits for the slow one waits a minute
        for number in range(10):
            receipt = await core.bus.emit("order_created", {"id": number})
            assert (await core.history.get(receipt.id)).position == receipt.position
        await arrived.wait()
    assert got == list(range(10))
    core.bus.unsubscribe(slow_one)


async def test_each_subscription_gets_events_in_commit_order_whoever_emits(core: EventCore) -> None:
    got: list[int] = []

    async def handler(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        got.append(event.position)

    core.bus.subscribe("tick_*", handler)
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(core.bus.emit, f"tick_{number % 3}", {"n": number})
    await core.drain()
    assert len(got) == 50
    assert got == sorted(got)


async def test_concurrency_keeps_the_order_within_each_key(core: EventCore) -> None:
    keys = [f"key-{n}" for n in range(10)]
    seen: dict[str, list[int]] = {key: [] for key in keys}
    running = most = 0
    all_there = anyio.Event()  # or a slow emitter would give the handlers nothing to do at the same time

    async def handler(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await all_there.wait()
        await anyio.sleep(0.001 * (event.data % 3))
        assert event.key is not None
        seen[event.key].append(event.data)
        running -= 1

    core.bus.subscribe("job", handler, concurrency=4)
    for number in range(60):
        await core.bus.emit("job", number, key=keys[number % 10])
    all_there.set()
    await core.drain()
    assert most > 1
    assert seen == {key: list(range(at, 60, 10)) for at, key in enumerate(keys)}


async def test_priority_says_who_is_served_first(core: EventCore) -> None:
    core.bus.subscribe("x", lambda event: None, name="late")
    core.bus.subscribe("x", lambda event: None, name="early", priority=5)
    report = await core.bus.emit_and_wait("x")
    assert [outcome.subscription for outcome in report] == ["early", "late"]


async def test_what_a_handler_emits_is_queued_and_carries_hop_and_path(core: EventCore) -> None:
    order: list[str] = []

    async def first(event: Event) -> None:
        await core.bus.emit("second", {"from": event.id})
        order.append("first goes on")

    async def second(event: Event) -> None:
        order.append("second begins")

    core.bus.subscribe("first", first, name="one")
    core.bus.subscribe("second", second, name="one-more", priority=9)
    await core.bus.emit("first", key="k")
    await core.drain()
    [cause], [effect] = await of_type(core, "first"), await of_type(core, "second")
    assert (effect.hops, effect.path) == (1, (("one", "first", "k"),))
    assert (effect.causation_id, effect.correlation_id) == (cause.id, cause.id)
    assert effect.actor == "subscription:one"
    assert sorted(order) == ["first goes on", "second begins"]

    order.clear()
    core.bus.subscribe("nested", nested := _Nesting(core, order).handle, name="nesting", ignore_self=False)
    assert nested
    await core.bus.emit("nested", 0)
    await core.drain()
    assert order == ["in 0", "out 0", "in 1", "out 1", "in 2", "out 2"]


class _Nesting:
    def __init__(self, core: EventCore, order: list[str]) -> None:
        self.core, self.order = core, order

    async def handle(self, event: Event) -> None:
        self.order.append(f"in {event.data}")
        if event.data < 2:
            await self.core.bus.emit("nested", event.data + 1)
        self.order.append(f"out {event.data}")


# -- isolation --------------------------------------------------------------------------------------------------------


@pytest.mark.req("A5")
async def test_failing_and_hanging_handlers_disturb_nobody(core: EventCore) -> None:
    async def raises(event: Event) -> None:
        raise ValueError("no such order")

    async def hangs(event: Event) -> None:
        await anyio.sleep_forever()

    core.bus.subscribe("order_created", raises)
    core.bus.subscribe("order_created", hangs, timeout=0.05)
    core.bus.subscribe("order_created", lambda event: event.data["id"], name="plain")
    report = await core.bus.emit_and_wait("order_created", {"id": 7})
    by_name = {outcome.subscription: outcome for outcome in report}
    assert {name: one.status for name, one in by_name.items()} == {"raises": "error", "hangs": "timeout", "plain": "ok"}
    assert by_name["raises"].error == "ValueError: no such order"
    assert by_name["plain"].value == 7
    assert by_name["hangs"].seconds >= 0.05
    errors = await eventually(core, "plugin_error", 2)
    assert {(event.data["subscription"], event.data["status"]) for event in errors} == {
        ("raises", "error"),
        ("hangs", "timeout"),
    }
    assert all(event.causation_id == report.event.id for event in errors)
    again = await core.bus.emit_and_wait("order_created", {"id": 8})
    assert {outcome.status for outcome in again} == {"error", "timeout", "ok"}


async def test_a_failure_while_handling_plugin_error_does_not_feed_itself(core: EventCore) -> None:
    async def always_fails(event: Event) -> None:
        raise RuntimeError("again")

    core.bus.subscribe("**", always_fails)
    await core.bus.emit("x")
    await eventually(core, "plugin_error")
    await core.drain()
    await anyio.sleep(0.02)
    assert len(await of_type(core, "plugin_error")) == 1


@pytest.mark.parametrize("message", ["\ud800 is no text", "x" * 400_000])
async def test_an_unwritable_error_message_is_recorded_all_the_same(core: EventCore, message: str) -> None:
    async def raises(event: Event) -> None:
        raise ValueError(message)

    core.bus.subscribe("x", raises)
    await core.bus.emit("x")
    [error] = await eventually(core, "plugin_error")
    assert error.data["error"].startswith("ValueError: ")
    assert len(error.raw) < 10_000
    await core.bus.emit("y")  # the engine is alive


async def test_a_store_that_cannot_record_an_error_does_not_end_the_engine() -> None:
    store = Refusing("plugin_error")
    with anyio.fail_after(10):
        async with EventCore(store=store) as core:

            async def raises(event: Event) -> None:
                raise ValueError("no")

            core.bus.subscribe("x", raises)
            await core.bus.emit("x")
            await store.refused.wait()
            await anyio.sleep(0.01)
            assert (await core.bus.emit("y")).position > 0


class Refusing(MemoryStore):
    """Cannot store one type of event."""

    def __init__(self, type: str) -> None:
        super().__init__()
        self.type, self.refused = type, anyio.Event()

    async def commit(self, batch: Any, guards: Any = ()) -> int:
        if any(getattr(entry, "type", None) == self.type for entry in batch.log):
            self.refused.set()
            raise StoreError("the disk is full")
        return await super().commit(batch, guards)


async def test_a_filter_that_raises_is_that_subscriptions_failure_alone(core: EventCore) -> None:
    core.bus.subscribe("order", lambda event: "seen", name="broken", where=lambda event: event.data["amount"] > 5)
    core.bus.subscribe("order", lambda event: "seen", name="sound", where=lambda event: True)
    core.bus.subscribe("order", lambda event: "seen", name="other", where=lambda event: False)
    report = await core.bus.emit_and_wait("order", {})
    assert [(one.subscription, one.status) for one in report] == [("broken", "error"), ("sound", "ok")]
    assert "KeyError" in (report.outcomes[0].error or "")
    assert (await eventually(core, "plugin_error"))[0].data["subscription"] == "broken"
    assert [one.status for one in await core.bus.emit_and_wait("order", {"amount": 9})] == ["ok", "ok"]


# -- emit_and_wait ----------------------------------------------------------------------------------------------------


async def test_emit_and_wait_gives_up_on_the_late_and_lets_them_go_on(core: EventCore) -> None:
    done = anyio.Event()
    go = anyio.Event()

    async def late(event: Event) -> None:
        await go.wait()
        done.set()

    core.bus.subscribe("x", late)
    report = await core.bus.emit_and_wait("x", timeout=0.02)
    assert [one.status for one in report] == ["timeout"]
    go.set()
    await done.wait()


async def test_emit_and_wait_with_a_known_key_does_not_wait_for_what_is_long_over(core: EventCore) -> None:
    core.bus.subscribe("x", lambda event: None)
    first = await core.bus.emit_and_wait("x", {"a": 1}, idempotency_key="k")
    with anyio.fail_after(15):
        again = await core.bus.emit_and_wait("x", {"a": 1}, idempotency_key="k", timeout=60)
    assert (again.event.id, again.event.position) == (first.event.id, first.event.position)
    assert len(again) == 0


async def test_emit_and_wait_refuses_options_that_it_does_not_know(core: EventCore) -> None:
    with pytest.raises(TypeError, match="idempotencykey"):
        await core.bus.emit_and_wait("x", {}, idempotencykey="k")


async def test_emit_and_wait_never_waits_for_the_handler_that_it_is_called_in(core: EventCore) -> None:
    reports: list[Any] = []

    async def asks(event: Event) -> None:
        reports.append(await core.bus.emit_and_wait("question", timeout=60))

    async def answers(event: Event) -> None:
        reports.append(await core.bus.emit_and_wait("begin_again", timeout=60))

    core.bus.subscribe("begin*", asks, name="asks", where=lambda event: event.type == "begin" or not reports)
    core.bus.subscribe("question", answers, name="answers")
    with anyio.fail_after(15):
        await core.bus.emit_and_wait("begin")
    assert [one.status for one in reports[0]] == ["skipped"]  # asks is busy asking
    assert [one.status for one in reports[1]] == ["ok"]


# -- who gets what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "gets"),
    [
        ("order_created", {"order_created"}),
        ("order_*", {"order_created", "order_paid"}),
        ("*", {"order_created", "order_paid", "other"}),
        ("shop.*", {"shop.opened"}),
        ("**", {"order_created", "order_paid", "other", "shop.opened", "shop.floor.wet"}),
    ],
)
async def test_patterns(core: EventCore, pattern: str, gets: set[str]) -> None:
    got: set[str] = set()

    async def handler(event: Event) -> None:
        got.add(event.type)

    core.bus.subscribe(pattern, handler)
    for name in ("order_created", "order_paid", "other", "shop.opened", "shop.floor.wet"):
        await core.bus.emit(name)
    await core.drain()
    assert got == gets


async def test_dotted_aliases_mean_the_core_events(core: EventCore) -> None:
    got: list[str] = []

    async def handler(event: Event) -> None:
        got.append(event.type)

    core.bus.subscribe("workflow.started", handler)
    core.workflows.define({"slug": "w", "steps": [{"id": "a", "emit": "done"}]})
    await (await core.workflows.start("w")).result(15)
    await core.drain()
    assert got == ["workflow_started"]
    assert [event.type for event in await of_type(core, "workflow.started")] == ["workflow_started"]


async def test_everything_leaves_out_the_buss_own_notices(core: EventCore) -> None:
    got: list[str] = []

    async def all_of_it(event: Event) -> None:
        got.append(event.type)

    core.bus.subscribe("**", all_of_it)
    core.bus.subscribe("bus_*", notices := _Collect())
    context = CallContext(actor="system")
    await core.bus.announce("bus_overflow", {}, context)
    await core.bus.announce("system_stopped", {}, context)
    await core.drain()
    assert got == ["system_stopped"]
    assert notices.types == ["bus_overflow"]


class _Collect:
    def __init__(self) -> None:
        self.types: list[str] = []

    async def __call__(self, event: Event) -> None:
        self.types.append(event.type)


async def test_grants_are_asked_for_each_event(core: EventCore) -> None:
    got = _Collect()
    core.bus.subscribe("**", got, allow=lambda event: not event.type.startswith("secret"))
    await core.bus.emit("secret_thing")
    await core.bus.emit("open_thing")
    await core.drain()
    assert got.types == ["open_thing"]


async def test_a_subscription_is_not_handed_its_own_emits(core: EventCore) -> None:
    counts = {"ignores": 0, "hears": 0}

    async def ignores(event: Event) -> None:
        counts["ignores"] += 1
        if counts["ignores"] == 1:
            await core.bus.emit("echo")

    async def hears(event: Event) -> None:
        counts["hears"] += 1

    core.bus.subscribe("echo", ignores)
    core.bus.subscribe("echo", hears)
    await core.bus.emit("echo")
    await core.drain()
    assert counts == {"ignores": 1, "hears": 2}


async def test_subscriptions_belong_to_a_tenant(core: EventCore) -> None:
    got, theirs = _Collect(), _Collect()
    core.bus.subscribe("x", got)
    core.bus.subscribe("x", theirs, tenant="acme")
    await core.bus.emit("x", context=caller("user:a", tenant="acme"))
    await core.drain()
    assert (got.types, theirs.types) == ([], ["x"])
    with pytest.raises(NotFound):
        await core.history.get((await core.bus.emit("x", context=caller("user:a", tenant="acme"))).id)


async def test_names_of_subscriptions_are_unique(core: EventCore) -> None:
    core.bus.subscribe("x", lambda event: None, name="mine")
    with pytest.raises(InvalidInput, match="'mine' already"):
        core.bus.subscribe("y", lambda event: None, name="mine")

    async def handler(event: Event) -> None: ...

    names = [core.bus.subscribe("x", handler).name for _ in range(3)]
    assert names == ["handler", "handler-2", "handler-3"]


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": 0}, {"buffer": 0}, {"timeout": 0}, {"overflow": "explode"}, {"pattern": "Not A Pattern"}],
)
async def test_bad_arguments_of_subscribe(core: EventCore, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        core.bus.subscribe(**{"pattern": "x", "handler": lambda event: None, **wrong})
    assert core.bus.subscriptions() == []


# -- ending -----------------------------------------------------------------------------------------------------------


async def test_unsubscribing_cancels_what_is_buffered_and_what_runs(core: EventCore) -> None:
    started = anyio.Event()

    async def stuck(event: Event) -> None:
        started.set()
        await anyio.sleep_forever()

    subscription = core.bus.subscribe("x", stuck)
    reports: list[Any] = []

    async def emit() -> None:
        reports.append(await core.bus.emit_and_wait("x", timeout=60))

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(emit)
            tasks.start_soon(emit)
            await started.wait()
            while subscription.backlog < 1:
                await anyio.sleep(0.001)
            core.bus.unsubscribe(subscription)
    assert [[one.status for one in report] for report in reports] == [["cancelled"], ["cancelled"]]
    core.bus.unsubscribe(subscription)
    assert len(await core.bus.emit_and_wait("x")) == 0
    assert core.bus.idle


async def test_a_handler_may_unsubscribe_itself_and_finish(core: EventCore) -> None:
    finished: list[Any] = []

    async def once(event: Event) -> None:
        core.bus.unsubscribe(subscription)
        await anyio.sleep(0.001)
        finished.append(event.data)

    subscription = core.bus.subscribe("x", once)
    report = await core.bus.emit_and_wait("x", 1, timeout=15)
    await core.bus.emit("x", 2)
    await core.drain()
    assert finished == [1]
    assert [one.status for one in report] == ["ok"]


async def test_unsubscribing_before_the_pump_ran(core: EventCore) -> None:
    got = _Collect()
    subscription = core.bus.subscribe("x", got)
    core.bus.unsubscribe(subscription)
    await anyio.sleep(0.005)
    subscription.offer((await core.bus.emit_and_wait("x")).event)
    await anyio.sleep(0.005)
    assert got.types == []  # its pump is gone


async def test_stream(core: EventCore) -> None:
    async with core.bus.stream("order_*", where=lambda event: event.data != 2) as stream:
        for number in range(4):
            await core.bus.emit("order_created", number)
        got = []
        with anyio.fail_after(15):
            async for event in stream:
                got.append(event.data)
                if event.data == 3:
                    break
    assert got == [0, 1, 3]
    assert core.bus.subscriptions() == []
    with pytest.raises(StopAsyncIteration):
        await stream.__anext__()
    await core.drain()
    assert await of_type(core, "plugin_error") == []


async def test_closing_a_stream_nobody_reads_is_no_error(core: EventCore) -> None:
    stream = core.bus.stream("x")
    await core.bus.emit("x")
    await anyio.sleep(0.005)
    await stream.aclose()
    await stream.aclose()
    await core.drain()
    await anyio.sleep(0.005)
    assert await of_type(core, "plugin_error") == []


async def test_use_after_close() -> None:
    async with EventCore() as core:
        bus, hooks, plugins = core.bus, core.hooks, core.plugins
        called: list[Any] = []
        core.plugins.intent("mine", called.append)
    for use in (lambda: core.bus, lambda: core.hooks, lambda: core.plugins, lambda: core.workflows):
        with pytest.raises(EngineClosed):
            use()
    with pytest.raises(EngineClosed):
        await bus.emit("x")
    with pytest.raises(EngineClosed):
        await bus.emit_and_wait("x")
    with pytest.raises(EngineClosed):
        await hooks.call("on_message", {"text": "hi"})
    with pytest.raises(EngineClosed):
        await plugins.run("mine")
    assert called == []


async def test_an_engine_is_opened_once() -> None:
    core = EventCore()
    async with core:
        pass
    with pytest.raises(EngineClosed):
        async with core:
            pass


async def test_the_callers_own_exception_comes_out_bare() -> None:
    with pytest.raises(NotFound, match="mine"):  # noqa: PT012 - the block around it is the point
        async with EventCore() as core:
            core.bus.subscribe("x", lambda event: None)
            raise NotFound("mine")


async def test_two_engines_in_one_process_share_nothing() -> None:
    async with EventCore() as one, EventCore() as two:
        got_one, got_two = _Collect(), _Collect()

        class Strict(BaseModel):
            n: int

        one.bus.declare("x", model=Strict)
        one.bus.subscribe("x", got_one)
        two.bus.subscribe("x", got_two)
        one.plugins.intent("mine", lambda params: {"of": "one"})
        tapped: list[str] = []
        two.signals.x.connect(lambda sender, event: tapped.append(event.type))

        async def crossing(event: Event) -> None:
            await two.bus.emit("y")

        one.bus.subscribe("cross", crossing)
        await one.bus.emit("x", {"n": 1})
        await one.bus.emit("cross")
        with pytest.raises(InvalidPayload):
            await one.bus.emit("x", {"n": "no"})
        await two.bus.emit("x", {"n": "yes"})
        await one.drain()
        await two.drain()
        assert (got_one.types, got_two.types, tapped) == (["x"], ["x"], ["x"])
        with pytest.raises(NotFound):
            await two.plugins.run("mine")
        [crossed] = await of_type(two, "y")
        assert (crossed.hops, crossed.actor, crossed.causation_id) == (0, "operator", None)  # not one's chain of causes


async def test_an_engine_is_bound_to_its_thread(core: EventCore) -> None:
    bus = core.bus

    def elsewhere() -> None:
        anyio.run(bus.emit, "x")

    with pytest.raises(WrongProcess):
        await anyio.to_thread.run_sync(elsewhere)


FORKED = """
    import anyio, os, sys
    from eventcore import EventCore
    from eventcore.kernel.errors import WrongProcess

    async def main():
        async with EventCore() as core:
            bus, pid = core.bus, os.fork()
            if pid == 0:
                try:
                    await bus.emit("x")
                except WrongProcess as error:
                    os.write(1, f"refused: {error}".encode())
                    os._exit(0)
                os._exit(1)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            await bus.emit("x")
    anyio.run(main)
"""


def test_use_after_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKED)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "opened by another process" in done.stdout
    assert done.returncode != -signal.SIGKILL
    assert os.getpid()


# -- types ------------------------------------------------------------------------------------------------------------


class Address(BaseModel):
    city: str


class Order(BaseModel):
    id: int
    address: Address


async def test_typed_payloads_are_refused_with_the_fields_path(core: EventCore) -> None:
    core.bus.declare("order_created", model=Order)
    with pytest.raises(InvalidPayload, match=r"order_created: address\.city: .*; id: |id: .*; address\.city: "):
        await core.bus.emit("order_created", {"id": "x", "address": {"city": 7}})
    assert await of_type(core, "order_created") == []
    await core.bus.emit("order_created", Order(id=1, address=Address(city="Ghent")))
    await core.bus.emit("order_created", {"id": 2, "address": {"city": "Ghent"}})
    assert [event.data["id"] for event in await of_type(core, "order_created")] == [1, 2]


async def test_transient_types_are_handed_out_but_not_recorded(core: EventCore) -> None:
    core.bus.declare("tick", transient=True)
    got = _Collect()
    core.bus.subscribe("tick", got)
    receipt = await core.bus.emit("tick", {"n": 1})
    report = await core.bus.emit_and_wait("tick", {"n": 2})
    assert (receipt.position, [one.status for one in report]) == (0, ["ok"])
    assert got.types == ["tick", "tick"]
    assert await of_type(core, "tick") == []
    with pytest.raises(NotFound):
        await core.history.get(receipt.id)


@pytest.mark.parametrize("name", ["workflow_started", "workflow.started", "bus_overflow", "on_message", "on_anything"])
async def test_core_names_and_hook_names_are_the_hosts(core: EventCore, name: str) -> None:
    with pytest.raises(InvalidName, match="only the host emits"):
        await core.bus.emit(name, {})
    with pytest.raises(InvalidName):
        core.bus.declare(name)
    assert await of_type(core, name) == []


@pytest.mark.parametrize("name", ["", "Order", "9lives", "a..b", "a b", "ordér", "x" * 129, "a.", "order-created"])
async def test_names_outside_the_grammar(core: EventCore, name: str) -> None:
    with pytest.raises(InvalidName, match="is not an event type"):
        await core.bus.emit(name)
