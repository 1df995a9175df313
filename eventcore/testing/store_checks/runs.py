"""Checks of runs, claims, timers and memories."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

import anyio

from eventcore.kernel.errors import Conflict
from eventcore.kernel.records import Batch, Listening, Memory, Run, RunAt, RunMove, RunQuery, Schedule, Snapshot, Timer
from eventcore.testing.store_checks.records import (
    LONGEST,
    MakeStore,
    attempt,
    event,
    full_run,
    move,
    run,
    started,
    step,
)


async def check_run_moves(make_store: MakeStore) -> None:
    """A move sets just its fields; the run's caller and the store do not share one object."""
    async with started(make_store) as store:
        mine = full_run()
        await store.commit(Batch(runs=[mine]))
        mine.slug = "changed"
        assert await store.run("r1") == full_run()
        await store.commit(Batch(moves=[RunMove("r1", "completed", 8, 9.5, b'"out"', None)]), [RunAt("r1", 7)])
        expected = replace(full_run(), status="completed", version=8, updated=9.5, raw_output=b'"out"', raw_error=None)
        assert await store.run("r1") == expected
        got = await store.run("r1")
        assert got is not None
        got.slug = "changed"
        assert await store.run("r1") == expected
        assert await store.run("nobody") is None


async def check_runs_are_added_once(make_store: MakeStore) -> None:
    """A run that is there cannot be added, nor one moved that is not; a batch may move what it adds."""
    async with started(make_store) as store:
        await store.commit(Batch(runs=[run("r1")]))
        assert isinstance(await attempt(store, Batch(runs=[run("r1")])), Conflict)
        assert isinstance(await attempt(store, Batch(runs=[run("r2"), run("r2")])), Conflict)
        assert isinstance(await attempt(store, Batch(moves=[move("r2", 2)])), Conflict)
        assert await store.run("r2") is None
        await store.commit(Batch(runs=[run("r2")], moves=[move("r2", 2, "waiting")]))
        found = await store.run("r2")
        assert found is not None
        assert (found.status, found.version) == ("waiting", 2)


async def check_snapshots(make_store: MakeStore) -> None:
    """A run has one at most; what is read with it is the journal after it, and after a refused commit all is as before.

    The last of several in one commit counts, and one that is put stays although the commit removes an older one.
    """
    async with started(make_store) as store:
        await store.commit(Batch(runs=[run("r1")], log=[step(1), event(2), step(3), step(4, run="r2"), step(5)]))
        assert await store.journal_tail("r1") == (None, await store.journal("r1"))
        first = Snapshot("r1", "default", 3, 2, 1, "code", "5ha", b'{"n":1}')
        await store.commit(Batch(snapshots=[replace(first, position=1), first]))
        assert await store.journal_tail("r1") == (first, (await store.journal("r1"))[2:])
        second = replace(first, position=5, count=3, raw=b"x" * 300_000)
        assert isinstance(await attempt(store, Batch(snapshots=[second]), RunAt("r1", 9)), Conflict)
        assert await store.journal_tail("r1") == (first, (await store.journal("r1"))[2:])
        await store.commit(Batch(snapshots=[second], snapshots_done=["r1"]))
        assert await store.journal_tail("r1") == (second, [])
        await store.commit(Batch(log=[step(6)]))
        kept, rest = await store.journal_tail("r1")
        assert (kept, [entry.event.position for entry in rest]) == (second, [6])
        await store.commit(Batch(snapshots_done=["r1", "nobody"]))
        assert await store.journal_tail("r1") == (None, await store.journal("r1"))
        assert await store.journal_tail("nobody") == (None, [])


async def check_listening(make_store: MakeStore) -> None:
    """Steps that listen are stored, replaced, removed, and read page by page in order of their ids."""
    async with started(make_store) as store:
        rows = [Listening(f"r1/{name}", "default", "r1", name, "paid", b"{}") for name in "cab"]
        await store.commit(Batch(listening=rows))
        await store.commit(Batch(listening=[replace(rows[0], event="sent")], listening_done=["r1/a", "nobody"]))
        assert [(row.path, row.event) for row in await store.listening()] == [("b", "paid"), ("c", "sent")]
        assert [row.path for row in await store.listening("r1/b")] == ["c"]
        assert [row.path for row in await store.listening(limit=1)] == ["b"]


async def check_claim_of_one_run(make_store: MakeStore) -> None:
    """One run is claimed whatever its status, unless another engine's lease on it goes on."""
    async with started(make_store) as store:
        await store.commit(Batch(runs=[run("r1", status="paused"), run("r2", status="failed")]))
        assert await store.claim("me", 10.0, 5.0) == []
        for name in ("r1", "r2"):
            [mine] = await store.claim("me", 10.0, 5.0, run=name)
            [again] = await store.claim("me", 11.0, 5.0, run=name)
            assert (mine.id, mine.owner, again.fence) == (name, "me", mine.fence + 1)
            assert await store.claim("you", 12.0, 5.0, run=name) == []
            [yours] = await store.claim("you", 17.0, 5.0, run=name)
            assert yours.owner == "you"
        assert await store.claim("me", 10.0, 5.0, run="nobody") == []


async def check_runs_query(make_store: MakeStore) -> None:
    """Runs newest first, by tenant, slug and status, page by page."""
    async with started(make_store) as store:
        statuses = ("running", "completed", "failed")
        await store.commit(Batch(runs=[run(f"r{n:02}", status=statuses[n % 3]) for n in range(9)]))
        await store.commit(Batch(runs=[run("x1", tenant="other", slug="other")]))
        assert [r.id for r in await store.runs(RunQuery(limit=3))] == ["x1", "r08", "r07"]
        assert [r.id for r in await store.runs(RunQuery(tenant="default", limit=2, before="r07"))] == ["r06", "r05"]
        assert [r.id for r in await store.runs(RunQuery(slug="other"))] == ["x1"]
        ended = await store.runs(RunQuery(tenant="default", statuses=("completed", "failed")))
        assert [r.id for r in ended] == ["r08", "r07", "r05", "r04", "r02", "r01"]


async def check_claims(make_store: MakeStore) -> None:
    """Claiming takes free and abandoned live runs, raises the fence, and so fails commits of the earlier owner."""
    async with started(make_store) as store:
        states = ("running", "waiting", "queued", "paused", "completed")
        await store.commit(Batch(runs=[run(f"r{n}", status=status) for n, status in enumerate(states)]))
        mine = await store.claim("one", now=100.0, lease=30.0)
        assert [(r.id, r.owner, r.fence, r.lease_until) for r in mine] == [(f"r{n}", "one", 1, 130.0) for n in range(3)]
        assert await store.run("r0") == mine[0]
        assert await store.claim("one", now=500.0, lease=30.0) == []
        assert await store.claim("two", now=129.9, lease=30.0) == []
        assert await store.renew("one", now=120.0, lease=30.0) == 3
        assert await store.renew("two", now=120.0, lease=30.0) == 0
        assert await store.claim("two", now=149.9, lease=30.0) == []
        taken = await store.claim("two", now=150.0, lease=30.0, limit=2)
        assert [(r.id, r.owner, r.fence) for r in taken] == [("r0", "two", 2), ("r1", "two", 2)]
        late = await attempt(store, Batch(moves=[move("r0", 2)]), RunAt("r0", 1, fence=1))
        assert isinstance(late, Conflict)
        assert await attempt(store, Batch(moves=[move("r0", 2)]), RunAt("r0", 1, fence=2)) == 0
        await store.release("two")
        free = await store.run("r0")
        assert free is not None
        assert (free.owner, free.fence, free.lease_until) == (None, 2, 0.0)
        assert [r.id for r in await store.claim("three", now=150.0, lease=30.0)] == ["r0", "r1", "r2"]
        await store.commit(Batch(moves=[move("r0", 3, "completed"), move("r1", 2, "paused"), move("r4", 2)]))
        assert await store.renew("three", now=150.0, lease=30.0) == 2, "r1 and r2: a paused run is still driven"
        assert [r.id for r in await store.claim("four", now=500.0, lease=30.0)] == ["r2", "r4"]


async def check_two_owners(make_store: MakeStore) -> None:
    """Two engines share one store: it stays open until both have left, and no run is claimed by both."""
    store = make_store()
    with anyio.fail_after(LONGEST):
        async with AsyncExitStack() as outer:
            await store.start(outer)
            async with AsyncExitStack() as inner:
                await store.start(inner)
                await store.commit(Batch(runs=[run(f"r{n:02}") for n in range(20)]))
                claimed: dict[str, list[Run]] = {}

                async def claim(owner: str) -> None:
                    claimed[owner] = await store.claim(owner, 1.0, 30.0, limit=10)

                async with anyio.create_task_group() as group:
                    group.start_soon(claim, "one")
                    group.start_soon(claim, "two")
                assert len(claimed["one"]) == len(claimed["two"]) == 10
                assert len({r.id for runs in claimed.values() for r in runs}) == 20
            assert await store.commit(Batch(log=[event(1)])) == 1


async def check_timers(make_store: MakeStore) -> None:
    """Timers and schedules that are due, earliest first."""
    async with started(make_store) as store:
        assert await store.next_timer() is None
        dues = (5.0, 1.0, 3.0, 9.0)
        await store.commit(Batch(timers=[Timer(f"t{due}", "default", due, "r1", b"{}") for due in dues]))
        await store.commit(Batch(schedules=[Schedule(f"s{due}", "default", due, b"{}") for due in dues]))
        assert await store.next_timer() == 1.0
        assert [timer.due for timer in await store.timers(5.0)] == [1.0, 3.0, 5.0]
        assert [timer.due for timer in await store.timers(5.0, limit=2)] == [1.0, 3.0]
        assert [schedule.due for schedule in await store.schedules(5.0)] == [1.0, 3.0, 5.0]
        assert [schedule.due for schedule in await store.schedules(9.0, limit=1)] == [1.0]
        await store.commit(Batch(timers_done=["t1.0"]))
        assert await store.next_timer() == 3.0


async def check_memories(make_store: MakeStore) -> None:
    """Memories are found by words of query or result, newest first."""
    async with started(make_store) as store:
        rows = [("m1", "Weather in Köln", b'{"t":"rain"}'), ("m2", "schedule", b'"weather"'), ("m3", "news", b"1")]
        memories = [Memory(id_, "default", "u", query, raw, float(n)) for n, (id_, query, raw) in enumerate(rows)]
        await store.commit(Batch(memory=memories))
        assert await store.memories("default", "") == memories[::-1]
        assert await store.memories("default", "weather") == [memories[1], memories[0]]
        assert await store.memories("default", "RAIN köln") == [memories[0]]
        assert await store.memories("default", "", limit=1) == [memories[2]]
