"""Checks of commits: positions, all or nothing, rows, listeners, closing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

from eventcore.kernel.errors import Conflict, StoreClosed
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Store
from eventcore.kernel.records import (
    Audit,
    Batch,
    Cursor,
    DeadLetter,
    Definition,
    Delivery,
    EventQuery,
    JournalEntry,
    LogEntry,
    Memory,
    Package,
    PluginSetting,
    PluginState,
    RunAt,
    Schedule,
    Timer,
)
from eventcore.testing.store_checks.records import (
    LONGEST,
    MakeStore,
    attempt,
    event,
    everything,
    full_batch,
    full_event,
    full_step,
    position_of,
    started,
    step,
    together,
)


async def check_positions_rise_by_one(make_store: MakeStore) -> None:
    """Positions start at 1, follow the batch's order over both kinds of entries, and are set on the caller's events."""
    async with started(make_store) as store:
        assert await store.last_position() == 0
        first = Batch(log=[event(1), step(2), event(3)])
        assert await store.commit(first) == 1
        assert await store.commit(Batch(log=[event(4)])) == 4
        assert [position_of(entry) for entry in first.log] == [1, 2, 3]
        assert [found.position for found in await store.events(EventQuery())] == [1, 2, 3, 4]
        assert await store.last_position() == 4


async def check_empty_batch(make_store: MakeStore) -> None:
    """A batch without log entries returns the last position, and its guards count all the same."""
    async with started(make_store) as store:
        assert await store.commit(Batch()) == 0
        await store.commit(Batch(log=[event(1), event(2)]))
        assert await store.commit(Batch()) == 2
        assert await store.commit(Batch(timers=[Timer("t", "default", 1.0, "r1", b"{}")])) == 2
        assert isinstance(await attempt(store, Batch(), RunAt("nobody", 1)), Conflict)


async def check_concurrent_commits_are_visible_in_order(make_store: MakeStore) -> None:
    """Whoever has the position of a commit finds it and every earlier one; no position is missing or given twice."""
    async with started(make_store) as store:
        seen: list[int] = []

        async def committer(number: int) -> None:
            for turn in range(5):
                first = await store.commit(Batch(log=[event(number * 10 + turn), event(number * 10 + turn + 5)]))
                page = await store.events(EventQuery(before=first + 2, limit=1000))
                assert [found.position for found in page] == list(range(1, first + 2))
                seen.extend((first, first + 1))

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(committer, number)
        assert sorted(seen) == list(range(1, 101))


async def check_all_or_nothing(make_store: MakeStore) -> None:
    """A batch whose guard fails leaves nothing behind, takes no position, and sets none."""
    async with started(make_store) as store:
        refused = full_batch()
        outcome = await attempt(store, refused, RunAt("nobody", 1))
        assert isinstance(outcome, Conflict)
        assert outcome.guard == RunAt("nobody", 1)
        assert await store.last_position() == 0
        assert [position_of(entry) for entry in refused.log] == [0, 0]
        assert await everything(store) == await _everything_of_nothing(make_store)
        assert await store.commit(Batch(log=[event(9)])) == 1


async def check_all_of_it(make_store: MakeStore) -> None:
    """Everything that a batch names is there after the commit, equal in every field, tuples as tuples."""
    async with started(make_store) as store:
        batch = full_batch()
        await store.commit(batch)
        found = await everything(store)
        assert found["events"] == [replace(full_event(), position=1), replace(full_step().event, position=2)]
        assert found["journal"] == [JournalEntry(replace(full_step().event, position=2), 3)]
        assert isinstance(found["events"][0].path, tuple)
        assert all(isinstance(entry, tuple) for entry in found["events"][0].path)
        for name in ("runs", "definitions", "timers", "keys", "cursors", "deliveries", "dead_letters", "plugin_states"):
            assert found[name] == getattr(batch, name), name
        for name in ("snapshots", "packages", "plugin_hooks", "plugin_settings", "memory", "schedules", "audit"):
            assert found[name] == getattr(batch, name), name


async def check_rows_are_replaced(make_store: MakeStore) -> None:
    """A row that exists is replaced; audit entries add up."""
    async with started(make_store) as store:
        await store.commit(full_batch())
        second = Batch(
            definitions=[Definition("d1", "default", "other", b"[]", 2.0)],
            timers=[Timer("t1", "default", 6.0, "r1", b"2")],
            cursors=[Cursor("default", "sub", 5)],
            deliveries=[Delivery("default", "sub", 1, "settled", 3, 0.0)],
            dead_letters=[DeadLetter("l1", "default", "sub", 1, "again", 6, 9.5)],
            plugin_states=[PluginState("default", "shop", "failed", "crashed", 2.0)],
            packages=[Package("default", "shop", "removed", "o2", "1.1.0", "shop", "shop", "5hb", 2.0)],
            plugin_settings=[PluginSetting("default", "shop", "limit", b"8", 2.0)],
            memory=[Memory("m1", "default", "user:ada", "news", b"2", 2.0)],
            schedules=[Schedule("s1", "default", 7.0, b"2")],
        )
        await store.commit(second)
        found = await everything(store)
        for name in Batch.__annotations__:
            if rows := getattr(second, name):
                assert found[name] == rows, name
        await store.commit(Batch(audit=[Audit("a2", "default", 0.5, "system", "x", "y")]))
        assert [row.id for row in await store.audit("default")] == ["a2", "a1"]
        assert [row.id for row in await store.audit(limit=1)] == ["a2"]


async def check_rows_are_removed(make_store: MakeStore) -> None:
    """What is done is gone; what is not there may be done. Removals come before additions of the same batch."""
    async with started(make_store) as store:
        await store.commit(full_batch())
        done = Batch(
            timers_done=["t1", "unknown"],
            deliveries_done=[("default", "sub", 1), ("default", "sub", 7)],
            dead_letters_done=["l1"],
            plugin_settings_done=[("default", "shop", "limit"), ("default", "shop", "unknown")],
            plugin_hooks_done=[("default", "shop", "order_*", "on_order"), ("default", "shop", "order_*", "other")],
            schedules_done=["s1"],
        )
        await store.commit(done)
        found = await everything(store)
        for name in ("timers", "deliveries", "dead_letters", "plugin_settings", "plugin_hooks", "schedules"):
            assert found[name] == [], name
        timer = Timer("t1", "default", 5.0, "r1", b"{}")
        await store.commit(Batch(timers=[timer], timers_done=["t1"]))
        assert await store.timers(1e9) == [timer]


async def check_rows_within_a_group(make_store: MakeStore) -> None:
    """Of commits made at the same time, the later one decides about a row."""
    async with started(make_store) as store:
        timer = Timer("t", "default", 1.0, "r", b"1")
        changes = [Batch(timers=[timer]), Batch(timers_done=["t"]), Batch(timers=[replace(timer, due=2.0)])]
        order: list[int] = []
        for number, batch in enumerate(changes):
            batch.log.append(event(number))
        stop = store.watch(lambda entries: order.extend(int(e.id[1:]) for e in entries if isinstance(e, Event)))
        await together(store, [(batch, ()) for batch in changes])
        stop()
        last = next(number for number in reversed(order))
        expected: list[list[Timer]] = [[timer], [], [replace(timer, due=2.0)]]
        assert await store.timers(9.0) == expected[last]


async def check_watch(make_store: MakeStore) -> None:
    """Listeners get each commit's entries in order of position, before the committer goes on, until they stop."""
    async with started(make_store) as store:
        told: list[int] = []
        also: list[int] = []
        stop = store.watch(lambda entries: told.extend(position_of(entry) for entry in entries))
        stop_other = store.watch(lambda entries: also.append(len(entries)))

        async def committer(number: int) -> None:
            first = await store.commit(Batch(log=[event(number), step(number + 100)]))
            assert {first, first + 1} <= set(told)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(committer, number)
        assert told == list(range(1, 41))
        assert also == [2] * 20
        stop()
        stop()
        await store.commit(Batch(log=[event(99)]))
        assert len(told) == 40
        assert also == [2] * 20 + [1]
        await attempt(store, Batch(log=[event(100)]), RunAt("nobody", 1))
        assert len(also) == 21
        stop_other()


async def check_record(make_store: MakeStore) -> None:
    """Events recorded one by one stand among commits: own positions, told in order, before the caller goes on."""
    async with started(make_store) as store:
        told: list[int] = []
        store.watch(lambda entries: told.extend(position_of(entry) for entry in entries))
        got: dict[int, str] = {}

        async def recorder(number: int) -> None:
            made = event(number)
            position = await store.record(made)
            assert position in told
            assert made.position == position
            got[position] = made.id

        async def committer(number: int) -> None:
            first = await store.commit(Batch(log=[event(number), event(number + 1)]))
            got[first], got[first + 1] = event(number).id, event(number + 1).id

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(recorder, number)
            for number in (100, 200):
                group.start_soon(committer, number)
                group.start_soon(recorder, number + 10)
        assert told == list(range(1, 17))
        stored = await store.events(EventQuery(limit=100))
        assert [(found.position, found.id) for found in stored] == sorted(got.items())


async def check_committed_before_told(make_store: MakeStore) -> None:
    """When a listener hears of an entry, a reader that starts then finds it."""
    async with started(make_store) as store:
        found: list[str] = []
        async with anyio.create_task_group() as group:

            async def look(id_: str) -> None:
                seen = await store.event(id_)
                assert seen is not None
                found.append(seen.id)

            def told(entries: Sequence[LogEntry]) -> None:
                for entry in entries:
                    if isinstance(entry, Event):
                        group.start_soon(look, entry.id)

            stop = store.watch(told)
            await together(store, [(Batch(log=[event(n)]), ()) for n in range(10)])
            stop()
        assert sorted(found) == [event(n).id for n in range(10)]


async def check_listener_may_fail(make_store: MakeStore) -> None:
    """A listener that raises harms neither the commit nor the other listeners."""

    def fail(entries: Sequence[LogEntry]) -> None:
        raise RuntimeError("on purpose")

    async with started(make_store) as store:
        told: list[int] = []
        store.watch(fail)
        store.watch(lambda entries: told.append(len(entries)))
        assert await store.commit(Batch(log=[event(1)])) == 1
        assert await store.commit(Batch(log=[event(2)])) == 2
        assert told == [1, 1]


async def check_closed(make_store: MakeStore) -> None:
    """Before the start and after the close every call is refused; nothing hangs."""
    store = make_store()
    with anyio.fail_after(LONGEST):
        assert await _refused(store)
        async with AsyncExitStack() as stack:
            await store.start(stack)
            assert not await _refused(store)
        assert await _refused(store)


async def _refused(store: Store) -> bool:
    refusals = 0
    for call in (partial(store.commit, Batch()), store.last_position, partial(store.renew, "one", 1.0, 1.0)):
        try:
            await call()
        except StoreClosed:
            refusals += 1
    assert refusals in (0, 3)
    return refusals == 3


async def check_cancelled_committer(make_store: MakeStore) -> None:
    """Cancelling committers leaves whole batches or none, and the store goes on."""
    async with started(make_store) as store:
        told: list[int] = []
        store.watch(lambda entries: told.extend(position_of(entry) for entry in entries))
        for number in range(10):
            async with anyio.create_task_group() as group:
                for other in range(3):
                    group.start_soon(
                        store.commit, Batch(log=[event(number * 10 + other), step(number * 10 + other + 5)])
                    )
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        last = await store.commit(Batch(log=[event(999)]))
        assert last % 2 == 1
        assert told == list(range(1, last + 1))
        page = await store.events(EventQuery(limit=1000))
        assert [found.position for found in page] == told


async def _everything_of_nothing(make_store: MakeStore) -> dict[str, Any]:
    """What `everything` gives of an empty store."""
    async with started(make_store) as store:
        return await everything(store)
