"""Durable subscriptions: acknowledge, retry, order, dead letters, staged effects, replay, two engines, restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from eventcore import EventCore
from eventcore.bus.acks import Durable, Nak, Term
from eventcore.bus.durable_room import stored_name
from eventcore.kernel.errors import IdempotencyConflict, InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Store
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

BACKENDS = {"memory-asyncio": "asyncio", "memory-trio": "trio", "sqlite-asyncio": "asyncio"}
FAST = Durable(backoff=(0.01,))
START = 1_700_000_000.0


class HandClock:
    """A clock that a test turns. Who sleeps is woken when the hand has passed their time."""

    def __init__(self) -> None:
        self.time = START
        self._turned = anyio.Event()
        self.sleepers: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        until = self.time + seconds
        self.sleepers.append(seconds)
        while self.time < until:
            await self._turned.wait()
        await anyio.lowlevel.checkpoint()

    def turn(self, seconds: float) -> None:
        self.time += seconds
        self._turned.set()
        self._turned = anyio.Event()


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
async def engine(store: Store, **options: Any) -> AsyncIterator[EventCore]:
    with anyio.fail_after(60):
        async with EventCore(store=store, **options) as core:
            yield core


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; the engine's time limit ends a vain wait."""
    while not condition():
        await anyio.sleep(0.002)


def longer(things: list[Any], count: int) -> bool:
    return len(things) > count


def taker(into: list[Any]) -> Callable[[Event], None]:
    """A handler that keeps the payloads."""
    return lambda event: into.append(event.data)


async def of_type(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


async def place(core: EventCore, name: str = "sub") -> int:
    cursor = await core.engine.store.cursor("default", name)
    assert cursor is not None
    return cursor.position


async def rows(core: EventCore, name: str = "sub") -> list[tuple[int, str, int]]:
    found = await core.engine.store.deliveries("default", name)
    return [(row.position, row.state, row.attempt) for row in found]


# -- the way it goes ---------------------------------------------------------------------------------------------------


async def test_acknowledged_events_move_the_cursor_and_leave_no_rows(store: Store) -> None:
    async with engine(store) as core:
        got: list[Any] = []
        core.bus.subscribe("job", lambda event: got.append(event.data), name="sub", durable=FAST)
        for number in range(30):
            await core.bus.emit("job", number)
        await core.bus.emit("other", 1)
        await core.drain()
        last = (await of_type(core, "job"))[-1].position
        assert got == list(range(30))
        assert await place(core) >= last
        assert await rows(core) == []


async def test_it_misses_nothing_while_it_is_away(store: Store) -> None:
    got: list[Any] = []

    async def handler(event: Event) -> None:
        got.append(event.data)

    async with engine(store) as core:
        await core.bus.emit("job", "before")
        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        await core.bus.emit("job", 1)
        await core.drain()
    async with engine(store) as core:
        await core.bus.emit("job", 2)
        subscription = core.bus.subscribe("job", handler, name="sub", durable=Durable(deliver="all"))
        await core.bus.emit("job", 3)
        await core.drain()
        assert got == [1, 2, 3]
        core.bus.unsubscribe(subscription)
        await core.bus.emit("job", 4)
        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        await core.drain()
    assert got == [1, 2, 3, 4]


async def test_where_a_new_one_begins(store: Store) -> None:
    clock = HandClock()
    async with engine(store, clock=clock) as core:
        got: dict[str, list[Any]] = {"new": [], "all": [], "since": []}
        for number in range(3):
            await core.bus.emit("job", number)
            clock.turn(60)
        chosen = {"new": Durable(), "all": Durable("all"), "since": Durable("since", since=START + 90)}
        for name, durable in chosen.items():
            core.bus.subscribe("job", taker(got[name]), name=name, durable=durable)
        await core.bus.emit("job", 3)
        await core.drain()
        assert got == {"new": [3], "all": [0, 1, 2, 3], "since": [2, 3]}


async def test_the_place_of_a_new_one_is_in_the_first_commit_after_it(store: Store) -> None:
    """Or a crash between the two would lose an event that was acknowledged to its emitter."""
    async with engine(store, quiet=True) as core:  # consumes nothing
        await core.bus.emit("job", 0)
        core.bus.subscribe("job", print, name="sub", durable=FAST)
        receipt = await core.bus.emit("job", 1)
        assert receipt.position == 2
        assert await place(core) == 1


async def test_a_long_past_is_read_page_by_page(store: Store) -> None:
    async with engine(store) as core:
        for start in range(0, 1500, 500):
            await core.bus.emit_many([("job" if n % 3 else "other", n) for n in range(start, start + 500)])
        got: list[int] = []
        durable = Durable("all", max_ack_pending=7)
        core.bus.subscribe("job", lambda event: got.append(event.data), name="sub", durable=durable)
        await core.bus.emit("job", 1501)
        await core.drain()
        assert got == [*(n for n in range(1500) if n % 3), 1501]


async def test_filters_hold_and_a_failing_one_is_a_failed_attempt(store: Store) -> None:
    async with engine(store) as core:
        got: list[Any] = []
        core.bus.subscribe(
            "job",
            lambda event: got.append(event.data),
            name="sub",
            where=lambda event: 1 // event.data > 0,
            durable=FAST,
        )
        for number in (1, 5, 0, 1):
            await core.bus.emit("job", number)
        await until(lambda: len(got) == 2)
        await core.drain()
        while not (letters := await core.bus.dead_letters.list()):
            await anyio.sleep(0.005)
        assert got == [1, 1]
        assert "ZeroDivisionError" in letters[0].reason


async def test_the_cursor_follows_though_nothing_is_for_it(store: Store) -> None:
    """Or a subscription of a rare type would keep retention from removing anything."""
    async with engine(store) as core:
        core.bus.subscribe("rare", print, name="sub", durable=FAST)
        await core.drain()
        for _ in range(3):
            await core.bus.emit_many([("often", n) for n in range(700)])
        while await place(core) <= 1000:  # the engine's time limit ends a vain wait
            await anyio.sleep(0.002)


# -- retries -----------------------------------------------------------------------------------------------------------


async def test_a_retry_waits_for_its_time_by_the_clock(store: Store) -> None:
    clock = HandClock()
    async with engine(store, clock=clock) as core:
        attempts: list[tuple[int, float]] = []

        async def handler(event: Event) -> None:
            assert core.bus.delivery is not None
            attempts.append((core.bus.delivery.attempt, clock.now() - START))
            if len(attempts) < 4:
                raise ValueError("not yet")

        core.bus.subscribe("job", handler, name="sub", durable=Durable(backoff=(1, 5, 30)))
        await core.bus.emit("job", 1)
        await core.drain()
        for count, seconds in ((1, 1), (2, 5), (3, 30)):
            assert len(attempts) == count
            clock.turn(seconds - 0.5)
            await core.drain()
            assert len(attempts) == count, "too early"
            clock.turn(0.5)
            await until(partial(longer, attempts, count))
            await core.drain()
        assert attempts == [(1, 0.0), (2, 1.0), (3, 6.0), (4, 36.0)]
        assert await rows(core) == []


async def test_a_retry_parks_its_key_and_others_go_on(store: Store) -> None:
    clock = HandClock()
    async with engine(store, clock=clock) as core:
        got: list[tuple[str | None, int]] = []

        async def handler(event: Event) -> None:
            if event.data == 0 and clock.now() == START:
                raise Nak(10)
            got.append((event.key, event.data))

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        receipts = []
        for number, key in enumerate(("a", "b", "a", None, "b", None)):
            receipts.append(await core.bus.emit("job", number, key=key))
        await core.drain()
        assert got == [("b", 1), (None, 3), ("b", 4), (None, 5)]
        first = receipts[0].position
        assert first is not None
        assert await place(core) == first - 1
        assert (first, "parked", 1) in await rows(core)
        clock.turn(10)
        await until(lambda: len(got) == 6)
        await core.drain()
        assert got[4:] == [("a", 0), ("a", 2)]
        assert await place(core) >= first + 5
        assert await rows(core) == []


async def test_ordered_by_subscription_holds_back_all_that_follow(store: Store) -> None:
    clock = HandClock()
    async with engine(store, clock=clock) as core:
        got: list[int] = []

        async def handler(event: Event) -> None:
            if event.data == 0 and clock.now() == START:
                raise Nak(10)
            got.append(event.data)

        core.bus.subscribe("job", handler, name="sub", ordered_by="subscription", concurrency=4, durable=FAST)
        for number in range(4):
            await core.bus.emit("job", number, key=f"k{number}")
        await core.drain()
        assert got == []
        clock.turn(10)
        await until(lambda: len(got) == 4)
        assert got == [0, 1, 2, 3]


async def test_no_more_than_max_ack_pending_are_in_hand(store: Store) -> None:
    clock = HandClock()
    async with engine(store, clock=clock) as core:
        got: list[int] = []

        async def handler(event: Event) -> None:
            got.append(event.data)
            if clock.now() == START:
                raise Nak(10)

        core.bus.subscribe("job", handler, name="sub", durable=Durable(max_ack_pending=3))
        await core.bus.emit_many([("job", number) for number in range(10)])
        await core.drain()
        assert got == [0, 1, 2]
        clock.turn(10)
        await until(lambda: len(got) == 13)
        await core.drain()
        assert sorted(got[3:]) == list(range(10))
        assert await rows(core) == []


async def test_concurrency_keeps_the_order_within_each_key(store: Store) -> None:
    async with engine(store) as core:
        seen: dict[str, list[int]] = {f"k{n}": [] for n in range(5)}
        running = most = 0
        all_there = anyio.Event()  # or a slow emitter would give the handlers nothing to do at the same time

        async def handler(event: Event) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await all_there.wait()
            await anyio.sleep(0.001 * (event.data % 3))
            running -= 1
            if event.data % 7 == 0 and core.bus.delivery is not None and core.bus.delivery.attempt == 1:
                raise ValueError("again")
            assert event.key is not None
            seen[event.key].append(event.data)

        core.bus.subscribe("job", handler, name="sub", concurrency=4, durable=FAST)
        for number in range(60):
            await core.bus.emit("job", number, key=f"k{number % 5}")
        all_there.set()
        await until(lambda: sum(map(len, seen.values())) == 60)
        assert most > 1
        assert seen == {f"k{at}": list(range(at, 60, 5)) for at in range(5)}


async def test_attempts_survive_a_restart(store: Store) -> None:
    clock = HandClock()
    seen: list[int] = []

    def begin(core: EventCore) -> None:
        async def handler(event: Event) -> None:
            assert core.bus.delivery is not None
            seen.append(core.bus.delivery.attempt)
            raise ValueError("never")

        core.bus.subscribe("job", handler, name="sub", durable=Durable(max_deliver=3, backoff=(5,)))

    for attempt in range(1, 4):
        async with engine(store, clock=clock) as core:
            begin(core)
            if attempt == 1:
                await core.bus.emit("job", 1)
            await until(partial(longer, seen, attempt - 1))
            await core.drain()
        clock.turn(5)
    assert seen == [1, 2, 3]
    async with engine(store, clock=clock) as core:
        [letter] = await core.bus.dead_letters.list()
        assert (letter.attempts, letter.reason) == (3, "ValueError: never")


async def test_a_time_limit_is_a_failed_attempt_and_in_progress_extends_it(store: Store) -> None:
    async with engine(store) as core:
        left: list[float] = []

        async def silent(event: Event) -> None:
            await anyio.sleep_forever()

        async def says_so(event: Event) -> None:
            assert core.bus.delivery is not None
            for _ in range(3):
                # What is left, and not whether it is enough: a machine that stands still would use up any short limit.
                left.append(anyio.current_effective_deadline())
                await anyio.sleep(0.01)
                core.bus.delivery.in_progress()

        core.bus.subscribe("silent", silent, name="silent", timeout=0.05, durable=Durable(max_deliver=1))
        core.bus.subscribe("job", says_so, name="sub", timeout=10, durable=Durable(max_deliver=1))
        began = anyio.current_time()
        await core.bus.emit("silent")
        await core.bus.emit("job")
        await until(lambda: len(left) == 3)
        await core.drain()
        assert all(10 <= later - began < 40 for later in left), "the limit of the subscription, from when it is set"
        assert all(later - earlier > 0.009 for earlier, later in pairwise(left))
        while not (letters := await core.bus.dead_letters.list()):
            await anyio.sleep(0.005)
        assert [(letter.subscription, letter.reason) for letter in letters] == [("silent", "ran over its 0.05 s")]


async def test_an_engine_that_closes_interrupts_without_counting(store: Store) -> None:
    seen: list[int] = []
    begun = anyio.Event()

    async def stuck(event: Event) -> None:
        begun.set()
        await anyio.sleep_forever()

    with anyio.fail_after(60):
        core = EventCore(store=store)
        await core.__aenter__()
        core.bus.subscribe("job", stuck, name="sub", durable=FAST)
        await core.bus.emit("job", 1)
        await begun.wait()
        # As when an exception leaves the block: nothing is drained.
        await core.__aexit__(ValueError, None, None)
    async with engine(store) as core:
        core.bus.subscribe("job", lambda event: seen.append(core.bus.delivery.attempt), name="sub", durable=FAST)  # type: ignore[union-attr]
        await until(lambda: bool(seen))
        assert seen == [1]


# -- dead letters ------------------------------------------------------------------------------------------------------


async def test_after_max_deliver_the_key_is_free_and_a_redrive_delivers_again(store: Store) -> None:
    async with engine(store) as core:
        got: list[int] = []
        broken = True

        async def handler(event: Event) -> None:
            if event.data == 0 and broken:
                raise ValueError("broken")
            got.append(event.data)

        core.bus.subscribe("job", handler, name="sub", durable=Durable(max_deliver=3, backoff=(0.001,)))
        for number in range(3):
            await core.bus.emit("job", number, key="k")
        await until(lambda: got == [1, 2])
        await core.drain()
        [letter] = await core.bus.dead_letters.list()
        assert (letter.subscription, letter.attempts, letter.reason) == ("sub", 3, "ValueError: broken")
        assert letter.event is not None
        assert letter.event.data == 0
        [told] = await of_type(core, "bus_dead_letter")
        assert (told.data["id"], told.data["event"], told.causation_id) == (letter.id, letter.event.id, letter.event.id)
        assert await rows(core) == []
        broken = False
        await core.bus.dead_letters.redrive(letter.id)
        await until(lambda: got == [1, 2, 0])
        await core.drain()
        assert await rows(core) == []
        assert await core.bus.dead_letters.list() == []
        assert [row.action for row in await store.audit("default")] == ["dead_letter_redriven"]
        with pytest.raises(NotFound):
            await core.bus.dead_letters.show(letter.id)


async def test_a_redrive_begins_at_the_first_attempt_and_may_fail_again(store: Store) -> None:
    async with engine(store) as core:
        attempts: list[int] = []

        async def handler(event: Event) -> None:
            assert core.bus.delivery is not None
            attempts.append(core.bus.delivery.attempt)
            raise ValueError("broken")

        core.bus.subscribe("job", handler, name="sub", durable=Durable(max_deliver=2, backoff=(0.001,)))
        await core.bus.emit("job", 1)
        await until(lambda: len(attempts) == 2)
        await core.drain()
        [letter] = await core.bus.dead_letters.list(subscription="sub")
        await core.bus.dead_letters.redrive(letter.id)
        await until(lambda: len(attempts) == 4)
        await core.drain()
        assert attempts == [1, 2, 1, 2]
        [again] = await core.bus.dead_letters.list()
        assert again.id != letter.id
        await core.bus.dead_letters.drop(again.id)
        assert await core.bus.dead_letters.list() == []


async def test_what_is_redriven_while_nobody_listens_comes_when_somebody_does(store: Store) -> None:
    got: list[int] = []
    async with engine(store) as core:
        core.bus.subscribe("job", lambda event: 1 / 0, name="sub", durable=Durable(max_deliver=1))
        await core.bus.emit_many([("job", n) for n in range(3)])
        await core.drain()
    async with engine(store) as core:
        letters = await core.bus.dead_letters.list()
        assert len(letters) == 3
        await core.bus.dead_letters.redrive(letters[-1].id)
        assert [state for _, state, _ in await rows(core)] == ["pending"]
    async with engine(store) as core:
        core.bus.subscribe("job", lambda event: got.append(event.data), name="sub", durable=FAST)
        await until(lambda: got == [0])
        await core.drain()
        assert await rows(core) == []


async def test_a_redrive_of_what_was_not_read_again_yet_hides_nothing(store: Store) -> None:
    """After a restart the reading stands at the second event, so a redrive of the fourth must not skip the third."""
    seen: list[int] = []

    def handle(event: Event) -> None:
        if event.data == 3:
            raise Term("given up")
        raise Nak(3600)

    async with engine(store) as core:
        core.bus.subscribe("tick", handle, name="sub", durable=Durable("all", backoff=(3600,)))
        for number in range(4):
            await core.bus.emit("tick", number)
        while not (letters := await core.bus.dead_letters.list()) or len(await rows(core)) < 4:
            await anyio.sleep(0.002)
    clock = HandClock()
    async with engine(store, clock=clock) as core:
        core.bus.subscribe(
            "tick", lambda event: seen.append(event.data), name="sub", durable=Durable(max_ack_pending=2)
        )
        await core.bus.dead_letters.redrive(letters[0].id)
        await until(lambda: seen == [3])
        clock.time = max(row.next_at for row in await store.deliveries("default", "sub"))
        clock.turn(10)
        await until(lambda: len(seen) >= 4)
    assert sorted(seen) == [0, 1, 2, 3]


async def test_term_gives_up_at_once(store: Store) -> None:
    async with engine(store) as core:

        async def handler(event: Event) -> None:
            raise Term("nobody wants this")

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        report = await core.bus.emit_and_wait("job", 1)
        await core.drain()
        [letter] = await core.bus.dead_letters.list()
        assert (letter.attempts, letter.reason) == (1, "nobody wants this")
        assert [outcome.status for outcome in report] == ["error"]


async def test_tenants_see_their_own_dead_letters(store: Store) -> None:
    async with engine(store) as core:
        core.bus.subscribe("job", lambda event: 1 / 0, name="sub", durable=Durable(max_deliver=1))
        await core.bus.emit("job", 1)
        await core.drain()
        [letter] = await core.bus.dead_letters.list()
    async with engine(store, tenant="other") as core:
        assert await core.bus.dead_letters.list() == []
        with pytest.raises(NotFound):
            await core.bus.dead_letters.drop(letter.id)


# -- staged effects ----------------------------------------------------------------------------------------------------

RUN = """
slug: follow_up
steps: [{id: wait, sleep: 0}]
"""


async def test_effects_are_committed_with_the_acknowledgement_or_not_at_all(store: Store) -> None:
    async with engine(store) as core:
        core.workflows.define(RUN)
        done = 0

        async def handler(event: Event) -> None:
            nonlocal done
            assert core.bus.delivery is not None
            receipt = await core.bus.emit("billed", event.data)
            assert receipt.position is None
            core.bus.emit_nowait("noted", event.data)
            await core.bus.emit_many([("counted", event.data)])
            await core.workflows.start("follow_up")
            await core.bus.emit("tried", core.bus.delivery.attempt, now=True)
            assert await of_type(core, "billed") == []
            if core.bus.delivery.attempt < 3:
                raise ValueError("not yet") if core.bus.delivery.attempt == 1 else Nak(0)
            done += 1

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        job = await core.bus.emit("job", 7)
        await until(lambda: done == 1)
        await core.drain()
        [run] = await core.workflows.runs()
        await (await core.workflows.run(run.id)).result(30)  # it waits for a time, which a drain does not wait for
        assert [event.data for event in await of_type(core, "tried")] == [1, 2, 3]
        for pattern in ("billed", "noted", "counted", "workflow_started"):
            [effect] = await of_type(core, pattern)
            assert (effect.causation_id, effect.hops) == (job.id, 1)
        assert await rows(core) == []


async def test_a_timeout_drops_what_was_staged(store: Store) -> None:
    async with engine(store) as core:

        async def handler(event: Event) -> None:
            await core.bus.emit("billed", 1)
            await anyio.sleep_forever()

        core.bus.subscribe("job", handler, name="sub", timeout=0.02, durable=Durable(max_deliver=2, backoff=(0,)))
        await core.bus.emit("job", 1)
        while not await core.bus.dead_letters.list():
            await anyio.sleep(0.005)
        assert await of_type(core, "billed") == []


async def test_staged_idempotency_keys(store: Store) -> None:
    """A key that is known gives the first receipt; one used twice in a handler counts once; a conflict is an error."""
    async with engine(store) as core:
        first = await core.bus.emit("billed", "a", idempotency_key="known")
        receipts: list[Any] = []

        async def handler(event: Event) -> None:
            receipts.append(await core.bus.emit("billed", "a", idempotency_key="known"))
            receipts.append(await core.bus.emit("billed", "b", idempotency_key="fresh"))
            receipts.append(await core.bus.emit("billed", "b", idempotency_key="fresh"))
            with pytest.raises(IdempotencyConflict):
                await core.bus.emit("billed", "c", idempotency_key="fresh")
            with pytest.raises(InvalidInput):
                core.bus.emit_nowait("billed", "d", idempotency_key="other")

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        await core.bus.emit("job", 1)
        await until(lambda: len(receipts) == 3)
        await core.drain()
        assert receipts[0] == first.__class__(first.id, first.position, duplicate=True)
        assert (receipts[1].duplicate, receipts[2].duplicate, receipts[2].id) == (False, True, receipts[1].id)
        assert [event.data for event in await of_type(core, "billed")] == ["a", "b"]


async def test_a_key_used_by_somebody_else_meanwhile_is_no_failed_attempt(store: Store) -> None:
    async with engine(store) as core:
        attempts: list[int] = []

        async def handler(event: Event) -> None:
            assert core.bus.delivery is not None
            attempts.append(core.bus.delivery.attempt)
            await core.bus.emit("billed", "b", idempotency_key="k")
            if len(attempts) == 1:
                await core.bus.emit("billed", "b", idempotency_key="k", now=True)

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        await core.bus.emit("job", 1)
        await until(lambda: len(attempts) == 2)
        await core.drain()
        assert attempts == [1, 1]
        assert len(await of_type(core, "billed")) == 1


async def test_what_a_handler_leaves_running_commits_at_once(store: Store) -> None:
    async with engine(store) as core, anyio.create_task_group() as tasks:
        go = anyio.Event()
        receipts: list[Any] = []

        async def later() -> None:
            await go.wait()
            receipts.append(await core.bus.emit("late", 1))

        async def handler(event: Event) -> None:
            tasks.start_soon(later)

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        await core.bus.emit("job", 1)
        await core.drain()
        go.set()
        await until(lambda: bool(receipts))
        assert receipts[0].position is not None


async def test_handlers_in_threads_stage_too(store: Store) -> None:
    async with engine(store) as core:
        receipts: list[Any] = []

        def handler(event: Event) -> None:
            receipts.append(anyio.from_thread.run(core.bus.emit, "billed", 1))
            if len(receipts) == 1:
                raise ValueError("once more")

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        await core.bus.emit("job", 1)
        await until(lambda: len(receipts) == 2)
        await core.drain()
        assert [receipt.position for receipt in receipts] == [None, None]
        assert len(await of_type(core, "billed")) == 1


# -- two engines -------------------------------------------------------------------------------------------------------


async def test_two_engines_on_one_store_and_one_consumes(store: Store) -> None:
    got: list[tuple[str, Any]] = []
    clock = HandClock()
    async with engine(store, clock=clock) as one, engine(store, clock=clock) as two:
        first = one.bus.subscribe("job", lambda event: got.append(("one", event.data)), name="sub", durable=FAST)
        await one.drain()
        two.bus.subscribe("job", lambda event: got.append(("two", event.data)), name="sub", durable=FAST)
        await two.drain()
        for number in range(5):
            await two.bus.emit("job", number)
        await one.drain()
        await two.drain()
        assert got == [("one", number) for number in range(5)]
        one.bus.unsubscribe(first)
        await two.bus.emit("job", 5)
        while len(got) < 6:
            clock.turn(1)
            await anyio.sleep(0.002)
        assert got[5:] == [("two", 5)]


async def test_an_engine_that_lost_its_claim_acknowledges_nothing(store: Store) -> None:
    async with engine(store, clock=HandClock()) as core:
        release = anyio.Event()

        async def handler(event: Event) -> None:
            await core.bus.emit("billed", event.data)
            await release.wait()

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        await core.bus.emit("job", 1)
        await until(lambda: not core.engine.bus.idle)
        before = await place(core)
        # Somebody else finds the lease at its end.
        assert await store.claim_cursor("default", "sub", "other", START + 1000, 30.0) is not None
        release.set()
        await until(lambda: core.engine.bus.idle)
        assert await of_type(core, "billed") == []
        assert await place(core) == before


async def test_events_of_another_process_are_not_skipped(store: Store) -> None:
    """What is written past our store object is not offered; the gap in the positions tells."""
    async with engine(store) as core:
        got: list[Any] = []
        core.bus.subscribe("job", lambda event: got.append(event.data), name="sub", durable=FAST)
        await core.drain()
        deaf = core.bus._on_commit
        core.bus.durables.told, told = (lambda entries: None), core.bus.durables.told  # type: ignore[method-assign]
        hand_out, core.bus._dispatch.hand_out = core.bus._dispatch.hand_out, lambda entry: None  # type: ignore[method-assign]
        await core.bus.emit("job", 1)
        core.bus.durables.told, core.bus._dispatch.hand_out = told, hand_out  # type: ignore[method-assign]
        assert deaf is not None
        await core.bus.emit("job", 2)
        await core.drain()
        assert got == [1, 2]


# -- replay ------------------------------------------------------------------------------------------------------------


async def test_replay_leaves_the_cursor_and_tells_the_handler(store: Store) -> None:
    clock = HandClock()
    async with engine(store, clock=clock) as core:
        got: list[tuple[int, bool]] = []

        async def handler(event: Event) -> None:
            assert core.bus.delivery is not None
            got.append((event.data, core.bus.delivery.replay))
            await core.bus.emit("billed", event.data)
            if core.bus.delivery.replay and event.data == 2:
                raise ValueError("not twice")

        core.bus.subscribe("job", handler, name="sub", durable=FAST)
        for number in range(4):
            await core.bus.emit("job", number)
            clock.turn(60)
        await core.drain()
        before = await place(core)
        counted = await core.bus.replay("sub", since=START + 30, dry_run=True)
        assert (counted.matched, counted.delivered) == (3, 0)
        got.clear()
        report = await core.bus.replay("sub", since=START + 30)
        assert got == [(1, True), (2, True), (3, True)]
        assert (report.matched, report.delivered, report.failed) == (3, 2, 1)
        assert "not twice" in str(report.failures[0][1].error)
        await core.drain()
        assert await place(core) >= before
        assert sorted(event.data for event in await of_type(core, "billed")) == [0, 1, 1, 2, 3, 3]
        assert await core.bus.dead_letters.list() == []
        until_ = await core.bus.replay("sub", until=START + 30)
        assert until_.matched == 1


class PacedClock(HandClock):
    """One that knows until when the task of a replay sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.task, self.until = 0, 0.0

    async def sleep(self, seconds: float) -> None:
        if anyio.get_current_task().id == self.task:
            self.until = self.time + seconds
        await super().sleep(seconds)


async def test_replay_at_original_speed(store: Store) -> None:
    clock = PacedClock()
    async with engine(store, clock=clock) as core:
        got: list[float] = []

        async def handler(event: Event) -> None:
            got.append(clock.now())

        core.bus.subscribe("job", handler, name="live-one")
        for pause in (0, 10, 0, 25):
            clock.turn(pause)
            await core.bus.emit("job", pause)
        await core.drain()
        got.clear()
        async with anyio.create_task_group() as tasks:

            async def job() -> None:
                clock.task = anyio.get_current_task().id
                await core.bus.replay("live-one", speed="original")
                tasks.cancel_scope.cancel()

            tasks.start_soon(job)
            while True:
                await anyio.sleep(0.002)
                if clock.time < clock.until:  # and never ahead of it: the store may take its time between two events
                    clock.turn(1)
        assert [round(later - earlier) for earlier, later in pairwise(got)] == [10, 0, 25]


# -- words -------------------------------------------------------------------------------------------------------------


async def test_bad_arguments_are_named(store: Store) -> None:
    async with engine(store) as core:
        with pytest.raises(InvalidInput, match="needs a name"):
            core.bus.subscribe("job", print, durable=Durable())
        with pytest.raises(InvalidInput, match="ordered_by"):
            core.bus.subscribe("job", print, ordered_by="time")  # type: ignore[arg-type]
        for wrong in ({"max_deliver": 0}, {"backoff": ()}, {"max_ack_pending": 0}, {"deliver": "since"}):
            with pytest.raises(InvalidInput):
                Durable(**wrong)
        core.bus.subscribe("job", print, name="live-one")
        with pytest.raises(NotFound, match="live-one"):
            await core.bus.replay("live-on")
        with pytest.raises(InvalidInput, match="speed"):
            await core.bus.replay("live-one", speed="fast")  # type: ignore[arg-type]


def test_identity() -> None:
    assert stored_name("billing", None) == "billing"
    assert stored_name("shop.on_order_created", "shop") == "shop/on_order_created"


async def test_metrics_count_retries_and_dead_letters(store: Store) -> None:
    async with engine(store) as core:
        core.bus.subscribe("job", lambda event: 1 / 0, name="sub", durable=Durable(max_deliver=3, backoff=(0.0,)))
        await core.bus.emit("job", 1)
        while not await core.bus.dead_letters.list():
            await anyio.sleep(0.005)
        text = core.metrics.text()
        assert 'eventcore_retries_total{subscription="sub"} 2.0' in text
        assert 'eventcore_dead_letters_total{subscription="sub"} 1.0' in text
