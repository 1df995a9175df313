"""The port `Store`: where everything is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

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
    PluginHook,
    PluginSetting,
    PluginState,
    Run,
    RunQuery,
    Schedule,
    Snapshot,
    Timer,
)
from eventcore.kernel.upkeep import CountBy, EventCount, Prune, Pruned, PrunedRuns, PruneRuns

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
    async def prune_runs(self, request: PruneRuns, *, dry_run: bool = False) -> PrunedRuns:
        """Remove finished runs, as `PruneRuns` says, in one transaction; positions are never given again.

        Args:
            dry_run: only count the runs that would go, without the limit.
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
    async def journal_tail(self, run: str) -> tuple[Snapshot | None, list[JournalEntry]]:
        """A run's snapshot, and the journal entries after it, in order: all of them where there is none."""

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
    async def plugin_hooks(self, tenant: str) -> list[PluginHook]:
        """The functions that the operator hooked to events, by plugin, event and function."""

    @abstractmethod
    async def packages(self, tenant: str) -> list[Package]:
        """What was installed, by plugin; what was uninstalled again is among it, as `removed`."""

    @abstractmethod
    async def plugin_settings(self, tenant: str) -> list[PluginSetting]:
        """Settings of plugins that were set at run time, by plugin and key."""

    @abstractmethod
    async def memories(
        self, tenant: str, text: str, limit: int = 5, *, owner: str | None = None, until: float | None = None
    ) -> list[Memory]:
        """Memories whose query or result holds every word of `text` (case folded), newest first; all for ''.

        Args:
            owner: only those that this plugin wrote.
            until: only those from before this time.
        """

    @abstractmethod
    async def nearest(
        self, tenant: str, model: str, vector: bytes, limit: int, among: int
    ) -> list[tuple[Memory, float]]:
        """Memories by falling likeness to a vector, with it: the cosine, from 1 (the same) to -1.

        Args:
            vector: of the same form as `Memory.vector`; those of another length or model are not looked at.
            among: only the newest so many are compared.
        """

    @abstractmethod
    async def unmeasured(self, model: str, limit: int = 100) -> list[Memory]:
        """Memories of every tenant that this model was not asked about; by model, the oldest first."""

    @abstractmethod
    async def oldest_memories(self, tenant: str, limit: int = 100) -> list[Memory]:
        """A tenant's memories, oldest first."""

    @abstractmethod
    async def memory_owners(self, tenant: str) -> list[tuple[str, int, float]]:
        """Who has remembered how much, and when last; by owner."""

    @abstractmethod
    async def schedules(self, due: float, limit: int = 100) -> list[Schedule]:
        """Schedules of workflows due at or before `due`, earliest first."""

    @abstractmethod
    async def plans(
        self, due: float, limit: int = 100, *, tenant: str | None = None, owner: str | None = None
    ) -> list[Schedule]:
        """What plugins planned for `due` or before, earliest first; of one tenant or owner where they are named."""

    @abstractmethod
    async def cursor(self, tenant: str, name: str) -> Cursor | None:
        """How far a durable subscription has come, or None if it never began."""

    @abstractmethod
    async def cursors(self, tenant: str) -> list[Cursor]:
        """How far every durable subscription of a tenant has come, those that nobody consumes any more too; by name."""

    @abstractmethod
    async def forget_cursor(self, tenant: str, name: str, now: float) -> bool:
        """Remove a durable subscription's place with its deliveries; what nobody consumes holds back retention no more.

        False, and nothing is done: there is none, or somebody holds a claim on it that has not ended at `now`. Dead
        letters stay.
        """

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
