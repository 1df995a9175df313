"""How a plugin has been used, as the history tells."""

from __future__ import annotations

import math
from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.event import Event
from eventcore.kernel.records import EventQuery
from eventcore.operations.shapes import instant

#: So many of the latest calls are looked at.
LATEST = 1000
_TYPES = ("plugin_called", "plugin_error")


async def use_of(engine: Engine, slug: str) -> dict[str, Any]:
    """Calls, failures, mean and 95th percentile of their seconds, and the time of the last, of the latest 1,000 direct
    calls. Calls by a workflow's steps are told by the run."""
    query = EventQuery(tenant=engine.tenant, types=_TYPES, source=f"/plugins/{slug}", newest_first=True, limit=LATEST)
    return _summed(await engine.store.events(query))


def _summed(events: list[Event]) -> dict[str, Any]:
    seconds = sorted(float(found) for event in events if (found := _of(event, "seconds")) is not None)
    failures = sum(event.type == "plugin_error" or _of(event, "status") == "failed" for event in events)
    return {
        "count": len(events),
        "failures": failures,
        "mean_seconds": round(sum(seconds) / len(seconds), 6) if seconds else None,
        # Nearest rank: the smallest value that 95 % of the calls do not exceed.
        "p95_seconds": seconds[math.ceil(len(seconds) * 0.95) - 1] if seconds else None,
        "last": instant(events[0].at) if events else None,
    }


def _of(event: Event, key: str) -> Any:
    return event.data.get(key) if isinstance(event.data, dict) else None
