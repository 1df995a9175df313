"""What the store holds: plain rows, and the batch that changes them.

Payloads are JSON bytes (`raw_*`), encoded once at the edge and never looked into by a store. Every row carries its
tenant. Times are seconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from eventcore.kernel.context import PathEntry
from eventcore.kernel.event import Event
from eventcore.kernel.plugin_records import Memory as Memory
from eventcore.kernel.plugin_records import Package as Package
from eventcore.kernel.plugin_records import PluginHook as PluginHook
from eventcore.kernel.plugin_records import PluginSetting as PluginSetting
from eventcore.kernel.plugin_records import PluginState as PluginState
from eventcore.kernel.quick import Lately, late_list

RunStatus = Literal["queued", "running", "waiting", "paused", "completed", "failed", "cancelled", "terminated"]

#: Statuses in which a run still has something to do.
LIVE: frozenset[str] = frozenset({"queued", "running", "waiting", "paused"})


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One step event of a run: at once what history shows and what recovery reads, in one row.

    Attributes:
        event: the `step_*` event; its `run` and `subject` (the step's path) are set.
        attempt: 1 for the first try of a step.
    """

    event: Event
    attempt: int

    @property
    def step(self) -> str:
        """The step's path, `notify[3]/inner`."""
        return self.event.subject or ""


#: What a batch puts into the log, in order. Positions follow that order.
LogEntry: TypeAlias = Event | JournalEntry


@dataclass(slots=True)
class Run:
    """One execution of a workflow: the head row. The journal has the rest.

    Attributes:
        definition: hash of the definition that the run is pinned to.
        version: counts the commits that changed the run; guards check it.
        actor, roles: `run_as`, the starter's.
        trigger: id of the trigger that started it, or None.
        chain: causal path, host-only.
        owner, fence, lease_until: which engine drives it, under which claim, until when.
        parent: `run/step path` of the run that started it, or None.
        start_key: the event that made the run start; its position is where the run's look-back begins.
    """

    id: str
    tenant: str
    slug: str
    definition: str
    status: RunStatus
    raw_inputs: bytes
    actor: str
    roles: tuple[str, ...]
    created: float
    updated: float
    version: int = 1
    raw_output: bytes | None = None
    raw_error: bytes | None = None
    correlation_id: str = ""
    causation_id: str | None = None
    hops: int = 0
    chain: tuple[PathEntry, ...] = ()
    traceparent: str | None = None
    trigger: str | None = None
    raw_trigger_event: bytes | None = None
    parent: str | None = None
    limit_key: str | None = None
    owner: str | None = None
    fence: int = 0
    lease_until: float = 0.0


@dataclass(frozen=True, slots=True)
class RunMove:
    """A change of a run's head row. The guard `RunAt` says from which version."""

    id: str
    status: RunStatus
    version: int
    updated: float
    raw_output: bytes | None = None
    raw_error: bytes | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run had come to after the journal entry at `position`; a run has at most one. The journal stays the truth.

    Attributes:
        count: journal entries up to there.
        format, reader: of what wrote `raw`; anything else does not read it.
        digest: of `raw`, to notice damage.
    """

    run: str
    tenant: str
    position: int
    count: int
    format: int
    reader: str
    digest: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow definition by content hash, kept while a kept run names it."""

    hash: str
    tenant: str
    slug: str
    raw: bytes
    created: float


@dataclass(frozen=True, slots=True)
class Timer:
    """Something to do at a time: wake a run's step."""

    id: str
    tenant: str
    due: float
    run: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Listening:
    """A run's step waits for an event of this type or pattern; `raw` says what of it must fit."""

    id: str
    tenant: str
    run: str
    path: str
    event: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key and what was done under it.

    Attributes:
        scope: what kind of thing the key belongs to, such as `emit:/source` or `start:slug`.
        digest: hash of the request, so that the same key with another request is noticed.
        ref: id of the event or run that came of it.
        expires: when the key may be forgotten.
    """

    tenant: str
    scope: str
    key: str
    digest: str
    ref: str
    expires: float


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a durable subscription has come: everything up to `position` is settled, or stands in a `Delivery`."""

    tenant: str
    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event of a durable subscription that is not settled, or settled above the cursor.

    Attributes:
        state: `parked`: an attempt failed, the next is due at `next_at`; `pending`: to be delivered although the cursor
            may be past it (a dead letter that was redriven); `settled`: done with, above the cursor.
        attempt: how many attempts have failed.
    """

    tenant: str
    subscription: str
    position: int
    state: Literal["pending", "parked", "settled"]
    attempt: int
    next_at: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a subscription gave up on."""

    id: str
    tenant: str
    subscription: str
    position: int
    reason: str
    attempts: int
    at: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Something planned for later or again and again; the next occurrence is `due`.

    Attributes:
        owner: the plugin that planned it; empty for a trigger of a workflow.
    """

    id: str
    tenant: str
    due: float
    raw: bytes
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """Who changed what. Kept apart from the retention of events."""

    id: str
    tenant: str
    at: float
    actor: str
    action: str
    target: str
    raw_old: bytes | None = None
    raw_new: bytes | None = None


class Batch(Lately):
    """Everything one commit changes: all of it or nothing. Lists are made at the first touch: most batches have two.

    `log` is in order; the rest is not. A row that exists is replaced, but for runs (added with `runs`, changed with
    `moves`), keys (only ever added), `cursors_begun` (stored only where there is no such cursor) and audit and log
    (append only).
    """

    log: list[LogEntry] = late_list()
    runs: list[Run] = late_list()
    moves: list[RunMove] = late_list()
    snapshots: list[Snapshot] = late_list()
    snapshots_done: list[str] = late_list()
    definitions: list[Definition] = late_list()
    timers: list[Timer] = late_list()
    timers_done: list[str] = late_list()
    listening: list[Listening] = late_list()
    listening_done: list[str] = late_list()
    keys: list[Key] = late_list()
    cursors: list[Cursor] = late_list()
    cursors_begun: list[Cursor] = late_list()
    deliveries: list[Delivery] = late_list()
    deliveries_done: list[tuple[str, str, int]] = late_list()
    dead_letters: list[DeadLetter] = late_list()
    dead_letters_done: list[str] = late_list()
    plugin_states: list[PluginState] = late_list()
    packages: list[Package] = late_list()
    plugin_settings: list[PluginSetting] = late_list()
    plugin_settings_done: list[tuple[str, str, str]] = late_list()
    plugin_hooks: list[PluginHook] = late_list()
    plugin_hooks_done: list[tuple[str, str, str, str]] = late_list()
    memory: list[Memory] = late_list()
    memory_done: list[str] = late_list()
    schedules: list[Schedule] = late_list()
    schedules_done: list[str] = late_list()
    audit: list[Audit] = late_list()

    def __init__(self, log: list[LogEntry] | None = None, **rows: list[Any]) -> None:
        if log is not None:
            self.log = log
        for name, given in rows.items():
            if name not in Batch.__annotations__:
                raise TypeError(f"a batch has no {name}")
            setattr(self, name, given)

    @property
    def touched(self) -> Mapping[str, list[Any]]:
        """Its lists by field, but for those that nobody has touched: they are empty."""
        return self.__dict__

    def add(self, other: Batch) -> None:
        """Append everything of `other`."""
        for name, rows in other.__dict__.items():
            if rows:
                getattr(self, name).extend(rows)

    def __bool__(self) -> bool:
        return any(self.__dict__.values())


# Guards: conditions checked inside the commit's transaction. One that does not hold fails its own batch with `Conflict`
# and no other batch of the group.


@dataclass(frozen=True, slots=True)
class RunAt:
    """The run is at this version and, where a fence is given, still under this claim."""

    run: str
    version: int
    fence: int | None = None


@dataclass(frozen=True, slots=True)
class KeyAbsent:
    """The key is not there, or has expired at `now`."""

    tenant: str
    scope: str
    key: str
    now: float


@dataclass(frozen=True, slots=True)
class CursorAt:
    """The cursor stands at this position (0: there is none)."""

    tenant: str
    name: str
    position: int


@dataclass(frozen=True, slots=True)
class CursorHeld:
    """The durable subscription is still under the claim that had this fence; see `Store.claim_cursor`."""

    tenant: str
    name: str
    fence: int


@dataclass(frozen=True, slots=True)
class LiveRunsBelow:
    """Fewer than `limit` runs of this slug (and limit key, where given) are running or waiting."""

    tenant: str
    slug: str
    limit: int
    limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleAt:
    """The schedule is there, and due at just this time: nobody has changed, done or given it up."""

    id: str
    due: float


@dataclass(frozen=True, slots=True)
class StillListening:
    """The row of what a step waits for is there: nothing has ended the wait."""

    id: str


Guard: TypeAlias = RunAt | KeyAbsent | CursorAt | CursorHeld | LiveRunsBelow | ScheduleAt | StillListening


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which part of the history to read: all conditions hold at once; None means any.

    Attributes:
        types: exact event types.
        pattern: an event pattern (`workflow_*`).
        since, until: half-open interval of event time, seconds since the epoch.
        text: words that all stand in type, subject, actor or payload, case folded.
        where: (path, JSON value) pairs; each path (`data.items[0].sku`) must lead to a value equal to the given one.
        after, before: positions, exclusive: keyset pagination.
        newest_first: order by falling position.
        limit: at most so many rows.
    """

    tenant: str | None = None
    types: tuple[str, ...] = ()
    pattern: str | None = None
    source: str | None = None
    subject: str | None = None
    actor: str | None = None
    run: str | None = None
    correlation_id: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None
    where: tuple[tuple[str, bytes], ...] = ()
    after: int | None = None
    before: int | None = None
    newest_first: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, newest first; None means any. `before` is a run id (ids sort by time): keyset pagination."""

    tenant: str | None = None
    slug: str | None = None
    statuses: Sequence[str] = ()
    before: str | None = None
    limit: int = 100
