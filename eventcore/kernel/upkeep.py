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


@dataclass(frozen=True, slots=True)
class PruneRuns:
    """Which finished runs to remove with their journals, those first that ended first.

    Never removed: a run with something left to do, one whose parent has, and one with a step event that a cursor has
    not passed or that stands in deliveries or dead letters.

    Attributes:
        before: only runs that ended before this, seconds since the epoch.
        unused_since: definitions that no kept run names go too, if they were stored before this.
        tenant: only this tenant's; None: everyone's.
        limit: at most so many runs; and no more once 5,000 journal entries have gone with them.
    """

    before: float
    unused_since: float
    tenant: str | None = None
    limit: int = 100


#: How long a definition that no run names is kept at least, in seconds. Engines store the one of a run that starts anew
#: when they have last done so half as long ago.
KEEP_UNUSED = 2 * 86400.0
#: See `PruneRuns.limit`.
MAX_ENTRIES = 5000


@dataclass(frozen=True, slots=True)
class PrunedRuns:
    """What was removed: runs, journal entries, and definitions that no run names any more."""

    runs: int = 0
    entries: int = 0
    definitions: int = 0

    def __add__(self, other: PrunedRuns) -> PrunedRuns:
        return PrunedRuns(self.runs + other.runs, self.entries + other.entries, self.definitions + other.definitions)
