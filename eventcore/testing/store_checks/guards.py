"""Checks of guards, one by one and in competition."""

from __future__ import annotations

from dataclasses import replace

from eventcore.kernel.errors import Conflict
from eventcore.kernel.records import (
    Batch,
    Cursor,
    CursorAt,
    EventQuery,
    Key,
    KeyAbsent,
    Listening,
    LiveRunsBelow,
    RunAt,
    RunQuery,
    StillListening,
)
from eventcore.testing.store_checks.records import MakeStore, attempt, event, move, run, started, together, wins


async def check_guard_run_at(make_store: MakeStore) -> None:
    """Version and fence are compared, one or both."""
    async with started(make_store) as store:
        await store.commit(Batch(runs=[run("r1", version=3, fence=2)]))
        assert isinstance(await attempt(store, Batch(), RunAt("r1", 2)), Conflict)
        assert isinstance(await attempt(store, Batch(), RunAt("r1", 3, fence=1)), Conflict)
        assert await attempt(store, Batch(moves=[move("r1", 4)]), RunAt("r1", 3, fence=2)) == 0
        assert isinstance(await attempt(store, Batch(), RunAt("r1", 3)), Conflict)
        assert await attempt(store, Batch(), RunAt("r1", 4)) == 0


async def check_guard_key_absent(make_store: MakeStore) -> None:
    """A key is there until it expires; then it can be taken anew. Without the guard it is never replaced."""
    async with started(make_store) as store:
        key = Key("default", "emit:/host", "k", "d1", "e1", 100.0)
        await store.commit(Batch(keys=[key]), [KeyAbsent("default", "emit:/host", "k", 10.0)])
        again = replace(key, digest="d2", expires=200.0)
        assert isinstance(
            await attempt(store, Batch(keys=[again]), KeyAbsent("default", "emit:/host", "k", 99.9)), Conflict
        )
        assert isinstance(await attempt(store, Batch(keys=[again])), Conflict)
        assert await store.key("default", "emit:/host", "k", 99.9) == key
        assert await store.key("default", "emit:/host", "k", 100.0) is None
        await store.commit(Batch(keys=[again]), [KeyAbsent("default", "emit:/host", "k", 100.0)])
        assert await store.key("default", "emit:/host", "k", 150.0) == again
        for other in (("other", "emit:/host", "k"), ("default", "start:x", "k"), ("default", "emit:/host", "j")):
            assert await store.commit(Batch(), [KeyAbsent(*other, 150.0)]) == 0


async def check_guard_cursor_at(make_store: MakeStore) -> None:
    """A cursor that is not there stands at 0."""
    async with started(make_store) as store:
        assert await attempt(store, Batch(cursors=[Cursor("default", "s", 4)]), CursorAt("default", "s", 0)) == 0
        assert isinstance(await attempt(store, Batch(), CursorAt("default", "s", 0)), Conflict)
        assert await attempt(store, Batch(cursors=[Cursor("default", "s", 6)]), CursorAt("default", "s", 4)) == 0
        assert await attempt(store, Batch(), CursorAt("other", "s", 0)) == 0


async def check_guard_live_runs(make_store: MakeStore) -> None:
    """Running and waiting runs are counted, by tenant, slug and limit key; queued, paused and ended ones are not."""
    async with started(make_store) as store:
        states = ("running", "waiting", "queued", "paused", "completed", "failed")
        runs = [run(f"r{n}", status=status, limit_key="ada") for n, status in enumerate(states)]
        others = [run("x1", tenant="other"), run("x2", slug="other"), run("x3", limit_key="bob")]
        await store.commit(Batch(runs=runs + others))
        assert isinstance(await attempt(store, Batch(), LiveRunsBelow("default", "triage", 3)), Conflict)
        assert await attempt(store, Batch(), LiveRunsBelow("default", "triage", 4)) == 0
        assert isinstance(await attempt(store, Batch(), LiveRunsBelow("default", "triage", 2, "ada")), Conflict)
        assert await attempt(store, Batch(), LiveRunsBelow("default", "triage", 3, "ada")) == 0
        await store.commit(Batch(moves=[move("r0", 2, "completed")]))
        assert await attempt(store, Batch(), LiveRunsBelow("default", "triage", 2, "ada")) == 0
        await store.commit(Batch(moves=[move("r0", 3, "running")]))
        assert isinstance(await attempt(store, Batch(), LiveRunsBelow("default", "triage", 2, "ada")), Conflict)


async def check_guard_still_listening(make_store: MakeStore) -> None:
    """A wait is ended once: whoever removes its row first."""
    async with started(make_store) as store:
        wait = Listening("r1/a", "default", "r1", "a", "paid", b"{}")
        assert isinstance(await attempt(store, Batch(), StillListening("r1/a")), Conflict)
        await store.commit(Batch(listening=[wait]))
        assert await attempt(store, Batch(), StillListening("r1/a")) == 0
        ends = [(Batch(listening_done=["r1/a"]), (StillListening("r1/a"),)) for _ in range(20)]
        assert len(wins(await together(store, ends))) == 1
        assert isinstance(await attempt(store, Batch(), StillListening("r1/a")), Conflict)


async def check_competing_guards(make_store: MakeStore) -> None:
    """Of many commits at the same time with the same guard, exactly as many win as the guard allows."""
    async with started(make_store) as store:
        await store.commit(Batch(runs=[run("r1")]))
        moves = [(Batch(log=[event(n)], moves=[move("r1", 2)]), (RunAt("r1", 1),)) for n in range(20)]
        assert len(wins(await together(store, moves))) == 1
        keys = [Key("default", "emit:/host", "k", f"d{n}", f"e{n}", 100.0) for n in range(20)]
        absent = KeyAbsent("default", "emit:/host", "k", 1.0)
        [winner] = wins(await together(store, [(Batch(keys=[key]), (absent,)) for key in keys]))
        assert await store.key("default", "emit:/host", "k", 1.0) == keys[winner]
        cursors = [(Batch(cursors=[Cursor("default", "s", 1 + n)]), (CursorAt("default", "s", 0),)) for n in range(20)]
        assert len(wins(await together(store, cursors))) == 1
        limit = LiveRunsBelow("default", "limited", 3)
        starts = [(Batch(runs=[run(f"l{n:02}", slug="limited")]), (limit,)) for n in range(20)]
        assert len(wins(await together(store, starts))) == 3
        assert len(await store.runs(RunQuery(slug="limited"))) == 3
        assert await store.last_position() == 1


async def check_conflict_fails_alone(make_store: MakeStore) -> None:
    """Commits beside a refused one are stored, and no position is lost to it."""
    async with started(make_store) as store:
        work = [(Batch(log=[event(n)]), (RunAt("nobody", 1),) if n % 3 == 0 else ()) for n in range(12)]
        outcomes = await together(store, work)
        assert wins(outcomes) == [n for n in range(12) if n % 3]
        page = await store.events(EventQuery())
        assert [found.position for found in page] == list(range(1, 9))
        assert {found.id for found in page} == {event(n).id for n in range(12) if n % 3}
