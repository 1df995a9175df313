"""Replays: the past once more, for one subscription."""

from __future__ import annotations

from typing import Any

from eventcore.bus.replay import Speed
from eventcore.engine import Engine
from eventcore.operations.times import when


async def replay(
    engine: Engine,
    subscription: str,
    since: str | float | None = None,
    until: str | float | None = None,
    speed: Speed = "instant",
    dry_run: bool = False,
    job: str | None = None,
) -> dict[str, Any]:
    """Deliver past events again to one subscription of this engine; returns when that is done."""
    report = await engine.bus.replay(
        subscription, since=when(since, "since"), until=when(until, "until"), speed=speed, dry_run=dry_run, job=job
    )
    return {
        "subscription": report.subscription,
        "matched": report.matched,
        "delivered": report.delivered,
        "failed": report.failed,
        "dry_run": report.dry_run,
        "last": report.last,
        "failures": [
            {
                "event": event.id,
                "position": event.position,
                "type": event.type,
                "status": outcome.status,
                "seconds": outcome.seconds,
                "error": outcome.error,
            }
            for event, outcome in report.failures
        ],
    }
