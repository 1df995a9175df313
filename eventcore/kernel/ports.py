"""The ports: what the engine needs from outside itself. The docstrings are the contracts.

Each has at least two implementations that pass the same tests (`eventcore.testing`). Only `eventcore.app` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import StoreError
from eventcore.kernel.event import Event
from eventcore.kernel.records import (
    Audit,
    Batch,
    Cursor,
    DeadLetter,
    Definition,
    Delivery,
    EventQuery,
    Guard,
    JournalEntry,
    Key,
    Listening,
    LogEntry,
    Memory,
    Package,
    PluginSetting,
    PluginState,
    Run,
    RunQuery,
    Schedule,
    Timer,
)
from eventcore.kernel.upkeep import CountBy, EventCount, Prune, Pruned


class Clock(Protocol):
    """Time. `now` may jump, `monotonic` never does; durations are measured with the latter."""

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""
        ...


class Ids(Protocol):
    """Makes identifiers."""

    def new(self) -> str:
        """A fresh id; later ones sort after earlier ones."""
        ...


class Randomness(Protocol):
    """Randomness, so that tests can fix it."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def bits(self, count: int) -> int:
        """`count` random bits; not for secrets."""
        ...

    def token(self, size: int = 32) -> str:
        """A URL-safe secret of `size` random bytes."""
        ...


class Faults(Protocol):
    """Named fault points; see `eventcore.kernel.faults`."""

    def reach(self, point: str) -> None:
        """The code has come to `point`. May not return."""
        ...


class Metrics(Protocol):
    """Counters, histograms and gauges. Label values must come from a bounded set (slugs, types, outcomes)."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to the counter `name`."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record a value (seconds, bytes) in the histogram `name`."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set the gauge `name`."""
        ...

    def collector(self, collect: Callable[[], None]) -> None:
        """Call `collect` before each reading: it records what is counted elsewhere because it happens too often."""
        ...

    def text(self) -> str:
        """Everything in the Prometheus text format."""
        ...


class Secrets(Protocol):
    """Named secrets. Their values never enter history, logs or errors."""

    def get(self, name: str) -> str | None:
        """The value, or None."""
        ...


#: Called for each commit, in order of position, after it is durable and before the committer is told. Events that were
#: recorded one by one at the same time may come in one call.
CommitListener = Callable[[Sequence[LogEntry]], None]


class Store(ABC):
    """Where everything is kept. One commit changes everything it names, or nothing.

    Positions start at 1, rise by one with each log entry, and become visible in order. A reader that starts after
    `commit` returned sees that commit. Two engines may share one store object; each names itself in `claim`.
    """

    @abstractmethod
    async def start(self, stack: AsyncExitStack) -> None:
        """Open, migrate, and push the closing onto `stack`, which the caller owns.

        Raises:
            StoreError: it cannot be opened; the message says why and what to do.
        """

    @abstractmethod
    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        """Check the guards and apply the batch, in one transaction; return when it is durable.

        Batches committed at the same time may share a transaction: each sees those before it, and each fails alone.
        The log entries get their positions (`event.position` is set); the first one is returned, or the position
        of the last entry ever stored if the batch's log is empty. Listeners are called before this returns.
        Cancelling the caller does not undo a commit that has begun.

        Raises:
            Conflict: a guard does not hold; `guard` says which. Nothing of the batch is stored.
            StoreError: the store cannot write. Nothing of the batch is stored.
        """

    async def record(self, event: Event) -> int:
        """`commit` of one event and nothing else; returns its position. For stores that have a shorter way for it."""
        return await self.commit(Batch([event]))

    @abstractmethod
    def watch(self, listener: CommitListener) -> Callable[[], None]:
        """Call `listener` with the log entries of every later commit, whoever made it; return what stops that."""

    @abstractmethod
    async def last_position(self) -> int:
        """The position of the newest log entry, 0 in an empty store."""

    @abstractmethod
    async def event(self, event_id: str, tenant: str | None = None, source: str | None = None) -> Event | None:
        """One event or step event by id. Foreign ids may repeat over sources and tenants; the oldest is meant."""

    @abstractmethod
    async def blob(self, tenant: str, digest: str) -> bytes | None:
        """A payload that was too large for the log, by its SHA-256 (hex); None once no event names it any more."""

    @abstractmethod
    async def events(self, query: EventQuery) -> list[Event]:
        """One page of history; step events stand in it at their positions.

        Raises:
            InvalidInput: the pattern, or a path of `where`, is none.
        """

    @abstractmethod
    async def counts(self, query: EventQuery, by: CountBy, every: float | None = None) -> list[EventCount]:
        """How many events fit the query, by a field and stretches of `every` seconds (which begin at the epoch).

        Order, positions and limit of the query do not count but for `after` and `before`. Sorted by time, then by
        falling count, then by value; at most `MAX_COUNTS` rows.
        """

    @abstractmethod
    async def prune(self, request: Prune, *, dry_run: bool = False) -> Pruned:
        """Remove one batch, as `Prune` says, in one transaction; positions are never given again.

        Args:
            dry_run: only count what would go, without the limit.
        """

    @abstractmethod
    async def size(self) -> int:
        """Bytes in use, without what is free to be used again."""

    async def backup(self, target: Path) -> None:
        """Copy everything to a new file, as it is at one moment, while work goes on.

        Raises:
            StoreError: this store has no file; or the target exists or cannot be written.
        """
        raise StoreError("this store is not in a file, so there is nothing to copy")

    @abstractmethod
    async def journal(self, run: str) -> list[JournalEntry]:
        """All journal entries of a run, in order."""

    @abstractmethod
    async def run(self, run_id: str) -> Run | None:
        """One run's head row."""

    @abstractmethod
    async def runs(self, query: RunQuery) -> list[Run]:
        """One page of runs, newest first."""

    @abstractmethod
    async def definition(self, digest: str) -> Definition | None:
        """A definition by hash."""

    @abstractmethod
    async def timers(self, due: float, limit: int = 100) -> list[Timer]:
        """Timers due at or before `due`, earliest first."""

    @abstractmethod
    async def next_timer(self) -> float | None:
        """When the earliest timer is due, or None."""

    @abstractmethod
    async def listening(self, after: str = "", limit: int = 1000) -> list[Listening]:
        """Steps that wait for events, by id, from the id after `after` on."""

    @abstractmethod
    async def key(self, tenant: str, scope: str, key: str, now: float) -> Key | None:
        """An idempotency key that has not expired at `now`."""

    @abstractmethod
    async def plugin_states(self, tenant: str) -> list[PluginState]:
        """All plugin states of a tenant."""

    @abstractmethod
    async def packages(self, tenant: str) -> list[Package]:
        """What was installed, by plugin; what was uninstalled again is among it, as `removed`."""

    @abstractmethod
    async def plugin_settings(self, tenant: str) -> list[PluginSetting]:
        """Settings of plugins that were set at run time, by plugin and key."""

    @abstractmethod
    async def memories(self, tenant: str, text: str, limit: int = 5) -> list[Memory]:
        """Memories whose query or result holds every word of `text` (case folded), newest first; all for ''."""

    @abstractmethod
    async def schedules(self, due: float, limit: int = 100) -> list[Schedule]:
        """Schedules due at or before `due`, earliest first."""

    @abstractmethod
    async def cursor(self, tenant: str, name: str) -> Cursor | None:
        """How far a durable subscription has come, or None if it never began."""

    @abstractmethod
    async def deliveries(self, tenant: str, subscription: str, limit: int = 1000) -> list[Delivery]:
        """A durable subscription's unsettled events and those settled above its cursor, by position."""

    @abstractmethod
    async def dead_letters(self, tenant: str, limit: int = 100) -> list[DeadLetter]:
        """Events that were given up on, newest first."""

    @abstractmethod
    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        """One dead letter by id."""

    @abstractmethod
    async def claim_cursor(self, tenant: str, name: str, owner: str, now: float, lease: float) -> int | None:
        """Take a durable subscription, so that no other engine consumes it; return the claim's fence.

        Succeeds if nobody holds it, `owner` does, or the holder's lease has ended at `now`. The fence rises by one with
        each claim, the lease ends at `now + lease` (seconds). None: somebody else holds it. `renew` and `release` are
        for these claims as for those of runs. The guard `CursorHeld` checks the fence.
        """

    @abstractmethod
    async def release_cursor(self, tenant: str, name: str, fence: int) -> None:
        """Give up the claim that has this fence, if it still holds. The fence is void from then on."""

    @abstractmethod
    async def audit(self, tenant: str | None = None, limit: int = 100) -> list[Audit]:
        """Audit entries, newest first."""

    @abstractmethod
    async def claim(self, owner: str, now: float, lease: float, limit: int = 100, run: str | None = None) -> list[Run]:
        """Take over live runs that nobody holds or whose lease has ended at `now`.

        Each claimed run's fence rises by one, its owner becomes `owner` and its lease ends at `now + lease` (seconds),
        in one transaction. Runs that `owner` holds already are not returned. Paused runs are not claimed.
        With `run` only this one is: whatever its status, and also if `owner` holds it already.
        """

    @abstractmethod
    async def renew(self, owner: str, now: float, lease: float) -> int:
        """Extend the leases of live runs and cursors of `owner` to `now + lease`; return how many runs there are."""

    @abstractmethod
    async def release(self, owner: str) -> None:
        """Give up all claims of `owner`, on runs and cursors, as a clean stop does."""


@dataclass(slots=True)
class Invocation:
    """What came of calling an intent.

    Attributes:
        result: the JSON value that the handler returned.
        provider: the slug of the plugin that answered, or `host` for an in-process function.
        effects: staged changes (emits, memory, workflow starts) that the caller commits together with the outcome.
        guards: guards that those effects need.
        stdout, stderr: what the handler printed, capped.
    """

    result: Any
    provider: str
    effects: Batch = field(default_factory=Batch)
    guards: tuple[Guard, ...] = ()
    stdout: str = ""
    stderr: str = ""


class Invoker(Protocol):
    """How a workflow reaches what answers its steps."""

    def knows(self, intent: str, tenant: str) -> bool:
        """Whether somebody answers this intent now."""
        ...

    async def invoke(
        self, intent: str, params: Mapping[str, Any], context: CallContext, metadata: Mapping[str, Any]
    ) -> Invocation:
        """Call an intent and return its result with its staged effects, uncommitted.

        Raises:
            UnknownIntent: nobody answers it.
            AccessDenied: the context's roles do not suffice.
            PluginFailed: it raised, crashed, or ran over its time limit.
        """
        ...


class WorkflowStarter(Protocol):
    """How a plugin starts a workflow."""

    def knows(self, slug: str, tenant: str) -> bool:
        """Whether this slug is defined."""
        ...

    def stage_start(
        self, slug: str, inputs: Mapping[str, Any], context: CallContext, *, key: str | None = None
    ) -> tuple[Batch, tuple[Guard, ...], str]:
        """The changes that start a run, not committed, with their guards and the run's id.

        Raises:
            UnknownWorkflow: no such slug; the message names the places searched.
            InvalidPayload: the inputs do not fit the definition's schema.
        """
        ...


class Contributor(Protocol):
    """Adds changes to a commit before it is made: the trigger matcher of workflows is one."""

    def contribute(self, entries: Sequence[LogEntry]) -> tuple[Batch, tuple[Guard, ...]] | None:
        """What else must be in the commit that holds these log entries, or None. Shown its own additions as well."""
        ...


#: Answers a request that plugin code made through its `ctx`: (method, params) -> JSON value.
HostApi = Callable[[str, dict[str, Any]], Any]


class Worker(Protocol):
    """One running instance of a plugin's code, wherever it runs (subprocess, container, in-process by trust)."""

    @property
    def alive(self) -> bool:
        """Whether it can still be called."""
        ...

    async def call(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        timeout: float,
        host: HostApi | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Ask the worker for something and wait.

        Args:
            kind: `load`, `run`, `hook`, `event`, `command`, `health` or `cleanup`.
            params: JSON, as that kind needs it.
            timeout: seconds; when they are over the worker is killed.
            host: answers the requests that the code makes while it runs. An async function; its errors are
                handed to the plugin's code.
            context: `tenant`, `actor` and `permissions`, as `ctx` tells them to the code.

        Returns:
            `{"result": JSON, "stdout": str, "stderr": str}`.

        Raises:
            PluginFailed: the code raised; `kind` and `trace` tell what.
            PluginTimeout: it ran over; the worker is dead.
            Interrupted: the worker died under it.
        """
        ...

    async def close(self, grace: float = 5.0) -> None:
        """Let running calls finish for at most `grace` seconds, call the plugin's `cleanup`, and end the process."""
        ...
