"""Checks of history: every axis, pages, journal, payloads, tenants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from eventcore.kernel.errors import InvalidName
from eventcore.kernel.ports import Store
from eventcore.kernel.records import Batch, EventQuery, LogEntry, PluginState, RunQuery
from eventcore.testing.store_checks.records import (
    DeliveryReads,
    MakeStore,
    event,
    full_batch,
    ids,
    started,
    step,
)


async def check_query_axes(make_store: MakeStore) -> None:
    """Every condition alone, and several at once."""
    async with started(make_store) as store:
        await store.commit(Batch(log=list(_history())))
        cases: list[tuple[dict[str, Any], list[int]]] = [
            ({}, [1, 2, 3, 4, 5, 6]),
            ({"tenant": "default"}, [1, 2, 3, 4, 6]),
            ({"types": ("order_created",)}, [1, 5]),
            ({"types": ("order_created", "step_started")}, [1, 2, 5]),
            ({"types": ("order_created", "order_created"), "tenant": "default"}, [1]),
            ({"types": ("nothing",)}, []),
            ({"source": "/plugins/shop"}, [3]),
            ({"subject": "notify[3]/inner"}, [2, 4]),
            ({"actor": "user:ada"}, [3, 5]),
            ({"run": "r1"}, [2, 3, 4]),
            ({"run": "r1", "types": ("step_started",)}, [2]),
            ({"correlation_id": "c9"}, [3, 4]),
            ({"correlation_id": "c9", "run": "r1", "tenant": "default"}, [3, 4]),
            ({"since": 1003.0}, [3, 4, 5, 6]),
            ({"until": 1003.0}, [1, 2]),
            ({"since": 1002.0, "until": 1005.0, "actor": "user:ada"}, [3]),
            ({"tenant": "other", "types": ("step_started",)}, []),
        ]
        for conditions, numbers in cases:
            expected = [event(number).id for number in numbers]
            assert ids(await store.events(EventQuery(**conditions))) == expected, conditions
            newest = await store.events(EventQuery(**conditions, newest_first=True))
            assert ids(newest) == expected[::-1], conditions


def _history() -> list[LogEntry]:
    """Six entries that differ in every field a query can ask for."""
    return [
        event(1),
        step(2),
        event(3, "my-plugin.saved", source="/plugins/shop", actor="user:ada", run="r1", correlation_id="c9"),
        step(4, type_="step_completed", correlation_id="c9"),
        event(5, tenant="other", actor="user:ada"),
        event(6, "bus_overflow"),
    ]


async def check_query_pattern(make_store: MakeStore) -> None:
    """`*` stays within a segment; `**` is all but the bus's own; a wrong pattern is refused."""
    async with started(make_store) as store:
        await store.commit(Batch(log=list(_history())))
        cases = {
            "step_*": [2, 4],
            "my-plugin.*": [3],
            "*": [1, 2, 4, 5, 6],
            "**": [1, 2, 3, 4, 5],
            "order_created": [1, 5],
        }
        for pattern, numbers in cases.items():
            page = await store.events(EventQuery(pattern=pattern))
            assert ids(page) == [event(number).id for number in numbers], pattern
        assert ids(await store.events(EventQuery(pattern="*_started", tenant="default"))) == [event(2).id]
        assert ids(await store.events(EventQuery(pattern="order_*", types=("order_created", "step_started")))) == [
            event(1).id,
            event(5).id,
        ]
        try:
            await store.events(EventQuery(pattern="No Pattern"))
        except InvalidName:
            return
        raise AssertionError("a wrong pattern was accepted")


async def check_query_many_types(make_store: MakeStore) -> None:
    """A pattern finds all its types, however many there are, with limits and both ways."""
    async with started(make_store) as store:
        await store.commit(Batch(log=[event(n, f"kind_{n % 40:02}") for n in range(400)]))
        wanted = [event(n).id for n in range(400) if n % 40 < 30]
        page = await store.events(
            EventQuery(pattern="kind_*", types=tuple(f"kind_{n:02}" for n in range(30)), limit=999)
        )
        assert ids(page) == wanted
        newest = await store.events(EventQuery(pattern="kind_0*", newest_first=True, limit=7))
        assert ids(newest) == [event(n).id for n in reversed(range(400)) if n % 40 < 10][:7]


async def check_query_text(make_store: MakeStore) -> None:
    """All words must stand in type, subject, actor or payload, case folded as Unicode has it."""
    async with started(make_store) as store:
        log: list[LogEntry] = [
            event(1, raw='{"text":"Grüße aus der STRASSE"}'.encode()),
            event(2, raw=b'{"text":"invoice 17","by":"Bob"}', subject="order/17"),
            event(3, raw=b'{"text":"say \\"hi\\" 100%_"}', actor="user:Ada"),
            step(4, raw=b'{"output":"Invoice"}'),
        ]
        await store.commit(Batch(log=log))
        cases = {
            "invoice": [2, 4],
            "INVOICE bob": [2],
            "invoice nobody": [],
            "grüsse": [1],
            "GRÜSSE straße": [1],
            "order/17": [2],
            "user:ada": [3],
            "step_ notify": [4],
            '"hi"': [3],
            "100%_": [3],
            "1%0": [],
            "  ": [1, 2, 3, 4],
        }
        for text, numbers in cases.items():
            page = await store.events(EventQuery(text=text))
            assert ids(page) == [event(number).id for number in numbers], text
        assert ids(await store.events(EventQuery(text="invoice", limit=1, newest_first=True))) == [event(4).id]


async def check_pagination(make_store: MakeStore) -> None:
    """Pages by position, forwards and backwards, over both kinds of entries, without gaps or repeats."""
    async with started(make_store) as store:
        log: list[LogEntry] = [step(n) if n % 3 else event(n, "order_created") for n in range(50)]
        await store.commit(Batch(log=log))
        everything_ = list(range(1, 51))
        assert await _pages(store, EventQuery(limit=7)) == everything_
        assert await _pages(store, EventQuery(limit=7, newest_first=True)) == everything_[::-1]
        steps = [n + 1 for n in range(50) if n % 3]
        assert await _pages(store, EventQuery(limit=4, pattern="step_*", tenant="default")) == steps
        assert await _pages(store, EventQuery(limit=4, run="r1", newest_first=True)) == steps[::-1]
        assert await store.events(EventQuery(limit=0)) == []
        between = await store.events(EventQuery(after=10, before=14))
        assert [found.position for found in between] == [11, 12, 13]
        assert await store.events(EventQuery(after=60)) == []


async def _pages(store: Store, query: EventQuery) -> list[int]:
    """The positions of all pages of a query, one after the other."""
    positions: list[int] = []
    while page := await store.events(query):
        assert len(page) <= query.limit
        positions += [found.position for found in page]
        last = positions[-1]
        query = replace(query, before=last) if query.newest_first else replace(query, after=last)
    return positions


async def check_journal_is_history(make_store: MakeStore) -> None:
    """A step event is one row seen two ways: by id, in history, and in its run's journal in order."""
    async with started(make_store) as store:
        await store.commit(Batch(log=[event(1, run="r1"), step(2), step(3, "r2"), step(4, attempt=2)]))
        entries = await store.journal("r1")
        assert [(entry.event.position, entry.attempt, entry.step) for entry in entries] == [
            (2, 1, "notify[3]/inner"),
            (4, 2, "notify[3]/inner"),
        ]
        assert await store.event(event(4).id) == entries[1].event
        assert entries[1].event in await store.events(EventQuery(run="r1"))
        assert await store.journal("nobody") == []
        assert await store.event("nothing") is None


async def check_payload_bytes(make_store: MakeStore) -> None:
    """Payloads come back byte for byte; nobody changes what the store holds through an event it gave out."""
    async with started(make_store) as store:
        payloads = [
            b'{"b":1,"a":2}',
            b'[1.0,1e3,"\\u00e9"]',
            '"é \U0001f600"'.encode(),
            b"null",
            b'"' + b"x" * 200_000 + b'"',
        ]
        mine = [event(n, raw=raw) for n, raw in enumerate(payloads)]
        await store.commit(Batch(log=list(mine)))
        assert [found.raw for found in await store.events(EventQuery())] == payloads
        seen = await store.event(event(0).id)
        assert seen is not None
        seen.data["a"] = mine[0].data["a"] = "changed"
        again = await store.event(event(0).id)
        assert again is not None
        assert again.data == {"b": 1, "a": 2}


async def check_tenants(make_store: MakeStore) -> None:
    """What belongs to a tenant is shown to no other."""
    async with started(make_store) as store:
        more = cast(DeliveryReads, store)
        await store.commit(full_batch())
        assert await store.event("e1", "other") is None
        assert await store.event("e1", "default") == await store.event("e1")
        assert await store.events(EventQuery(tenant="other")) == []
        assert await store.events(EventQuery(tenant="other", run="r1")) == []
        assert await store.runs(RunQuery(tenant="other")) == []
        assert await store.key("other", "emit:/host", "k1", 1.0) is None
        assert await store.plugin_states("other") == []
        assert await store.packages("other") == []
        assert await store.plugin_settings("other") == []
        assert await store.memories("other", "") == []
        assert await store.audit("other") == []
        assert await more.cursor("other", "sub") is None
        assert await more.deliveries("other", "sub") == []
        assert await more.dead_letters("other") == []
        assert await store.plugin_hooks("other") == []
        await store.commit(Batch(plugin_states=[PluginState("other", "shop", "disabled", None, 1.0)]))
        assert [row.state for row in await store.plugin_states("default")] == ["enabled"]
