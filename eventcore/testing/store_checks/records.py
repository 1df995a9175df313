"""What the checks of stores share: records, and helpers to commit and look at them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeAlias, cast

import anyio

from eventcore.kernel.errors import Conflict
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
    Guard,
    JournalEntry,
    Key,
    LogEntry,
    Memory,
    Package,
    PluginHook,
    PluginSetting,
    PluginState,
    Run,
    RunMove,
    RunQuery,
    Schedule,
    Snapshot,
    Timer,
)

MakeStore: TypeAlias = Callable[[], Store]
Check: TypeAlias = Callable[[MakeStore], Awaitable[None]]

#: Nothing in a check may take longer, in seconds.
LONGEST = 30.0


class DeliveryReads(Protocol):
    """Reads that durable subscriptions need; not in the port yet, but in every backend."""

    async def cursor(self, tenant: str, name: str) -> Cursor | None: ...

    async def deliveries(self, tenant: str, subscription: str, limit: int = 1000) -> list[Delivery]: ...

    async def dead_letters(self, tenant: str, limit: int = 100) -> list[DeadLetter]: ...


@asynccontextmanager
async def started(make_store: MakeStore) -> AsyncIterator[Store]:
    """A started store, closed at the end. Nothing in a check may take longer than half a minute."""
    with anyio.fail_after(LONGEST):
        async with AsyncExitStack() as stack:
            store = make_store()
            await store.start(stack)
            yield store


def event(number: int, type_: str = "order_created", **fields: Any) -> Event:
    """An event for checks; ids sort by number."""
    values: dict[str, Any] = {"id": f"e{number:04}", "type": type_, "source": "/host", "at": 1000.0 + number}
    return Event(**{**values, "raw": b'{"n":%d}' % number, **fields})


def step(number: int, run: str = "r1", type_: str = "step_started", attempt: int = 1, **fields: Any) -> JournalEntry:
    """A journal entry for checks."""
    return JournalEntry(event(number, type_, run=run, **{"subject": "notify[3]/inner", **fields}), attempt)


def run(id_: str = "r1", **fields: Any) -> Run:
    """A run for checks."""
    values: dict[str, Any] = {"tenant": "default", "slug": "triage", "definition": "d1", "status": "running"}
    values |= {"raw_inputs": b"{}", "actor": "user:ada", "roles": ("user",), "created": 1.0, "updated": 2.0}
    return Run(id_, **{**values, **fields})


def move(id_: str, version: int, status: Any = "running") -> RunMove:
    """A change of a run."""
    return RunMove(id_, status, version, 3.0)


async def attempt(store: Store, batch: Batch, *guards: Guard) -> int | Conflict:
    """Commit; the position, or the conflict."""
    try:
        return await store.commit(batch, guards)
    except Conflict as conflict:
        return conflict


async def together(store: Store, work: Sequence[tuple[Batch, Sequence[Guard]]]) -> list[int | Conflict]:
    """Commit all at the same time; the outcomes in order of `work`."""
    outcomes: dict[int, int | Conflict] = {}

    async def one(number: int, batch: Batch, guards: Sequence[Guard]) -> None:
        outcomes[number] = await attempt(store, batch, *guards)

    async with anyio.create_task_group() as group:
        for number, (batch, guards) in enumerate(work):
            group.start_soon(one, number, batch, guards)
    return [outcomes[number] for number in range(len(work))]


def wins(outcomes: Sequence[int | Conflict]) -> list[int]:
    """Which of the outcomes are no conflicts."""
    return [number for number, outcome in enumerate(outcomes) if isinstance(outcome, int)]


def ids(events: Sequence[Event]) -> list[str]:
    """The ids of events, in order."""
    return [found.id for found in events]


def position_of(entry: LogEntry) -> int:
    return entry.event.position if isinstance(entry, JournalEntry) else entry.position


def full_event() -> Event:
    """An event with every field set."""
    return Event(
        "e1", "order_created", "/plugins/shop", 12.5, '{"text":"Grüße"}'.encode(), "default", "plugin:shop", "order/1",
        "k", "r1", "c1", "e0", 2, (("a", "order_created", "k"), ("b", "x", "")), "00-ab-cd-01", "idem", 3,
    )  # fmt: skip


def full_step() -> JournalEntry:
    """A step event with a path."""
    return step(2, attempt=3, path=(("w", "x", ""),), key="k", correlation_id="c1")


def full_run() -> Run:
    """A run with every field set."""
    return Run(
        "r1", "default", "triage", "d1", "waiting", b'{"a":1}', "user:ada", ("user", "admin"), 1.5, 2.5, 7, b"1", b"2",
        "c1", "e0", 3, (("a", "b", ""),), "00-ab", "t1", b"{}", "r0/step", "ada", "engine-1", 4, 99.5,
    )  # fmt: skip


def full_batch() -> Batch:
    """A batch with one of everything."""
    return Batch(
        log=[full_event(), full_step()],
        runs=[full_run()],
        snapshots=[Snapshot("r1", "default", 1, 2, 3, "code", "5ha", b'{"x":1}')],
        definitions=[Definition("d1", "default", "triage", b"{}", 1.0)],
        timers=[Timer("t1", "default", 5.0, "r1", b'{"x":1}')],
        keys=[Key("default", "emit:/host", "k1", "digest", "e1", 100.0)],
        cursors=[Cursor("default", "sub", 1)],
        deliveries=[Delivery("default", "sub", 1, "parked", 2, 7.5)],
        dead_letters=[DeadLetter("l1", "default", "sub", 1, "too often", 5, 8.5)],
        plugin_states=[PluginState("default", "shop", "enabled", None, 1.0, "hash", b"[]")],
        packages=[Package("default", "shop", "installed", "o1", "1.0.0", "sales/shop", "shop.zip", "5ha", 1.0)],
        plugin_settings=[PluginSetting("default", "shop", "limit", b"7", 1.0)],
        plugin_hooks=[PluginHook("default", "shop", "order_*", "on_order")],
        memory=[Memory("m1", "default", "user:ada", "weather in NYC", b'{"t":"sunny"}', 1.0)],
        schedules=[Schedule("s1", "default", 6.0, b"{}")],
        audit=[Audit("a1", "default", 1.0, "user:ada", "enable", "plugin:shop", None, b"1")],
    )


async def everything(store: Store) -> dict[str, Any]:
    """What the checks' records left in a store, by table."""
    more = cast(DeliveryReads, store)
    definition, key = await store.definition("d1"), await store.key("default", "emit:/host", "k1", 50.0)
    cursor = await more.cursor("default", "sub")
    kept, _ = await store.journal_tail("r1")
    return {
        "events": await store.events(EventQuery()),
        "journal": await store.journal("r1"),
        "runs": await store.runs(RunQuery()),
        "snapshots": [kept] if kept else [],
        "definitions": [definition] if definition else [],
        "timers": await store.timers(1e9),
        "keys": [key] if key else [],
        "cursors": [cursor] if cursor else [],
        "deliveries": await more.deliveries("default", "sub"),
        "dead_letters": await more.dead_letters("default"),
        "plugin_states": await store.plugin_states("default"),
        "packages": await store.packages("default"),
        "plugin_settings": await store.plugin_settings("default"),
        "plugin_hooks": await store.plugin_hooks("default"),
        "memory": await store.memories("default", ""),
        "schedules": await store.schedules(1e9),
        "audit": await store.audit("default"),
    }
