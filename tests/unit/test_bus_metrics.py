"""What the bus counts."""

from __future__ import annotations

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import BusOverflow, RateLimited
from eventcore.kernel.event import Event
from eventcore.observe.metrics import PrometheusMetrics

pytestmark = pytest.mark.anyio


def value(core: EventCore, series: str) -> float:
    lines = dict(line.rsplit(" ", 1) for line in core.metrics.text().splitlines() if not line.startswith("#"))
    return float(lines.get(series, "0"))


async def test_emits_deliveries_and_outcomes(core: EventCore) -> None:
    core.bus.declare("tick", transient=True)

    async def fails(event: Event) -> None:
        raise ValueError("no")

    core.bus.subscribe("*", lambda event: None, name="fine")
    core.bus.subscribe("x", fails, name="broken", timeout=60)
    for _ in range(3):
        await core.bus.emit("x")
        await core.bus.emit("tick")
    await core.bus.emit_many([("x", 1), ("x", 2)])
    await core.bus.emit("x", idempotency_key="k")
    await core.bus.emit("x", idempotency_key="k")
    await core.drain()
    assert value(core, 'eventcore_emits_total{type="x"}') == 6
    assert value(core, 'eventcore_emits_total{type="tick"}') == 3
    assert value(core, 'eventcore_deliveries_total{outcome="error",subscription="broken"}') == 6
    fine = 'eventcore_deliveries_total{outcome="ok",subscription="fine"}'
    assert value(core, fine) == 9 + 6  # the six plugin_error as well
    assert value(core, fine) == 15  # reading counts nothing


async def test_backlog_and_overflow(core: EventCore) -> None:
    go = anyio.Event()

    async def stuck(event: Event) -> None:
        await go.wait()

    subscription = core.bus.subscribe("x", stuck, name="stuck", buffer=2, overflow="error")
    dropping = core.bus.subscribe("x", stuck, name="dropping", buffer=2, overflow="drop_newest")
    for _ in range(2):
        await core.bus.emit("x")
        await anyio.wait_all_tasks_blocked()
    await core.bus.emit("x")
    with pytest.raises(BusOverflow):
        await core.bus.emit("x")
    backlog = 'eventcore_subscription_backlog{subscription="stuck"}'
    assert value(core, backlog) == subscription.backlog == 2
    core.bus.unsubscribe(subscription)
    await anyio.wait_all_tasks_blocked()
    await core.bus.emit("x")
    assert (
        value(core, 'eventcore_overflows_total{policy="drop_newest",subscription="dropping"}') == dropping.dropped == 1
    )
    assert value(core, 'eventcore_deliveries_total{outcome="skipped",subscription="dropping"}') == 1
    assert value(core, backlog) == 0
    assert value(core, 'eventcore_deliveries_total{outcome="cancelled",subscription="stuck"}') == 3
    go.set()


async def test_streams_are_one_series(core: EventCore) -> None:
    for _ in range(3):
        async with core.bus.stream("x") as stream:
            await core.bus.emit("x")
            await anext(stream)
            await core.drain()
    text = core.metrics.text()
    assert 'eventcore_deliveries_total{outcome="ok",subscription="stream"} 3.0' in text
    assert "stream-" not in text


async def test_loops_are_counted(core: EventCore) -> None:
    async def echo(event: Event) -> None:
        await core.bus.emit("x")

    core.bus.subscribe("x", echo, ignore_self=False)
    await core.bus.emit("x")
    await core.drain()
    assert value(core, 'eventcore_loops_total{reason="loop"}') == 1
    core.bus.declare("tick", transient=True)
    with pytest.raises(RateLimited):
        await core.bus.emit_many([("tick", None)] * 10_000, context=CallContext(actor="plugin:p"))
    assert value(core, 'eventcore_loops_total{reason="rate"}') == 1


async def test_endlessly_many_types_are_no_endless_series(core: EventCore) -> None:
    for number in range(1200):
        core.bus.declare(f"t{number}", transient=True)
        await core.bus.emit(f"t{number}")
    assert len(core.bus._tally._emits) <= 1001
    assert value(core, 'eventcore_emits_total{type="other"}') >= 199


async def test_pending_emits(core: EventCore) -> None:
    pending = [core.bus.emit_nowait("x") for _ in range(5)]
    assert value(core, "eventcore_pending_emits") == 5
    await pending[-1]
    await core.drain()
    assert value(core, "eventcore_pending_emits") == 0


def test_a_collector_that_fails_does_not_stop_the_reading(caplog: pytest.LogCaptureFixture) -> None:
    metrics = PrometheusMetrics()

    def broken() -> None:
        raise RuntimeError("no")

    metrics.collector(broken)
    metrics.collector(lambda: metrics.gauge("eventcore_pending_emits", 7))
    assert "eventcore_pending_emits 7.0" in metrics.text()
    assert "could not be collected" in caplog.text
    strict = PrometheusMetrics(strict=True)
    strict.collector(broken)
    with pytest.raises(RuntimeError):
        strict.text()
