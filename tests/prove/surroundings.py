"""What the tests of bad input and bad disks share: an engine to torment, and the check that nothing was lost."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Store
from eventcore.storage.sqlite import SqliteStore

PROVE = os.environ.get("EVENTCORE_PROVE") == "1"
SEED = os.environ.get("EVENTCORE_SEED") or str(random.SystemRandom().randrange(10**9))
PUBLISHERS, EACH = 20, 200 if PROVE else 25
FAST = Durable(backoff=(0.01, 0.05), max_deliver=1000)


@asynccontextmanager
async def opened(store: Store | Path, seconds: float = 100, **options: Any) -> AsyncIterator[EventCore]:
    """An engine; whatever happens with it is over in time."""
    chosen = SqliteStore(store, busy_timeout=0.1) if isinstance(store, Path) else store
    with anyio.fail_after(seconds):
        async with EventCore(store=chosen, **options) as core:
            yield core


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; the engine's time limit ends a vain wait."""
    while not condition():
        await anyio.sleep(0.005)


async def stored(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


class Work:
    """Publishers that note what was acknowledged and what was refused, and a durable subscription that takes notes."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.refused: list[EventCoreError] = []
        self.handled: Counter[int] = Counter()

    def listen(self, core: EventCore) -> None:
        async def take(event: Event) -> None:
            self.handled[event.data["n"]] += 1

        core.bus.subscribe("job", take, name="taker", durable=FAST)

    async def publish(self, core: EventCore, first: int = 0, pad: str = "", each: int = EACH) -> None:
        async def one(publisher: int) -> None:
            for turn in range(each):
                number = first + publisher * each + turn
                try:
                    receipt = await core.bus.emit("job", {"n": number, "pad": pad}, key=str(publisher))
                except EventCoreError as error:
                    self.refused.append(error)
                else:
                    self.acknowledged[receipt.id] = number

        async with anyio.create_task_group() as tasks:
            for publisher in range(PUBLISHERS):
                tasks.start_soon(one, publisher)

    async def check(self, core: EventCore) -> None:
        """Exactly what was acknowledged is there, without a hole, and all of it was or will be handled."""
        await until(lambda: self.handled.keys() >= set(self.acknowledged.values()))
        found = {event.id: event.data["n"] for event in await stored(core, "job")}
        assert found == self.acknowledged
        last = await core.engine.store.last_position()
        everything = [event.position async for event in core.history.query()]
        assert sorted(everything) == list(range(1, last + 1))
