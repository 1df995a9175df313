"""A bus against a simple model: random emits, subscribes, acks, naks, kills and reloads, on both stores.

The model is a list of what was acknowledged and, for each durable subscription, where it began and what its handler has
settled. A kill closes the store under the engine, without a drain and without a last word to it, and opens a new engine
on what was stored; a reload closes the engine properly. After either, subscriptions come back under their names.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from eventcore import EventCore
from eventcore.bus.acks import Durable, Nak, Term
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import EventCoreError, IdempotencyConflict, StoreError
from eventcore.kernel.event import Event
from eventcore.kernel.records import Batch, Guard
from eventcore.kernel.settings import Settings
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore

PROVE = os.environ.get("EVENTCORE_PROVE") == "1"
pytestmark = [pytest.mark.violent, pytest.mark.timeout(900)]

NAMES = ("one", "two", "three")
TYPES = ("job", "task", "note")
PATTERNS = ("job", "t*", "**")
KEYS = (None, "a", "b")
MAX_DELIVER = 3
#: A retry waits longer than what follows takes, so that kills find events that are parked.
POLICY = Durable(backoff=(0.03,), max_deliver=MAX_DELIVER, max_ack_pending=4)
#: What a handler does with an event, by the number in it; the last word holds for all further attempts.
SCRIPTS = (("ack",), ("nak", "ack"), ("raise", "ack"), ("nak", "raise", "ack"), ("term",), ("raise", "raise", "dead"))
DEAD = (4, 5)


@dataclass
class Fact:
    """An event that was acknowledged."""

    id: str
    type: str
    key: str | None
    script: int
    position: int


@dataclass
class Listener:
    """What the model knows of a durable subscription.

    Attributes:
        pattern: what it listens to; the same whenever it comes back.
        begun: it gets what lies behind this position.
        calls: by position, what its handler did, over all engines; `last`: with which word it is done.
        order: by key, the positions that were handled; `early`: those that were not done when the next one came.
    """

    pattern: str
    begun: int
    live: bool = True
    calls: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    order: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    last: dict[int, str] = field(default_factory=dict)
    early: list[int] = field(default_factory=list)

    def wants(self, fact: Fact) -> bool:
        fits = self.pattern == "**" or fact.type == self.pattern or (self.pattern == "t*" and fact.type == "task")
        return fits and fact.position > self.begun


class Mortal:
    """Makes a store one whose engine can be killed: from then on it takes nothing more, as if the process were gone."""

    dead = False

    async def commit(self, batch: Batch, guards: tuple[Guard, ...] = ()) -> int:
        if self.dead:
            raise StoreError("the process is dead")
        return await super().commit(batch, guards)  # type: ignore[misc,no-any-return]

    async def release(self, owner: str) -> None:
        if not self.dead:
            await super().release(owner)  # type: ignore[misc]

    async def release_cursor(self, tenant: str, name: str, fence: int) -> None:
        if not self.dead:
            await super().release_cursor(tenant, name, fence)  # type: ignore[misc]


class MortalMemory(Mortal, MemoryStore):
    pass


class MortalSqlite(Mortal, SqliteStore):
    pass


class World(RuleBasedStateMachine):
    """See the module. `kind` is set by the tests."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.memory = MortalMemory()
        self.portal_manager = start_blocking_portal()
        self.portal: BlockingPortal = self.portal_manager.__enter__()
        self.facts: list[Fact] = []
        self.keys: dict[str, Fact] = {}
        self.listeners: dict[str, Listener] = {}
        self.subscribed: dict[str, Subscription] = {}
        self.number = 0
        self.open()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(60):
                return await work

        return self.portal.call(limited)

    # -- engines -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.store: Any = self.memory if self.kind == "memory" else MortalSqlite(self.home / "e.db")
        self.store.dead = False
        defaults = Settings.defaults()
        hasty = defaults.engine.model_copy(update={"drain_timeout": 0.05})
        self.core = EventCore(store=self.store, settings=defaults.model_copy(update={"engine": hasty}))
        self.entered = self.portal.wrap_async_context_manager(self.core)
        self.entered.__enter__()
        # The claims of an engine that was killed hold for 30 seconds, but for one that knows that it is alone.
        self.core.engine.bus.durables._alone = True
        for name, listener in self.listeners.items():
            if listener.live:
                self.listen(name, listener)

    def close(self) -> None:
        with suppress(EventCoreError):  # a killed one cannot record that it stopped
            self.entered.__exit__(None, None, None)
        self.subscribed = {}

    def listen(self, name: str, listener: Listener) -> None:
        async def handler(event: Event) -> None:
            if event.type not in TYPES:
                return
            if self.store.dead:
                await anyio.sleep_forever()
            script, done = SCRIPTS[event.data["script"]], listener.calls[event.position]
            # What was said before a kill may be forgotten, so the script counts what the bus says of this attempt.
            delivery = self.core.bus.delivery
            assert delivery is not None
            word = script[min(delivery.attempt, len(script)) - 1]
            done.append(word)
            if event.key is not None:
                before = [p for p in listener.order[event.key] if p < event.position]
                listener.early += [p for p in before if listener.last[p] not in listener.calls[p]]
                listener.order[event.key].append(event.position)
                listener.last[event.position] = script[-1]
            await anyio.lowlevel.checkpoint()
            if word == "nak":
                raise Nak(0.03)
            if word == "term":
                raise Term
            if word in ("raise", "dead"):
                raise ValueError("on purpose")

        async def subscribe() -> Subscription:
            return self.core.bus.subscribe(listener.pattern, handler, name=name, durable=POLICY)

        self.subscribed[name] = self.run(subscribe())

    # -- what happens ------------------------------------------------------------------------------------------------

    @rule(type=st.sampled_from(TYPES), key=st.sampled_from(KEYS), script=st.integers(0, len(SCRIPTS) - 1))
    def emit(self, type: str, key: str | None, script: int) -> None:
        receipt = self.run(self.core.bus.emit(type, {"script": script}, key=key))
        self.facts.append(Fact(receipt.id, type, key, script, receipt.position))

    @rule(scripts=st.lists(st.integers(0, 3), min_size=1, max_size=12), key=st.sampled_from(KEYS))
    def emit_many(self, scripts: list[int], key: str | None) -> None:
        entries = [{"type": "job", "data": {"script": script}, "key": key} for script in scripts]
        receipts = self.run(self.core.bus.emit_many(entries))
        for receipt, script in zip(receipts, scripts, strict=True):
            self.facts.append(Fact(receipt.id, "job", key, script, receipt.position))

    @rule(word=st.sampled_from("xyz"), script=st.integers(0, 1))
    def emit_once(self, word: str, script: int) -> None:
        """Under an idempotency key: the first receipt again, or a conflict."""
        known = self.keys.get(word)
        emit = self.core.bus.emit("job", {"script": script}, idempotency_key=word)
        if known is not None and known.script != script:
            with pytest.raises(IdempotencyConflict):
                self.run(emit)
            return
        receipt = self.run(emit)
        assert receipt.duplicate is (known is not None)
        if known is None:
            self.keys[word] = Fact(receipt.id, "job", None, script, receipt.position)
            self.facts.append(self.keys[word])
        else:
            assert (receipt.id, receipt.position) == (known.id, known.position)

    @rule(name=st.sampled_from(NAMES))
    def subscribe(self, name: str) -> None:
        listener = self.listeners.get(name)
        if listener is None:
            last = self.run(self.core.engine.store.last_position())
            listener = self.listeners[name] = Listener(PATTERNS[NAMES.index(name)], last)
        elif listener.live:
            return
        listener.live = True
        self.listen(name, listener)
        # Where it begins is in the first commit after it; a kill before that would let it begin later.
        self.emit("note", None, 0)

    @rule(name=st.sampled_from(NAMES))
    def unsubscribe(self, name: str) -> None:
        if name in self.subscribed:
            self.portal.call(self.core.bus.unsubscribe, self.subscribed.pop(name))
            self.listeners[name].live = False

    @rule()
    def kill(self) -> None:
        self.store.dead = True
        self.close()
        self.open()

    @rule()
    def reload(self) -> None:
        self.close()
        self.open()

    # -- what must hold ----------------------------------------------------------------------------------------------

    @rule()
    @precondition(lambda self: self.facts)
    def history_is_what_was_acknowledged(self) -> None:
        async def read() -> list[Event]:
            return [event async for event in self.core.history.query() if event.type in TYPES]

        found = [(one.id, one.type, one.key, one.data["script"], one.position) for one in self.run(read())]
        assert found == [(one.id, one.type, one.key, one.script, one.position) for one in self.facts]

    @rule()
    def come_to_rest(self) -> None:
        """When nothing moves any more, every live subscription has dealt with all that is its own."""
        for name, listener in self.listeners.items():
            if listener.live:
                self.settled(name, listener)

    def settled(self, name: str, listener: Listener) -> None:
        mine = [fact for fact in self.facts if listener.wants(fact)]

        wanted = sorted(fact.position for fact in mine if fact.script in DEAD)
        letters: list[int] = []
        unsettled: list[int] = []

        async def wait() -> None:
            nonlocal letters, unsettled
            store = self.core.engine.store
            while True:
                await self.core.drain(10)
                rows = await store.dead_letters("default", 10_000)
                letters = sorted(row.position for row in rows if row.subscription == name)
                unsettled = [row.position for row in await store.deliveries("default", name) if row.state != "settled"]
                # A retry that waits for its time is at rest for the bus, not for the model.
                if all(self.ended(fact, listener) for fact in mine) and letters == wanted and not unsettled:
                    return
                await anyio.sleep(0.002)

        try:
            self.run(wait())
        except TimeoutError:
            missing = [(fact, listener.calls.get(fact.position)) for fact in mine if not self.ended(fact, listener)]
            text = f"{name}: not dealt with {missing}; dead {letters}, should be {wanted}; unsettled {unsettled}"
            raise AssertionError(text) from None
        assert set(listener.calls) == {fact.position for fact in mine}, f"{name} got what is not its own"

    @staticmethod
    def ended(fact: Fact, listener: Listener) -> bool:
        """Whether the handler has said its last word about an event."""
        return SCRIPTS[fact.script][-1] in listener.calls.get(fact.position, ())

    @invariant()
    def events_of_one_key_are_handled_in_order(self) -> None:
        """A kill may bring back what was not stored as settled; first calls are in order all the same."""
        for listener in self.listeners.values():
            assert listener.early == []
            for positions in listener.order.values():
                firsts = list(dict.fromkeys(positions))
                assert firsts == sorted(firsts)

    def teardown(self) -> None:
        try:
            self.come_to_rest()
            if self.facts:
                self.history_is_what_was_acknowledged()
        finally:
            self.close()
            self.portal_manager.__exit__(None, None, None)
            self.folder.cleanup()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_bus_does_as_the_model_does(kind: str) -> None:
    world = type("World", (World,), {"kind": kind})
    examples, steps = (60, 40) if PROVE else (8, 25)
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
