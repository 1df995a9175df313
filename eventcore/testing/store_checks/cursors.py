"""Checks of what durable subscriptions need: cursors that begin once, claims with a fence, dead letters."""

from __future__ import annotations

from eventcore.kernel.errors import Conflict
from eventcore.kernel.records import Batch, Cursor, CursorHeld, DeadLetter, Delivery
from eventcore.kernel.upkeep import Prune
from eventcore.testing.store_checks.records import MakeStore, attempt, event, started, together


async def check_cursor_begins_once(make_store: MakeStore) -> None:
    """A cursor that is there is never set back by a subscription that begins, alone or within a group."""
    async with started(make_store) as store:
        await store.commit(Batch(log=[event(1)], cursors_begun=[Cursor("default", "s", 3)]))
        assert await store.cursor("default", "s") == Cursor("default", "s", 3)
        await store.commit(Batch(cursors_begun=[Cursor("default", "s", 9), Cursor("other", "s", 1)]))
        assert await store.cursor("default", "s") == Cursor("default", "s", 3)
        assert await store.cursor("other", "s") == Cursor("other", "s", 1)
        moves = [Batch(cursors_begun=[Cursor("default", "t", 1)]), Batch(cursors=[Cursor("default", "t", 5)])]
        await together(store, [(batch, ()) for batch in (*moves, Batch(cursors_begun=[Cursor("default", "t", 2)]))])
        found = await store.cursor("default", "t")
        assert found is not None
        assert found.position == 5


async def check_cursor_claims(make_store: MakeStore) -> None:
    """One engine consumes a subscription: until it gives it up, or its lease ends. Fences rise, old ones are void."""
    async with started(make_store) as store:
        held = CursorHeld("default", "s", 1)
        assert isinstance(await attempt(store, Batch(), held), Conflict)
        assert await store.claim_cursor("default", "s", "one", 100.0, 30.0) == 1
        assert await store.claim_cursor("default", "s", "two", 129.9, 30.0) is None
        assert await store.claim_cursor("other", "s", "two", 100.0, 30.0) == 1
        assert await attempt(store, Batch(cursors=[Cursor("default", "s", 4)]), held) == 0
        # Renewed, it is held on; its end makes it free, and the old fence void.
        await store.renew("one", 120.0, 30.0)
        assert await store.claim_cursor("default", "s", "two", 149.9, 30.0) is None
        assert await store.claim_cursor("default", "s", "two", 150.0, 30.0) == 2
        assert isinstance(await attempt(store, Batch(cursors=[Cursor("default", "s", 9)]), held), Conflict)
        assert await store.cursor("default", "s") == Cursor("default", "s", 4)
        await store.renew("one", 150.0, 30.0)
        assert await attempt(store, Batch(), CursorHeld("default", "s", 2)) == 0
        # The owner itself may claim again, which voids its own earlier claim.
        assert await store.claim_cursor("default", "s", "two", 151.0, 30.0) == 3
        assert isinstance(await attempt(store, Batch(), CursorHeld("default", "s", 2)), Conflict)


async def check_cursor_claims_given_up(make_store: MakeStore) -> None:
    """What is given up is free at once; giving up what somebody else holds does nothing."""
    async with started(make_store) as store:
        for name in ("a", "b"):
            assert await store.claim_cursor("default", name, "one", 100.0, 30.0) == 1
        await store.release_cursor("default", "a", 2)
        await store.release_cursor("other", "a", 1)
        assert await store.claim_cursor("default", "a", "two", 100.0, 30.0) is None
        await store.release_cursor("default", "a", 1)
        assert isinstance(await attempt(store, Batch(), CursorHeld("default", "a", 1)), Conflict)
        assert await store.claim_cursor("default", "a", "two", 100.0, 30.0) == 2
        await store.release("one")
        assert isinstance(await attempt(store, Batch(), CursorHeld("default", "b", 1)), Conflict)
        assert await attempt(store, Batch(), CursorHeld("default", "a", 2)) == 0
        assert await store.claim_cursor("default", "b", "two", 100.0, 30.0) == 2


async def check_competing_consumers(make_store: MakeStore) -> None:
    """Of two engines on one store, only the one that holds the subscription can acknowledge."""
    async with started(make_store) as store:
        old = await store.claim_cursor("default", "s", "one", 100.0, 30.0)
        new = await store.claim_cursor("default", "s", "two", 200.0, 30.0)
        assert (old, new) == (1, 2)
        acks = [(Batch(log=[event(n)], cursors=[Cursor("default", "s", n)]), n % 2 + 1) for n in range(1, 11)]
        outcomes = await together(store, [(batch, (CursorHeld("default", "s", fence),)) for batch, fence in acks])
        assert [isinstance(outcome, int) for outcome in outcomes] == [fence == 2 for _, fence in acks]
        found = await store.cursor("default", "s")
        assert found is not None
        assert found.position % 2 == 1
        assert await store.last_position() == 5


async def check_dead_letter_by_id(make_store: MakeStore) -> None:
    """One dead letter is found by its id, until it is removed."""
    async with started(make_store) as store:
        letter = DeadLetter("l1", "default", "s", 1, "too often", 5, 8.5)
        await store.commit(Batch(dead_letters=[letter, DeadLetter("l2", "default", "s", 2, "x", 1, 9.0)]))
        assert await store.dead_letter("l1") == letter
        assert await store.dead_letter("l3") is None
        await store.commit(Batch(dead_letters_done=["l1"]))
        assert await store.dead_letter("l1") is None
        assert [row.id for row in await store.dead_letters("default")] == ["l2"]


async def check_cursors_are_listed_and_forgotten(make_store: MakeStore) -> None:
    """A subscription that nobody holds is removed with its deliveries, and holds back retention no more."""
    async with started(make_store) as store:
        rows = [Delivery("default", name, 2, "parked", 1, 9.0) for name in ("a", "b")]
        await store.commit(
            Batch(
                log=[event(1), event(2)],
                cursors=[Cursor("default", "b", 1), Cursor("default", "a", 0), Cursor("other", "a", 2)],
                deliveries=rows,
            )
        )
        assert await store.cursors("default") == [Cursor("default", "a", 0), Cursor("default", "b", 1)]
        assert await store.claim_cursor("default", "a", "one", 100.0, 30.0) == 1
        assert not await store.forget_cursor("default", "a", 129.9)
        assert not await store.forget_cursor("default", "c", 100.0)
        assert (await store.prune(Prune(now=100.0), dry_run=True)).events == 0
        assert await store.forget_cursor("default", "a", 130.0)
        assert (await store.prune(Prune(now=100.0), dry_run=True)).events == 1
        assert await store.cursors("default") == [Cursor("default", "b", 1)]
        assert await store.deliveries("default", "a") == []
        assert await store.deliveries("default", "b") == rows[1:]
        assert await store.cursors("other") == [Cursor("other", "a", 2)]
        # Whoever held it finds its claim as it was: the fence alone says whether a subscription is theirs.
        assert await store.claim_cursor("default", "a", "two", 130.0, 30.0) == 2
        assert await store.cursor("default", "a") is None
