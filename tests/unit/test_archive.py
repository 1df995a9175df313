"""Counting, retention, export and import of the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.bus.archive import EVERY, FIRST, Archive
from eventcore.cli.events import _COUNT_BY
from eventcore.kernel.cloudevents import to_cloudevent
from eventcore.kernel.context import caller
from eventcore.kernel.errors import InvalidInput, StoreError
from eventcore.kernel.event import Event
from eventcore.kernel.records import Batch, Definition, EventQuery, RunQuery
from eventcore.kernel.upkeep import COUNT_BY, EventCount, PrunedRuns
from eventcore.observe.metrics import PrometheusMetrics
from eventcore.operations import perform
from eventcore.storage.memory import MemoryStore
from eventcore.testing.store_checks.records import run, step

pytestmark = pytest.mark.anyio

DAY = 86_400.0


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.at, self.slept = 1000 * DAY, list[float]()
        self.stop_after = 10

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) >= self.stop_after:
            await anyio.sleep_forever()
        self.at += seconds
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def archive(clock: Clock, **settings: Any) -> AsyncIterator[tuple[Archive, MemoryStore]]:
    async with AsyncExitStack() as stack:
        store = MemoryStore()
        await store.start(stack)
        yield Archive(store=store, clock=clock, metrics=PrometheusMetrics(strict=True), **settings), store


def event(number: int, at: float, type_: str = "order_created") -> Event:
    return Event(f"e{number}", type_, "/host", at, b'"' + b"x" * 1000 + b'"')


async def left(store: MemoryStore) -> list[str]:
    return [found.id for found in await store.events(EventQuery(limit=10_000))]


async def test_it_prunes_by_age_once_an_hour_and_keeps_what_the_settings_keep() -> None:
    clock = Clock()
    clock.stop_after = 3
    async with archive(clock, keep=90 * DAY, keep_types=["audit_*"]) as (kept, store):
        now = clock.now()
        log = [event(1, now - 91 * DAY), event(2, now - 91 * DAY, "audit_made"), event(3, now - 90 * DAY + 120)]
        await store.commit(Batch(log=[*log, event(4, now)]))
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kept.run)
                while len(clock.slept) < 3:
                    await anyio.sleep(0)
                tasks.cancel_scope.cancel()
        assert clock.slept == [FIRST, EVERY, EVERY]
        # e3 was 90 days old only at the second look.
        assert await left(store) == ["e2", "e4"]


async def test_it_prunes_the_oldest_by_size() -> None:
    clock = Clock()
    clock.stop_after = 1000
    async with archive(clock, max_size=1_000_000) as (kept, store):
        await store.commit(Batch(log=[event(n, float(n)) for n in range(3000)]))
        assert await store.size() > 5_000_000
        gone = await kept.tidy()
        assert await store.size() <= 1_000_000
        found = await left(store)
        assert len(found) + gone.events == 3000
        assert found[-1] == "e2999"
        assert found[0] == f"e{gone.events}", "the oldest went"
        assert await store.size() > 900_000, "and not many more than had to"


async def test_size_that_cannot_be_reached_ends_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with archive(Clock(), max_size=10, keep_types=["order_*"]) as (kept, store):
        await store.commit(Batch(log=[event(1, 1.0), event(2, 1.0, "tick")]))
        assert (await kept.tidy()).events == 1
        assert await left(store) == ["e1"]
    assert "nothing more may be removed" in caplog.text


async def test_no_settings_remove_nothing() -> None:
    async with archive(Clock()) as (kept, store):
        await store.commit(Batch(log=[event(1, 1.0)]))
        await kept.tidy()
        assert await left(store) == ["e1"]


async def test_prune_by_hand(core: EventCore) -> None:
    await core.bus.emit("order_created", {})
    await core.bus.emit("order_created", {}, context=caller("user:eve", tenant="acme"))
    engine = core.engine
    assert (await engine.archive.prune(older_than=3600, tenant="default", pattern=None)).events == 0
    done = await perform(engine, "events.prune", {"older_than": "0s", "type": "order_*", "dry_run": True}, _drop)
    assert done == {"events": 1, "steps": 0, "dry_run": True}
    await perform(engine, "events.prune", {"older_than": "0s", "type": "order_*"}, _drop)
    found = await engine.store.events(EventQuery(types=("order_created",)))
    assert [one.tenant for one in found] == ["acme"], "another tenant's stays"
    assert [row.action for row in await engine.store.audit("default")] == ["prune"]
    assert 'eventcore_pruned_total{kind="event"} 1.0' in core.metrics.text()
    with pytest.raises(InvalidInput):
        await perform(engine, "events.prune", {"older_than": "soon"}, _drop)


async def _drop(item: Any) -> None: ...


async def test_a_finished_run_keeps_its_journal_when_its_steps_are_pruned(core: EventCore) -> None:
    core.workflows.define("slug: two\nsteps: [{id: a, emit: one}, {id: b, emit: two}]")
    run = await core.workflows.start("two")
    await run.result(timeout=15)
    await perform(core.engine, "events.prune", {"older_than": "0s", "type": "step_*"}, _drop)
    assert [one async for one in core.history.query(type="step_*")] == []
    shown = await perform(core.engine, "runs.show", {"id": run.id}, _drop)
    assert [step["status"] for step in shown["steps"]] == ["completed", "completed"]


# -- counts


async def test_counts(core: EventCore) -> None:
    for number in range(3):
        await core.bus.emit("order_created", {"status": "ok" if number else "bad"}, source="/shop")
    await core.bus.emit("order_paid", 1, context=caller("user:eve", tenant="acme"))
    assert await core.history.count(type="order_*") == [EventCount("order_created", None, 3)]
    counted = await core.history.count("status", type="order_*", where={"data.status": "ok"})
    assert counted == [EventCount("ok", None, 2)]
    [row] = await core.history.count("source", every=10 * DAY, type="order_*")
    assert (row.value, row.count) == ("/shop", 3)
    assert row.since is not None
    assert row.since % (10 * DAY) == 0
    for bad in ({"by": "colour"}, {"every": 0}, {"limit": 5}):
        with pytest.raises(InvalidInput):
            await core.history.count(**bad)


def test_the_command_line_offers_every_way_to_count() -> None:
    assert _COUNT_BY == COUNT_BY


# -- export and import


async def exported(core: EventCore, **conditions: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def take(item: dict[str, Any]) -> None:
        found.append(item)

    done = await perform(core.engine, "events.export", conditions, take)
    assert done == {"events": len(found)}
    return found


async def test_an_export_reads_back_into_an_empty_history(core: EventCore) -> None:
    await core.bus.emit("order_created", {"id": 7}, subject="s", key="k", idempotency_key="once")
    await core.bus.emit_cloudevent(
        {"specversion": "1.0", "id": "a1", "source": "/x", "type": "Foreign", "custom": "y", "data_base64": "AP8="}
    )
    core.workflows.define("slug: one\ntriggers: [{event: order_created}]\nsteps: [{id: a, emit: done}]")
    await (await core.workflows.start("one")).result(timeout=15)
    bodies = await exported(core)
    assert await exported(core, type="order_*") == [body for body in bodies if body["type"] == "order_created"]
    heard: list[str] = []
    async with EventCore() as other:
        other.bus.subscribe("**", lambda one: heard.append(one.type))
        other.signals.order_created.connect(lambda sender, event: heard.append("tapped"))
        other.workflows.define("slug: one\ntriggers: [{event: order_created}]\nsteps: [{id: a, emit: done}]")
        lines = [[number, body] for number, body in enumerate(bodies, 1)]
        done = await perform(other.engine, "events.import", {"events": [*lines, [99, {"id": 1}], lines[0]]}, _drop)
        assert (done["imported"], done["duplicates"]) == (len(bodies), 1)
        assert [(error["line"], error["code"]) for error in done["errors"]] == [(99, "invalid_payload")]
        again = await perform(other.engine, "events.import", {"events": lines}, _drop)
        assert (again["imported"], again["duplicates"]) == (0, len(bodies))
        await other.drain()
        assert heard == [], "history is not delivered"
        assert await other.engine.store.runs(RunQuery()) == [], "and starts nothing"
        mark = {"imported": True}
        mine = [event async for event in other.history.query() if event.imported]
        assert [to_cloudevent(event) for event in mine] == [{**body, **mark} for body in bodies]
        assert [event.id async for event in other.history.query(text="foreign")] == ["a1"]
        await other.bus.emit("order_created", {"id": 8})
        await other.drain()
        assert heard[:2].count("order_created") == 1, "what is new is delivered"


async def test_an_import_is_history_for_durable_subscriptions_too(anyio_backend: Any) -> None:
    store = MemoryStore()
    body = {"specversion": "1.0", "id": "a1", "source": "/x", "type": "order_created", "data": 1}
    seen: list[Any] = []

    async def handle(event: Event) -> None:
        seen.append(event.data)

    async with EventCore(store=store) as core:
        await core.engine.archive.add([(1, body)], "default")
    with anyio.fail_after(10):
        async with EventCore(store=store) as core:
            core.bus.subscribe("order_created", handle, name="all", durable=Durable(deliver="all"))
            await core.bus.emit("order_created", 2)
            while not seen:
                await anyio.sleep(0.005)
            await core.drain()
    assert seen == [2]


async def test_durable_deliveries_are_in_the_newest_version() -> None:
    store = MemoryStore()
    seen: list[Any] = []

    async def handle(event: Event) -> None:
        seen.append((event.data, event.schema_version))

    async with EventCore(store=store) as core:
        await core.bus.emit("order_created", 2)
    with anyio.fail_after(10):
        async with EventCore(store=store) as core:
            core.bus.declare("order_created", version=2, upcast={1: lambda data: {"amount": data}})
            core.bus.subscribe("order_created", handle, name="all", durable=Durable(deliver="all"))
            while not seen:
                await anyio.sleep(0.005)
    assert seen == [({"amount": 2}, 2)]


# -- explain


async def explained(core: EventCore, event_id: str) -> dict[str, Any]:
    found: dict[str, Any] = await perform(core.engine, "events.explain", {"id": event_id}, _drop)
    return found


async def test_explain_says_why_nothing_started(core: EventCore) -> None:
    steps = "steps: [{id: a, emit: done}]"
    core.workflows.define(f"slug: big\ntriggers: [{{event: 'order_*', if: 'event.data.amount > 10'}}]\n{steps}")
    core.workflows.define(f"slug: broken\ntriggers: [{{event: order_created, if: 'event.data.absent.x'}}]\n{steps}")
    core.workflows.define(f"slug: other\ntriggers: [{{event: something_else}}]\n{steps}")

    def fail(event: Event) -> None:
        raise ValueError("no stock")

    core.bus.subscribe("order_created", fail, name="stock")
    core.bus.subscribe("order_created", fail, name="choosy", where=lambda event: event.data["amount"] > 100)
    core.bus.subscribe("order_created", fail, name="odd", where=lambda event: event.data["absent"])
    small = await core.bus.emit("order_created", {"amount": 5})
    big = await core.bus.emit("order_created", {"amount": 50})
    await core.drain()
    found = await explained(core, small.id)
    triggers = {one["slug"]: one for one in found["triggers"]}
    assert triggers.keys() == {"big", "broken"}
    assert (triggers["big"]["holds"], triggers["big"]["value"], triggers["big"]["run"]) == (False, False, None)
    assert "absent" in triggers["broken"]["error"]
    subscriptions = {one["name"]: one for one in found["subscriptions"]}
    assert subscriptions["stock"]["wants"]
    assert not subscriptions["choosy"]["wants"]
    assert "KeyError" in subscriptions["odd"]["error"]
    assert {one["subscription"] for one in found["failures"]} == {"stock", "odd"}
    assert "no stock" in str(found["failures"])
    started = {one["slug"]: one["run"] for one in (await explained(core, big.id))["triggers"]}
    assert started["big"] is not None
    assert (await core.history.get(started["big"])).type == "workflow_started"


# -- tail, backup


async def test_tail_goes_on_after_a_position_without_a_gap(core: EventCore) -> None:
    for number in range(600):
        await core.bus.emit("x", number)
    start = (await core.bus.emit("x", "last")).position - 501
    seen: list[Any] = []
    done = anyio.Event()

    async def take(item: dict[str, Any]) -> None:
        seen.append(item["data"])
        if item["data"] == "last":
            await core.bus.emit("x", "live")  # while the past is still being sent
        if item["data"] == "live":
            done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(perform, core.engine, "events.tail", {"pattern": "x", "after": start}, take)
        with anyio.fail_after(10):
            await done.wait()
        tasks.cancel_scope.cancel()
    assert seen == [*range(100, 600), "last", "live"]


async def test_a_store_in_memory_has_nothing_to_back_up(core: EventCore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not in a file"):
        await perform(core.engine, "backup", {"path": str(tmp_path / "b.db")}, _drop)
    with pytest.raises(InvalidInput, match="relative"):
        await perform(core.engine, "backup", {"path": "b.db"}, _drop)


async def test_finished_runs_go_after_their_time() -> None:
    clock = Clock()
    async with archive(clock, keep_runs=90 * DAY) as (kept, store):
        now = clock.now()
        runs = [run(f"r{n:03}", status="completed", updated=now - 91 * DAY) for n in range(250)]
        runs += [run("young", status="failed", updated=now - 89 * DAY), run("live", status="waiting", updated=1.0)]
        log = [step(n, run=f"r{n:03}") for n in range(250)]
        definitions = [
            Definition(name, "default", "triage", b"{}", now - age) for name, age in (("d1", 9e9), ("new", 1))
        ]
        await store.commit(Batch(log=log, runs=runs, definitions=definitions))
        assert await kept.prune_runs(older_than=90 * DAY, dry_run=True) == PrunedRuns(250)
        assert await kept.prune_runs(older_than=90 * DAY, tenant="other") == PrunedRuns()
        clock.stop_after = 4
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kept.run)
                while len(clock.slept) < 4:
                    await anyio.sleep(0)
                tasks.cancel_scope.cancel()
        assert clock.slept == [FIRST, 0.05, 0.05, EVERY], "three chunks"
        assert [found.id for found in await store.runs(RunQuery())] == ["young", "live"]
        assert await store.definition("new") is not None, "an engine may be about to start a run of it"
        assert 'eventcore_pruned_total{kind="run"} 250.0' in kept._metrics.text()
        with pytest.raises(InvalidInput):
            await kept.prune_runs(older_than=-1)
