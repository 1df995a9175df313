"""Long runs go on from their snapshots: as they would have from the whole journal, and only where these are sound."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.ports import Store
from eventcore.kernel.records import Batch, Run, Snapshot
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore
from eventcore.workflows import snapshots
from eventcore.workflows.loading import load
from eventcore.workflows.pinned import plan_of
from eventcore.workflows.saving import Saver
from eventcore.workflows.scribe import entries_of, initial_state
from eventcore.workflows.snapshots import UnfitSnapshot, restore, snapshot_of, spacing
from eventcore.workflows.state import State, StepState, fold

pytestmark = pytest.mark.anyio

EACH = {"id": "each", "foreach": "{{ inputs.items }}", "max_parallel": 5, "plugin": "work", "with": {"n": "{{ item }}"}}
WAITS = [{"id": f"wait{number}", "wait_for": {"signal": "go"}} for number in range(4)]
LAST = {"id": "last", "emit": "finished", "with": {"sum": "{{ steps.each.output | sum }}"}}
LONG = {"slug": "w", "steps": [EACH, *WAITS, LAST], "outputs": "{{ steps.each.output | sum }}"}


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    memory = MemoryStore()
    return lambda: memory if request.param == "memory" else SqliteStore(tmp_path / "a.db")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def often(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A snapshot every ten entries."""
    monkeypatch.setattr(Saver, "every", 10)
    with anyio.fail_after(60):
        yield


async def furnish(core: EventCore) -> None:
    core.plugins.intent("work", lambda params: params["n"])
    core.workflows.define(LONG)


async def waiting(core: EventCore, step: str) -> None:
    """Until a step listens."""
    while not any(row.path == step for row in await core.engine.store.listening()):
        await anyio.sleep(0.002)
    await core.drain(5)


async def begun(core: EventCore, items: int = 30) -> Any:
    await furnish(core)
    run = await core.workflows.start("w", {"items": [*range(items)]})
    await waiting(core, "wait0")
    return run


async def whole(core: EventCore, run: Run) -> tuple[State, dict[str, str]]:
    """A run as its whole journal has it."""
    journal = await core.engine.store.journal(run.id)
    started = {one.step: one.event.id for one in journal if one.event.type == "step_started"}
    return fold(initial_state(run), entries_of(journal)), started


async def loaded(core: EventCore, run: Run) -> tuple[State, dict[str, str]]:
    """A run as the engine loads it."""
    plan = await plan_of(core.engine.workflows.registry, core.engine.store, run)
    assert plan is not None
    active = await load(core.engine.store, run, plan)
    return active.state, active.started


async def test_a_run_goes_on_from_its_snapshot(make_store: Callable[[], Store], often: None) -> None:
    """It reads the entries after it only; state, order of steps and causes are those of the whole journal."""
    async with EventCore(store=make_store()) as core:
        run = await begun(core)
        kept, rest = await core.engine.store.journal_tail(run.id)
        assert kept is not None
        assert kept.count + len(rest) == len(await core.engine.store.journal(run.id))
        assert kept.count >= 50
        assert len(rest) < 20
        (state, started), (all_of_it, all_started) = [await read(core, await run.row()) for read in (loaded, whole)]
        assert (state, started) == (all_of_it, all_started)
        assert [*state.steps] == [*all_of_it.steps]
        assert [*state.views] == [*all_of_it.views]
    async with EventCore(store=make_store()) as core:
        await furnish(core)
        for number in range(4):
            await waiting(core, f"wait{number}")
            await core.workflows.signal(run.id, "go")
        again = await core.workflows.run(run.id)
        assert await again.result(15) == sum(range(30))
        assert await core.engine.store.journal_tail(run.id) == (None, await core.engine.store.journal(run.id))
        [end] = [event async for event in core.history.query(type="finished")]
        begins = [event async for event in core.history.query(type="step_started", run=run.id)]
        assert end.causation_id == next(event.id for event in begins if event.subject == "last")


async def test_a_run_that_only_waits_keeps_snapshots_too(make_store: Callable[[], Store], often: None) -> None:
    """Each of its ticks loads it anew; then the commit right after keeps one."""
    async with EventCore(store=make_store()) as core:
        run = await begun(core, 3)
        assert (await core.engine.store.journal_tail(run.id))[0] is None
        counts = []
        for number in range(3):
            await core.workflows.signal(run.id, "go")
            await waiting(core, f"wait{number + 1}")
            kept, _ = await core.engine.store.journal_tail(run.id)
            counts.append(kept.count if kept else 0)
            assert (await loaded(core, await run.row())) == (await whole(core, await run.row()))
        assert counts == [0, 11, 11], "at eleven entries, and not again before ten more"


async def test_short_runs_never_pay(make_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a snapshot of a short run")

    monkeypatch.setattr("eventcore.workflows.scribe.snapshot_of", never)
    async with EventCore(store=make_store()) as core:
        run = await begun(core, 100)
        for number in range(4):
            await waiting(core, f"wait{number}")
            await core.workflows.signal(run.id, "go")
        assert await run.result(15) == sum(range(100))


def spoil(kept: Snapshot, how: str) -> Snapshot:
    match how:
        case "damaged":
            return replace(kept, raw=kept.raw.replace(b"completed", b"cancelled", 1))
        case "cut off":
            return replace(kept, raw=kept.raw[: len(kept.raw) // 2])
        case "other format":
            return replace(kept, format=kept.format + 1)
        case _:
            return replace(kept, reader="another")


@pytest.mark.parametrize("how", ["damaged", "cut off", "other format", "other code"])
async def test_a_snapshot_that_is_not_fit_is_left_aside(
    make_store: Callable[[], Store], often: None, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with EventCore(store=make_store()) as core:
        run = await begun(core)
        kept, _ = await core.engine.store.journal_tail(run.id)
        assert kept is not None
        spoilt = spoil(kept, how)
        assert spoilt != kept
        await core.engine.store.commit(Batch(snapshots=[spoilt]))
        with caplog.at_level(logging.WARNING):
            assert (await loaded(core, await run.row())) == (await whole(core, await run.row()))
        assert f"the snapshot of run {run.id} " in caplog.text
        assert "reading its whole journal instead" in caplog.text
        await core.workflows.signal(run.id, "go")
        await waiting(core, "wait1")
        better, _ = await core.engine.store.journal_tail(run.id)
        assert better is not None
        assert better.digest == hashlib.sha256(better.raw).hexdigest()
        assert better.reader == kept.reader
        assert better.count > kept.count


async def test_too_large_a_state_is_not_kept(
    make_store: Callable[[], Store], often: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT", 2_000)
    async with EventCore(store=make_store()) as core:
        with caplog.at_level(logging.WARNING):
            run = await begun(core, 40)
        kept, _ = await core.engine.store.journal_tail(run.id)
        assert kept is not None
        assert len(kept.raw) <= 2_000, "the last that was small enough stays"
        assert (await loaded(core, await run.row())) == (await whole(core, await run.row()))
    told = [record.message for record in caplog.records if "no snapshot" in record.message]
    assert len(told) == 1, "it does not try again with every commit"
    assert f"no snapshot of run {run.id} of w is kept: it would take 2," in told[0]
    assert "the limit is 2,000" in told[0]


async def test_other_runs_in_the_same_commit_are_not_counted(
    make_store: Callable[[], Store], often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child begins in the commit in which its parent begins to wait, and its entries stand in the log after it."""
    monkeypatch.setattr(Saver, "every", 1)
    async with EventCore(store=make_store()) as core:
        core.workflows.define({"slug": "child", "steps": [{"id": "a", "sleep": 3600}]})
        busy = {"id": "busy", "plugin": "work", "needs": []}  # so that the run is not let go of, and loaded again
        core.workflows.define({"slug": "w", "steps": [busy, {"id": "c", "workflow": "child", "needs": []}]})
        done = anyio.Event()

        async def work(params: Any) -> None:
            await done.wait()

        core.plugins.intent("work", work)
        run = await core.workflows.start("w")
        while len(journal := await core.engine.store.journal(run.id)) < 3:
            await anyio.sleep(0.002)
        await core.workflows.pause(run.id)
        kept, _ = await core.engine.store.journal_tail(run.id)
        assert kept is not None
        assert [(entry.step, entry.event.type) for entry in journal[2:]] == [("c", "step_waiting")]
        assert (kept.count, kept.position) == (3, journal[2].event.position)
        assert (await loaded(core, await run.row())) == (await whole(core, await run.row()))
        done.set()


async def test_a_run_that_is_retried_keeps_them_again(make_store: Callable[[], Store], often: None) -> None:
    """The end takes the snapshot away, so going on after it reads the whole journal once."""
    broken = [True]

    def fragile(params: Any) -> int:
        if broken[0]:
            raise ValueError("no")
        return 1

    async with EventCore(store=make_store()) as core:
        core.plugins.intent("fragile", fragile)
        await furnish(core)
        core.workflows.define({**LONG, "steps": [EACH, {"id": "f", "plugin": "fragile"}, *WAITS]})
        run = await core.workflows.start("w", {"items": [*range(30)]})
        assert await run.over(5)
        assert (await core.engine.store.journal_tail(run.id))[0] is None
        broken[0] = False
        await core.workflows.retry(run.id)
        await waiting(core, "wait0")
        await core.workflows.signal(run.id, "go")
        await waiting(core, "wait1")
        kept, _ = await core.engine.store.journal_tail(run.id)
        assert kept is not None
        assert (await loaded(core, await run.row())) == (await whole(core, await run.row()))


# -- the row itself ---------------------------------------------------------------------------------------------------

RUN = Run("r", "default", "w", "d", "running", b"{}", "me", (), 1.0, 1.0)


def other_than_default(number: int, name: str, kind: str) -> Any:
    if name == "status":
        return "waiting"
    plain = {
        "int": number + 2,
        "float": number + 0.5,
        "str": f"s{number}",
        "bool": True,
        "Any": {"n": [None, 1.5, "x"]},
    }
    return plain.get(kind, [{"n": number}] if kind.startswith("list") else {"n": number})


def test_every_field_of_a_step_is_kept() -> None:
    """One that is forgotten here is lost to runs that go on."""
    full = StepState(*(other_than_default(n, one.name, str(one.type)) for n, one in enumerate(fields(StepState))))
    plain = StepState("running")
    for one in fields(StepState):
        assert getattr(full, one.name) != getattr(plain, one.name), f"no value for {one.name}"
    single = [plain.but(**{one.name: getattr(full, one.name)}) for one in fields(StepState)]
    state = State({}, {}, steps={"plain": plain, "full": full, **{f"s{n}": step for n, step in enumerate(single)}})
    back = State({}, {})
    restore(snapshot_of(RUN, state, {}, 7), back)
    assert back.steps == state.steps


def test_every_field_of_a_state_is_kept() -> None:
    """Inputs, run and event are those of the head row, and only a live run has a snapshot."""
    step = StepState("completed", output={"a": 1})
    steps = {"a": step, "g": step, "g/b": step, "f[0]": step, "a~undo": step, "g~undo": step, "g/b~undo": step}
    state = State(
        {"n": 1},
        {"id": "r"},
        {"type": "x"},
        steps,
        views={"a": step.view(), "g": step.view()},
        phase="undoing",
        outcome={"status": "failed"},
        paused=True,
        epochs={"a": 2},
        consumed=frozenset({"e1", "e2"}),
        count=9,
    )
    fresh = State({"n": 1}, {"id": "r"}, {"type": "x"})
    given = {one.name for one in fields(State) if getattr(state, one.name) != getattr(fresh, one.name)}
    assert given == {one.name for one in fields(State)} - {"inputs", "run", "event", "ended"}
    kept = snapshot_of(RUN, state, {"a": "e7", "gone": "e8"}, 7)
    assert restore(kept, fresh) == {"a": "e7"}
    assert fresh == state
    assert (kept.run, kept.tenant, kept.position, kept.count) == ("r", "default", 7, 9)


def test_what_nests_too_deep_is_said() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(UnfitSnapshot, match="cannot be written"):
        snapshot_of(RUN, State({}, {}, steps={"a": StepState("completed", output=deep)}), {}, 1)


def test_a_large_one_waits_longer_for_the_next() -> None:
    assert spacing(10) == snapshots.EVERY
    assert spacing(snapshots.MAX_SNAPSHOT) == 8192
    assert spacing(10, every=4) == 4
