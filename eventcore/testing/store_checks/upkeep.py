"""Checks of foreign events, queries into the data, counts, and retention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Store
from eventcore.kernel.records import (
    Batch,
    Cursor,
    DeadLetter,
    Definition,
    Delivery,
    EventQuery,
    Key,
    LogEntry,
    RunQuery,
    Snapshot,
)
from eventcore.kernel.upkeep import EventCount, Prune, Pruned, PrunedRuns, PruneRuns
from eventcore.testing.store_checks.records import MakeStore, event, ids, move, run, started, step

_ALL = Prune(now=0.0)


async def check_foreign_events(make_store: MakeStore) -> None:
    """A foreign type and extensions come back as they were; the same id may come from two sources."""
    async with started(make_store) as store:
        foreign = event(1, ce_type="com.Example", raw_extensions=b'{"a":"b","n":1}')
        other = event(1, source="/else")
        await store.commit(Batch(log=[foreign, other, event(2)]))
        found = await store.events(EventQuery())
        assert found[0] == replace(foreign, position=1)
        assert found[0].extensions == {"a": "b", "n": 1}
        assert (found[2].ce_type, found[2].extensions) == (None, None)
        assert await store.event("e0001") == found[0]
        assert await store.event("e0001", "default", "/else") == found[1]
        assert await store.event("e0001", "default", "/nowhere") is None


async def check_blobs(make_store: MakeStore) -> None:
    """A large payload is stored once, for its tenant alone, and goes with the last event that names it."""
    async with started(make_store) as store:
        raw, digest = b'"%s"' % (b"x" * 300_000), "5" * 64

        def large(number: int, **fields: Any) -> LogEntry:
            return event(number, **{"blob": digest, "body": raw, "raw": b'{"blob":"5"}', **fields})

        before = await store.size()
        first, other = large(1), large(2, tenant="other")
        await store.commit(Batch(log=[first, other, large(3), event(4)]))
        assert [one.body for one in await store.events(EventQuery())] == [None] * 4
        assert isinstance(first, Event)
        assert first.body is None, "a committed event must not keep it in memory"
        assert (await store.events(EventQuery()))[0].blob == digest
        assert await store.size() > before + len(raw)
        assert await store.blob("default", digest) == await store.blob("other", digest) == raw
        assert await store.blob("nobody", digest) is None
        assert await store.blob("default", "6" * 64) is None
        await store.prune(Prune(now=0.0, before=1002.5))
        assert await store.blob("other", digest) is None
        assert await store.blob("default", digest) == raw
        await store.prune(_ALL)
        assert await store.blob("default", digest) is None


async def check_query_where(make_store: MakeStore) -> None:
    """A path into the data must lead to an equal JSON value: 1 is 1.0, and is neither true nor "1"."""
    async with started(make_store) as store:
        payloads = [
            b'{"n":1}',
            b'{"n":true}',
            b'{"n":"1"}',
            b'{"n":1.0,"list":[{"sku":"a"},{"sku":null}]}',
            b"7",
            b"[1]",
        ]
        log: list[LogEntry] = [event(number, raw=raw) for number, raw in enumerate(payloads)]
        await store.commit(Batch(log=[*log, step(9, raw=b'{"n":1}')]))
        cases: list[tuple[list[tuple[str, bytes]], list[int]]] = [
            ([("data.n", b"1")], [0, 3, 9]),
            ([("data.n", b"true")], [1]),
            ([("data.n", b'"1"')], [2]),
            ([("data.list[0].sku", b'"a"')], [3]),
            ([("data.list[1].sku", b"null")], [3]),
            ([("data.list[2].sku", b"null")], []),
            ([("data.list.0.sku", b'"a"'), ("data.n", b"1")], [3]),
            ([("data", b"7")], [4]),
            ([("data[0]", b"1")], [5]),
            ([("data.n.deeper", b"1")], []),
        ]
        for pairs, numbers in cases:
            page = await store.events(EventQuery(where=tuple(pairs)))
            assert ids(page) == [event(number).id for number in numbers], pairs
        for bad in ("n", "data..n", "data[x]", "database"):
            try:
                await store.events(EventQuery(where=((bad, b"1"),)))
            except InvalidInput:
                continue
            raise AssertionError(f"{bad} was accepted as a path")


async def check_query_times(make_store: MakeStore) -> None:
    """Stretches of time, short and long, of events whose times are not in order of position."""
    async with started(make_store) as store:
        times = [float(n * 7919 % 3001) for n in range(3000)]
        await store.commit(Batch(log=[event(n, at=at) for n, at in enumerate(times)]))
        for since, until in ((10.0, 20.0), (500.0, None), (None, 30.0), (0.0, 2999.5)):
            inside = [n for n, at in enumerate(times) if (since or 0) <= at < (until or 1e9)]
            query = EventQuery(since=since, until=until, limit=5)
            assert ids(await store.events(query)) == [event(n).id for n in inside[:5]]
            newest = await store.events(replace(query, newest_first=True, types=("order_created",)))
            assert ids(newest) == [event(n).id for n in inside[:-6:-1]]


async def check_text_follows(make_store: MakeStore) -> None:
    """A search finds what was committed just before it, again and again, with other conditions, and short words."""
    async with started(make_store) as store:
        for number in range(4):
            raw = b'{"text":"Fall no-%d \\u0000 \\"quoted\\"","by":"al"}' % number
            log: list[LogEntry] = [event(number, raw=raw), step(number + 10, raw=raw, actor="user:AL")]
            await store.commit(Batch(log=log))
            for text in ("fall", "FALL quoted", "al", '"quoted"', f"fall no-{number}"):
                page = await store.events(EventQuery(text=text))
                wanted = [number] if text.endswith(str(number)) else range(number + 1)
                assert ids(page) == [event(n + more).id for n in wanted for more in (0, 10)], text
            assert ids(await store.events(EventQuery(text="fall", types=("order_created",), limit=1))) == ["e0000"]
            assert await store.events(EventQuery(text="fallen")) == []
            assert ids(await store.events(EventQuery(text="user:al", run="r1", newest_first=True, limit=1))) == [
                event(number + 10).id
            ]


async def check_counts(make_store: MakeStore) -> None:
    """Counts by each field and by stretches of time, over events and step events, under conditions."""
    async with started(make_store) as store:
        log: list[LogEntry] = [
            event(1, at=5.0, raw=b'{"status":"ok"}'),
            event(2, at=12.0, actor="user:ada"),
            event(3, "order_paid", at=13.0, raw=b'{"status":"ok"}', tenant="other"),
            step(4, at=14.0, raw=b'{"status":7}'),
            event(5, at=25.0, source="/shop", raw=b'"status"'),
        ]
        await store.commit(Batch(log=log))
        created, paid, started_ = "order_created", "order_paid", "step_started"
        assert await store.counts(EventQuery(), "type") == [
            EventCount(created, None, 3),
            EventCount(paid, None, 1),
            EventCount(started_, None, 1),
        ]
        assert await store.counts(EventQuery(tenant="default"), "type", 10.0) == [
            EventCount(created, 0.0, 1),
            EventCount(created, 10.0, 1),
            EventCount(started_, 10.0, 1),
            EventCount(created, 20.0, 1),
        ]
        assert await store.counts(EventQuery(), "status") == [EventCount(None, None, 3), EventCount("ok", None, 2)]
        by_source = await store.counts(EventQuery(since=10.0, pattern="order_*"), "source")
        assert by_source == [EventCount("/host", None, 2), EventCount("/shop", None, 1)]
        assert (await store.counts(EventQuery(actor="user:ada"), "actor"))[0].count == 1
        assert await store.counts(EventQuery(text="nowhere"), "type") == []


async def check_prune(make_store: MakeStore) -> None:
    """By age, type and number; a step event leaves the history but not its journal; no position is given twice."""
    async with started(make_store) as store:
        log: list[LogEntry] = [event(n, "order_created" if n % 2 else "audit_made", at=float(n)) for n in range(1, 9)]
        await store.commit(Batch(log=[*log, step(9, at=9.0), event(10, at=10.0)]))
        await store.commit(Batch(keys=[Key("default", "x", "k", "d", "r", 50.0)]))
        before = await store.size()
        assert before > 0
        some = Prune(now=100.0, before=7.0, patterns=("order_*",))
        assert await store.prune(some, dry_run=True) == Pruned(events=3)
        assert len(await store.events(EventQuery())) == 10
        assert await store.prune(replace(some, limit=2)) == Pruned(events=2, keys=1)
        assert ids(await store.events(EventQuery(limit=2))) == ["e0002", "e0004"]
        assert await store.prune(some) == Pruned(events=1)
        assert await store.event("e0001") is None
        assert await store.prune(Prune(now=0.0, keep=("audit_*",))) == Pruned(events=2, steps=1)
        assert ids(await store.events(EventQuery(newest_first=True))) == ["e0008", "e0006", "e0004", "e0002"]
        assert await store.counts(EventQuery(pattern="step_*"), "type") == []
        assert await store.events(EventQuery(run="r1")) == []
        assert await store.events(EventQuery(types=("step_started",), tenant="default")) == []
        assert [entry.event.id for entry in await store.journal("r1")] == [event(9).id]
        assert await store.prune(_ALL) == Pruned(events=4)
        assert await store.prune(_ALL) == Pruned()
        assert await store.last_position() == 10
        assert await store.commit(Batch(log=[event(11)])) == 11


async def check_prune_holds_back(make_store: MakeStore) -> None:
    """What a cursor has not passed, what waits for delivery or is a dead letter, and what a live run has stays."""
    async with started(make_store) as store:
        log: list[LogEntry] = [event(n) for n in range(1, 6)]
        log += [event(6, run="r1"), step(7), event(8, tenant="other"), event(9)]
        held = Batch(
            log=log,
            runs=[run("r1", status="waiting")],
            cursors=[Cursor("default", "slow", 7), Cursor("default", "fast", 9)],
            deliveries=[Delivery("default", "slow", 2, "parked", 1, 0.0)],
            dead_letters=[DeadLetter("l1", "default", "gone", 4, "no", 5, 1.0)],
        )
        await store.commit(held)
        assert await store.prune(replace(_ALL, tenant="default"), dry_run=True) == Pruned(events=3)
        assert await store.prune(_ALL) == Pruned(events=4)
        assert await _left(store) == [2, 4, 6, 7, 9]
        await store.commit(Batch(moves=[move("r1", 2, "completed")], dead_letters_done=["l1"]))
        assert await store.prune(_ALL) == Pruned(events=2, steps=1)
        await store.commit(Batch(cursors=[Cursor("default", "slow", 9)], deliveries_done=[("default", "slow", 2)]))
        assert await store.prune(_ALL) == Pruned(events=2)
        assert await _left(store) == []
        assert len(await store.journal("r1")) == 1


async def check_text_after_prune(make_store: MakeStore) -> None:
    """What was pruned is found no more, whether or not the search had come to it."""
    async with started(make_store) as store:
        raw: dict[str, Any] = {"raw": b'{"text":"invoice"}'}
        await store.commit(Batch(log=[event(1, at=1.0, **raw), step(2, at=1.0, **raw)]))
        assert len(await store.events(EventQuery(text="invoice"))) == 2
        await store.commit(Batch(log=[event(3, at=1.0, **raw), event(4, **raw)]))
        assert await store.prune(Prune(now=0.0, before=2.0)) == Pruned(events=2, steps=1)
        assert ids(await store.events(EventQuery(text="invoice"))) == ["e0004"]


async def check_prune_runs(make_store: MakeStore) -> None:
    """Finished runs go with their journals, the one that ended first before others; positions stay taken."""
    async with started(make_store) as store:
        runs = [run(f"r{n}", status="completed", updated=float(n), definition=f"d{n % 2}") for n in range(1, 5)]
        runs += [run("r5", status="waiting", updated=1.0), run("r6", status="failed", updated=1.0, tenant="other")]
        raw = b'{"text":"invoice"}'
        log = [step(n, run=f"r{n}", raw=raw) for n in range(1, 6)]
        definitions = [Definition(f"d{n}", "default", "triage", b"{}", 1.0) for n in range(3)]
        kept = [Snapshot(f"r{n}", "default", n, 1, 1, "", "", b"{}") for n in (1, 5)]
        last = step(6, run="r1", raw=raw)
        await store.commit(Batch(log=[*log, last], runs=runs, definitions=definitions, snapshots=kept))
        assert len(await store.events(EventQuery(text="invoice"))) == 6
        old = PruneRuns(before=4.0, unused_since=0.0, tenant="default")
        assert await store.prune_runs(old, dry_run=True) == PrunedRuns(3)
        assert await store.prune_runs(replace(old, limit=2)) == PrunedRuns(2, entries=3)
        assert [await store.run(f"r{n}") is None for n in range(1, 7)] == [True, True, False, False, False, False]
        assert await store.journal("r1") == []
        assert await store.journal_tail("r1") == (None, []), "its snapshot went with it"
        assert await store.journal_tail("r5") == (kept[1], [])
        assert ids(await store.events(EventQuery(text="invoice"))) == ["e0003", "e0004", "e0005"]
        assert await store.event("e0001") is None
        assert await store.prune_runs(replace(old, unused_since=1.0)) == PrunedRuns(1, entries=1)
        assert await store.prune_runs(replace(old, unused_since=2.0)) == PrunedRuns(definitions=1)
        assert [await store.definition(f"d{n}") is None for n in range(3)] == [False, False, True]
        assert await store.prune_runs(PruneRuns(before=9.0, unused_since=2.0)) == PrunedRuns(2, 1, 1)
        assert [found.id for found in await store.runs(RunQuery())] == ["r5"]
        await store.commit(Batch(moves=[move("r5", 2, "completed")]))
        assert await store.prune_runs(PruneRuns(before=9.0, unused_since=2.0)) == PrunedRuns(1, 1, 1)
        assert await store.last_position() == 6
        assert await store.commit(Batch(log=[event(7)])) == 7


async def check_prune_runs_holds_back(make_store: MakeStore) -> None:
    """What a cursor has not passed, what waits for delivery or is a dead letter, and a live run's child stays."""
    async with started(make_store) as store:
        runs = [run(f"r{n}", status="completed") for n in range(1, 5)]
        runs += [run("r5", status="completed", parent="r6/ask[0]"), run("r6", status="waiting")]
        held = Batch(
            log=[step(n, run=f"r{n}") for n in range(1, 5)],
            runs=runs,
            cursors=[Cursor("default", "slow", 3)],
            deliveries=[Delivery("default", "slow", 2, "parked", 1, 0.0)],
            dead_letters=[DeadLetter("l1", "default", "gone", 3, "no", 5, 1.0)],
        )
        await store.commit(held)
        old = PruneRuns(before=9.0, unused_since=0.0)
        assert await store.prune_runs(old) == PrunedRuns(1, 1)
        assert sorted(found.id for found in await store.runs(RunQuery())) == ["r2", "r3", "r4", "r5", "r6"]
        done: list[tuple[str, str, int]] = [("default", "slow", 2)]
        await store.commit(
            Batch(cursors=[Cursor("default", "slow", 4)], deliveries_done=done, dead_letters_done=["l1"])
        )
        assert await store.prune_runs(old) == PrunedRuns(3, 3)
        await store.commit(Batch(moves=[move("r6", 2, "completed")]))
        assert await store.prune_runs(old) == PrunedRuns(2)


async def _left(store: Store) -> list[int]:
    return [found.position for found in await store.events(EventQuery())]
