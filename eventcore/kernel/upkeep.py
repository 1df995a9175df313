"""Counting the history, and removing from it: what is asked of a store, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

CountBy = Literal["type", "source", "actor", "status"]

#: What events can be counted by.
COUNT_BY: tuple[str, ...] = get_args(CountBy)
#: No count has more rows than this.
MAX_COUNTS = 10_000


@dataclass(frozen=True, slots=True)
class EventCount:
    """How many events there are of one value, in one stretch of time.

    Attributes:
        value: the type, source, actor or `data.status`; None for events whose data has no status.
        since: beginning of the stretch, seconds since the epoch; None where time was not cut up.
    """

    value: str | None
    since: float | None
    count: int


def ordered(counts: Mapping[tuple[str | None, float | None], int]) -> list[EventCount]:
    """Counts by (value, since) in the order of `Store.counts`."""
    rows = [EventCount(value, since, count) for (value, since), count in counts.items()]
    return sorted(rows, key=lambda row: (row.since or 0.0, -row.count, row.value or ""))


@dataclass(frozen=True, slots=True)
class Prune:
    """What to remove from the history, oldest first.

    Never removed: what a cursor has not passed, what stands in deliveries or dead letters, and what belongs to a live
    run. Step events are only hidden: their rows are their run's journal.

    Attributes:
        now: seconds since the epoch; idempotency keys that have expired by then go too.
        before: only events that happened before this; None: however young.
        tenant: only this tenant's; None: everyone's.
        patterns: only types that match one of these; empty: any.
        keep: never types that match one of these.
        limit: at most so many.
    """

    now: float
    before: float | None = None
    tenant: str | None = None
    patterns: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed: events, step events that were hidden, and expired idempotency keys."""

    events: int = 0
    steps: int = 0
    keys: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(self.events + other.events, self.steps + other.steps, self.keys + other.keys)
