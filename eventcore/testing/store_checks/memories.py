"""Checks of what plugins remember and plan."""

from __future__ import annotations

from dataclasses import replace

from eventcore.kernel.errors import Conflict
from eventcore.kernel.records import Batch, Memory, Schedule, ScheduleAt
from eventcore.kernel.vectors import packed
from eventcore.testing.store_checks.records import MakeStore, attempt, started


async def check_memories_by_owner_and_age(make_store: MakeStore) -> None:
    """Of one plugin, and from before a time; tenants apart."""
    async with started(make_store) as store:
        rows = [Memory(f"m{n}", "default", "ab"[n % 2], f"note {n}", b"{}", float(n)) for n in range(4)]
        await store.commit(Batch(memory=[*rows, Memory("x", "other", "a", "note", b"{}", 9.0)]))
        assert await store.memories("default", "note", owner="a") == [rows[2], rows[0]]
        assert await store.memories("default", "", until=2.0) == [rows[1], rows[0]]
        assert await store.memory_owners("default") == [("a", 2, 2.0), ("b", 2, 3.0)]
        assert await store.memory_owners("nobody") == []
        assert await store.oldest_memories("default", 3) == rows[:3]


async def check_memories_are_forgotten(make_store: MakeStore) -> None:
    """What is done is gone, from the search as well; what was changed is found by its new words only."""
    async with started(make_store) as store:
        kept, gone = (Memory(name, "default", "p", f"weather {name}", b"{}", 1.0) for name in ("kept", "gone"))
        await store.commit(Batch(memory=[kept, gone]))
        await store.commit(Batch(memory_done=["gone", "unknown"]))
        assert await store.memories("default", "weather") == [kept]
        changed = replace(kept, query="Straße", raw_result=b'{"x":"sunny"}')
        await store.commit(Batch(memory=[changed]))
        assert await store.memories("default", "weather") == []
        assert await store.memories("default", "STRASSE sun") == [changed]
        assert await store.memories("default", "ny") == [changed]  # too short for any index
        await store.commit(Batch(memory=[gone], memory_done=["gone"]))
        assert await store.memories("default", "weather") == [gone]


async def check_nearest_memories(make_store: MakeStore) -> None:
    """By likeness; of one tenant, model and length; the newer first where they are alike."""
    async with started(make_store) as store:
        vectors = {"x": [1.0, 0.0], "xy": [1.0, 1.0], "y": [0.0, 2.0], "away": [-3.0, 0.0]}
        rows = {
            name: Memory(name, "default", "p", name, b"{}", float(n), "m", packed(vector))
            for n, (name, vector) in enumerate(vectors.items())
        }
        others = [
            Memory("other", "other", "p", "", b"{}", 1.0, "m", packed([1.0, 0.0])),
            Memory("long", "default", "p", "", b"{}", 1.0, "m", packed([1.0, 0.0, 0.0])),
            Memory("old", "default", "p", "", b"{}", 1.0, "older", packed([1.0, 0.0])),
            Memory("none", "default", "p", "", b"{}", 1.0, "m", None),
            Memory("new", "default", "p", "", b"{}", 0.5),
        ]
        await store.commit(Batch(memory=[*rows.values(), *others]))
        found = await store.nearest("default", "m", packed([5.0, 0.0]), 10, 100)
        assert [row for row, _ in found] == [rows[name] for name in ("x", "xy", "y", "away")]
        assert [round(likeness, 3) for _, likeness in found] == [1.0, 0.707, 0.0, -1.0]
        assert [row.id for row, _ in await store.nearest("default", "m", packed([1.0, 0.0]), 1, 100)] == ["x"]
        assert [row.id for row, _ in await store.nearest("default", "m", packed([1.0, 0.0]), 9, 2)] == ["y", "away"]
        assert [row.id for row in await store.unmeasured("m")] == ["new", "old"]
        assert [row.id for row in await store.unmeasured("m", limit=1)] == ["new"]


async def check_plans(make_store: MakeStore) -> None:
    """What plugins plan stands beside the schedules of workflows, and neither is taken for the other."""
    async with started(make_store) as store:
        plans = [Schedule(f"p{n}", "ab"[n % 2], float(n), b"{}", "pq"[n // 2]) for n in range(4)]
        trigger = Schedule("t", "a", 0.5, b"{}")
        await store.commit(Batch(schedules=[*reversed(plans), trigger]))
        assert await store.schedules(9.0) == [trigger]
        assert await store.plans(9.0) == plans
        assert await store.plans(1.0) == plans[:2]
        assert await store.plans(9.0, limit=1) == plans[:1]
        assert await store.plans(9.0, tenant="a") == [plans[0], plans[2]]
        assert await store.plans(9.0, tenant="b", owner="q") == [plans[3]]


async def check_guard_schedule_at(make_store: MakeStore) -> None:
    """A plan is done once: whoever moves or removes it first."""
    async with started(make_store) as store:
        plan = Schedule("p", "default", 5.0, b"{}", "shop")
        assert isinstance(await attempt(store, Batch(), ScheduleAt("p", 5.0)), Conflict)
        await store.commit(Batch(schedules=[plan]))
        assert isinstance(await attempt(store, Batch(), ScheduleAt("p", 4.0)), Conflict)
        moved = Batch(schedules=[replace(plan, due=6.0)])
        assert await attempt(store, moved, ScheduleAt("p", 5.0)) == 0
        assert isinstance(await attempt(store, moved, ScheduleAt("p", 5.0)), Conflict)
        assert await attempt(store, Batch(schedules_done=["p"]), ScheduleAt("p", 6.0)) == 0
        assert isinstance(await attempt(store, Batch(), ScheduleAt("p", 6.0)), Conflict)
