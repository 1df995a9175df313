"""Places of durable subscriptions: looked at, given up; and replays that go on where they were stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.bus.replay_job import EVERY
from eventcore.kernel.errors import Conflict, InvalidName, NotFound, RemoteError
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Store
from eventcore.kernel.upkeep import Prune
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


BACKENDS = {"memory-asyncio": "asyncio", "memory-trio": "trio", "sqlite-asyncio": "asyncio"}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return BACKENDS[backend]


@pytest.fixture
def store(backend: str, tmp_path: Path) -> Store:
    return MemoryStore() if backend.startswith("memory") else SqliteStore(tmp_path / "events.db")


@asynccontextmanager
async def engine(store: Store) -> AsyncIterator[EventCore]:
    with anyio.fail_after(60):
        async with EventCore(store=store) as core:
            yield core


async def states(core: EventCore) -> dict[str, str]:
    return {place.name: place.state for place in await core.bus.places.list()}


# -- places ------------------------------------------------------------------------------------------------------------


async def test_a_place_says_how_far_it_is_and_who_has_it(store: Store) -> None:
    async with engine(store) as core:
        core.bus.subscribe("job", lambda event: 1 / 0, name="sub", durable=Durable(deliver="all", backoff=(60,)))
        receipt = await core.bus.emit("job", 1)
        report = await core.bus.emit_and_wait("job", 2)
        assert [one.status for one in report] == ["error"]
        while (place := (await core.bus.places.list())[0]).open != 2:  # it is written down a moment later
            await anyio.sleep(0.002)
        assert (place.name, place.subscription, place.pattern, place.state) == ("sub", "sub", "job", "consuming")
        assert place.position < receipt.position
        assert await core.engine.store.last_position() - place.position >= place.behind >= 2


async def test_what_nobody_consumes_is_dropped_and_holds_back_retention_no_more(store: Store) -> None:
    async with engine(store) as core:
        core.bus.subscribe("job", print, name="sub", durable=Durable(deliver="all"))
        await core.bus.emit("job", 1)
        await core.drain()
        with pytest.raises(Conflict, match="subscribed here"):
            await core.bus.places.drop("sub")
    async with engine(store) as core:
        assert await states(core) == {"sub": "unused"}
        await core.bus.emit("other", 1)
        kept = (await core.engine.store.prune(Prune(now=2e10))).events
        await core.bus.places.drop("sub")
        assert await states(core) == {}
        assert (await core.engine.store.prune(Prune(now=2e10))).events > 0
        assert kept < 4
        [entry] = [row for row in await core.engine.store.audit() if row.action == "subscription_dropped"]
        assert entry.target == "sub"
        with pytest.raises(NotFound, match="no durable subscription 'sub'"):
            await core.bus.places.drop("sub")


async def test_what_another_engine_consumes_is_not_dropped(store: Store) -> None:
    async with engine(store) as core:
        core.bus.subscribe("job", print, name="subs", durable=Durable())
        await core.bus.emit("job", 1)
        await core.drain()
    async with engine(store) as core:
        assert (
            await core.engine.store.claim_cursor("default", "subs", "elsewhere", core.engine.clock.now(), 30)
            is not None
        )
        with pytest.raises(Conflict, match="another engine"):
            await core.bus.places.drop("subs")
        assert await states(core) == {"subs": "unused"}
        with pytest.raises(NotFound, match="did you mean 'subs'"):
            await core.bus.places.drop("sub")


@pytest.mark.parametrize("backend", ["sqlite-asyncio"], indirect=True)
async def test_a_guest_of_the_home_sees_and_drops_them_too(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").touch()
    async with EventCore(tmp_path) as core, EventCore(tmp_path) as guest:
        subscription = core.bus.subscribe("job", print, name="sub", durable=Durable())
        await core.bus.emit("job", 1)
        await core.drain()
        assert await guest.bus.places.list() == await core.bus.places.list()
        # The class of an error is the same here and there.
        with pytest.raises(Conflict, match="subscribed here") as caught:
            await guest.bus.places.drop("sub")
        assert isinstance(caught.value, RemoteError)
        core.bus.unsubscribe(subscription)
        await guest.bus.places.drop("sub")
        assert await guest.bus.places.list() == []


# -- replays that go on ------------------------------------------------------------------------------------------------


async def test_a_named_replay_goes_on_behind_what_was_done(store: Store) -> None:
    seen: list[int] = []
    async with engine(store) as core:
        stuck = anyio.Event()

        async def handler(event: Event) -> None:
            seen.append(event.data)
            await core.bus.emit("billed", event.data)
            if core.bus.delivery is not None and event.data == 3:
                stuck.set()
                await anyio.sleep_forever()

        for number in range(6):
            await core.bus.emit("job", number)
        core.bus.subscribe("job", handler, name="sub")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: core.bus.replay("sub", job="again"))
            await stuck.wait()
            tasks.cancel_scope.cancel()
        assert await states(core) == {"replay:again": "unused"}
        assert seen == [0, 1, 2, 3]

    async with engine(store) as core:

        async def bill(event: Event) -> None:
            seen.append(event.data)
            await core.bus.emit("billed", event.data)

        core.bus.subscribe("job", bill, name="sub")
        report = await core.bus.replay("sub", job="again")
        assert (report.matched, report.delivered) == (3, 3)
        assert seen == [0, 1, 2, 3, 3, 4, 5]
        # What was staged by the attempt that was cut off is not there; everything else is there once.
        assert [event.data async for event in core.history.query(type="billed")] == [0, 1, 2, 3, 4, 5]
        assert await states(core) == {}
        assert (await core.bus.replay("sub", job="again")).matched == 6


async def test_a_named_replay_without_effects_keeps_its_place_now_and_then(store: Store) -> None:
    async with engine(store) as core:
        await core.bus.emit_many([("job", number) for number in range(2 * EVERY + 5)])
        places: list[int] = []

        async def handler(event: Event) -> None:
            if event.data in (EVERY - 1, EVERY + 1, 2 * EVERY + 1):
                cursor = await core.engine.store.cursor("default", "replay:j")
                places.append(0 if cursor is None else cursor.position)

        core.bus.subscribe("job", handler, name="sub")
        first = [event.position async for event in core.history.query(type="job", limit=1000)]
        await core.bus.replay("sub", job="j")
        assert places == [0, first[EVERY - 1], first[2 * EVERY - 1]]


async def test_one_engine_at_a_time_is_at_a_job(store: Store) -> None:
    async with engine(store) as core:
        core.bus.subscribe("job", print, name="sub")
        await core.bus.emit("job", 1)
        await core.engine.store.claim_cursor("default", "replay:j", "elsewhere", core.engine.clock.now(), 30)
        with pytest.raises(Conflict, match="another engine is at the job 'replay:j'"):
            await core.bus.replay("sub", job="j")
        for wrong in ("", "a\nb", "x" * 1000):
            with pytest.raises(InvalidName):
                await core.bus.replay("sub", job=wrong)


async def test_a_job_that_was_taken_over_ends(store: Store) -> None:
    async with engine(store) as core:

        async def handler(event: Event) -> None:
            await core.bus.emit("billed", event.data)
            if event.data == 2:
                assert await core.engine.store.claim_cursor("default", "replay:j", "x", 2e10, 30) is not None

        for number in range(5):
            await core.bus.emit("job", number)
        core.bus.subscribe("job", handler, name="sub")
        with pytest.raises(Conflict):
            await core.bus.replay("sub", job="j")
        assert [event.data async for event in core.history.query(type="billed")] == [0, 1]
