"""100,000 events to a stuck subscriber: what memory they take, by overflow rule."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import BusOverflow
from eventcore.kernel.event import Event

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

MANY = 100_000
#: MiB that the process may grow by. 100,000 buffered events would take about 80.
MOST = 24


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    """Not the debug mode of the other tests, which keeps a traceback for each task and future."""
    return "asyncio", {}


@pytest.fixture
async def core(anyio_backend: Any, tmp_path: Path) -> AsyncIterator[EventCore]:
    with anyio.fail_after(280):
        async with EventCore(store=f"sqlite:///{tmp_path}/e.db") as engine:
            yield engine


class Stuck:
    """A handler that holds its first event until told."""

    def __init__(self) -> None:
        self.go, self.began = anyio.Event(), anyio.Event()
        self.got: list[Any] = []

    async def __call__(self, event: Event) -> None:
        self.began.set()
        await self.go.wait()
        self.got.append(event.data)


def resident() -> float:
    """MiB of memory that the process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def begin(core: EventCore, policy: Any) -> tuple[Any, Stuck]:
    stuck = Stuck()
    subscription = core.bus.subscribe("x", stuck, name="stuck", buffer=1000, overflow=policy, timeout=600)
    await core.bus.emit("x", -1)
    await stuck.began.wait()
    return subscription, stuck


async def overflows(core: EventCore) -> list[tuple[str, str]]:
    found = [event async for event in core.history.query(type="bus_overflow")]
    return [(event.data["subscription"], event.data["policy"]) for event in found]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "error"])
async def test_transient_events(core: EventCore, policy: Any) -> None:
    core.bus.declare("x", transient=True)
    subscription, stuck = await begin(core, policy)
    before, refused = resident(), 0
    for number in range(MANY):
        try:
            await core.bus.emit("x", number)
        except BusOverflow:
            refused += 1
    grown = resident() - before
    print(f"{policy}: {grown:.1f} MiB for {MANY:,} events", file=sys.stderr)
    assert grown < MOST
    assert subscription.backlog == 1000
    assert (refused if policy == "error" else subscription.dropped) == MANY - 1000
    stuck.go.set()
    await core.bus.drain()
    kept = range(MANY - 1000, MANY) if policy == "drop_oldest" else range(1000)
    assert stuck.got == [-1, *kept]
    assert await overflows(core) == ([] if policy == "error" else [("stuck", policy)])


@pytest.mark.parametrize("policy", ["block", "spill"])
async def test_recorded_events(core: EventCore, policy: Any) -> None:
    subscription, stuck = await begin(core, policy)
    # A blocked emit takes its second, so blocked ones come in large batches.
    size = 10_000 if policy == "block" else 1000
    numbers = iter(range(MANY))
    warm = 3  # what the first batches take is kept for the next ones
    for _ in range(warm):
        await core.bus.emit_many([("x", next(numbers)) for _ in range(size)])
    before = resident()
    for _ in range(MANY // size - warm):
        await core.bus.emit_many([("x", next(numbers)) for _ in range(size)])
    grown = resident() - before
    print(f"{policy}: {grown:.1f} MiB for {MANY:,} events", file=sys.stderr)
    assert grown < MOST
    assert subscription.backlog <= 1000
    assert await core.engine.store.last_position() >= MANY
    stuck.go.set()
    await core.bus.drain()
    assert stuck.got == [-1, *(range(MANY) if policy == "spill" else range(1000))]
    assert subscription.dropped == (0 if policy == "spill" else MANY - 1000)
    assert await overflows(core) == [("stuck", policy)]
