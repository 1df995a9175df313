"""The rows of the store in memory, and how a batch changes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace

from eventcore.kernel.event import Event
from eventcore.kernel.records import (
    LIVE,
    Audit,
    Batch,
    Cursor,
    DeadLetter,
    Definition,
    Delivery,
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
    RunMove,
    Schedule,
    Snapshot,
    Timer,
)
from eventcore.kernel.upkeep import MAX_ENTRIES, Prune, PrunedRuns, PruneRuns
from eventcore.storage.blobs import Blobs
from eventcore.storage.matching import matches_one


class Tables:
    """The rows, and how a batch changes them. Implements `eventcore.storage.admission.View`."""

    def __init__(self) -> None:
        # Entry n of the log has position n + 1. None: it was pruned; positions are never given again.
        self.log: list[LogEntry | None] = []
        # Indexes of step events that have left the history.
        self.hidden: set[int] = set()
        self.by_id: dict[str, list[int]] = defaultdict(list)
        self.by_run: dict[str, list[int]] = defaultdict(list)
        self.runs: dict[str, Run] = {}
        # The runs with something left to do: few, while `runs` only grows.
        self.live: dict[str, Run] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.definitions: dict[str, Definition] = {}
        self.timers: dict[str, Timer] = {}
        self.listening: dict[str, Listening] = {}
        self.keys: dict[tuple[str, str, str], Key] = {}
        self.cursors: dict[tuple[str, str], Cursor] = {}
        # Owner (None: given up), fence, end of the lease.
        self.claims: dict[tuple[str, str], tuple[str | None, int, float]] = {}
        self.deliveries: dict[tuple[str, str, int], Delivery] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self.plugin_states: dict[tuple[str, str], PluginState] = {}
        self.packages: dict[tuple[str, str], Package] = {}
        self.plugin_settings: dict[tuple[str, str, str], PluginSetting] = {}
        self.plugin_hooks: dict[tuple[str, str, str, str], PluginHook] = {}
        self.memory: dict[str, Memory] = {}
        self.schedules: dict[str, Schedule] = {}
        self.audit: list[Audit] = []
        self.blobs = Blobs()

    def run_head(self, run: str) -> tuple[int, int] | None:
        row = self.runs.get(run)
        return None if row is None else (row.version, row.fence)

    def key_expiry(self, key: tuple[str, str, str]) -> float | None:
        row = self.keys.get(key)
        return None if row is None else row.expires

    def cursor_position(self, tenant: str, name: str) -> int:
        row = self.cursors.get((tenant, name))
        return 0 if row is None else row.position

    def cursor_fence(self, tenant: str, name: str) -> int | None:
        owner, fence, _ = self.claims.get((tenant, name), (None, 0, 0.0))
        return None if owner is None else fence

    def forget_cursor(self, tenant: str, name: str, now: float) -> bool:
        """See `Store.forget_cursor`."""
        owner, _, until = self.claims.get((tenant, name), (None, 0, 0.0))
        if (tenant, name) not in self.cursors or (owner is not None and until > now):
            return False
        del self.cursors[tenant, name]
        for key in [key for key in self.deliveries if key[:2] == (tenant, name)]:
            del self.deliveries[key]
        return True

    def schedule_due(self, name: str) -> float | None:
        row = self.schedules.get(name)
        return None if row is None else row.due

    def listens(self, name: str) -> bool:
        return name in self.listening

    def live_runs(self, tenant: str, slug: str, limit_key: str | None) -> int:
        return sum(
            run.status in ("running", "waiting")
            and (run.tenant, run.slug) == (tenant, slug)
            and (limit_key is None or run.limit_key == limit_key)
            for run in self.live.values()
        )

    def _held(self) -> tuple[dict[str, int], set[int]]:
        """Where the last cursor of each tenant stands, and which positions wait for delivery or are dead letters."""
        passed: dict[str, int] = {}
        for cursor in self.cursors.values():
            passed[cursor.tenant] = min(cursor.position, passed.get(cursor.tenant, cursor.position))
        waiting = {row.position for row in self.deliveries.values()}
        return passed, waiting | {row.position for row in self.dead_letters.values()}

    def prunable(self, request: Prune) -> Iterator[int]:
        """Indexes of what may be removed, oldest first; see `Prune`."""
        passed, held = self._held()
        for index, event in self.shown(range(len(self.log))):
            if (
                (request.tenant in (None, event.tenant))
                and (request.before is None or event.at < request.before)
                and (not request.patterns or matches_one(request.patterns, event.type))
                and not matches_one(request.keep, event.type)
                and index < passed.get(event.tenant, index + 1)
                and index + 1 not in held
                and event.run not in self.live
            ):
                yield index

    def old_runs(self, request: PruneRuns) -> list[Run]:
        """The runs that may be removed, the one that ended first before others; see `PruneRuns`."""
        passed, held = self._held()
        return sorted(
            (
                run
                for run in self.runs.values()
                if run.id not in self.live
                and run.updated < request.before
                and request.tenant in (None, run.tenant)
                and (run.parent or "").partition("/")[0] not in self.live
                and not any(
                    index >= passed.get(run.tenant, index + 1) or index + 1 in held
                    for index in self.by_run.get(run.id, ())
                )
            ),
            key=lambda run: run.updated,
        )

    def forget_runs(self, runs: Sequence[Run], request: PruneRuns) -> PrunedRuns:
        """Remove these with their journals, as many as the request allows, and definitions that nobody names."""
        count = entries = 0
        for run in runs[: request.limit]:
            for index in self.by_run.pop(run.id, ()):
                entry = self.log[index]
                assert isinstance(entry, JournalEntry)
                self.by_id[entry.event.id].remove(index)
                self.log[index] = None
                self.hidden.discard(index)
                entries += 1
            self.snapshots.pop(run.id, None)
            del self.runs[run.id]
            count += 1
            if entries >= MAX_ENTRIES:
                break
        used = {run.definition for run in self.runs.values()}
        unused = [
            row.hash for row in self.definitions.values() if row.created < request.unused_since and row.hash not in used
        ]
        for name in unused:
            del self.definitions[name]
        return PrunedRuns(count, entries, len(unused))

    def apply(self, batch: Batch) -> int:
        """Store the batch; return what `commit` returns. Removals come before additions, as in every backend."""
        first = len(self.log) + 1 if batch.log else len(self.log)
        for entry in batch.log:
            self._append(entry)
        self._apply_runs(batch.runs, batch.moves)
        self._apply_removals(batch)
        self.snapshots.update((row.run, row) for row in batch.snapshots)
        self.definitions.update((row.hash, row) for row in batch.definitions)
        self.timers.update((row.id, row) for row in batch.timers)
        self.listening.update((row.id, row) for row in batch.listening)
        self.keys.update(((row.tenant, row.scope, row.key), row) for row in batch.keys)
        for begun in batch.cursors_begun:
            self.cursors.setdefault((begun.tenant, begun.name), begun)
        self.cursors.update(((row.tenant, row.name), row) for row in batch.cursors)
        self.deliveries.update(((row.tenant, row.subscription, row.position), row) for row in batch.deliveries)
        self.dead_letters.update((row.id, row) for row in batch.dead_letters)
        self.plugin_states.update(((row.tenant, row.plugin), row) for row in batch.plugin_states)
        self.packages.update(((row.tenant, row.plugin), row) for row in batch.packages)
        self.plugin_settings.update(((row.tenant, row.plugin, row.key), row) for row in batch.plugin_settings)
        self.plugin_hooks.update(((row.tenant, row.plugin, row.event, row.function), row) for row in batch.plugin_hooks)
        self.memory.update((row.id, row) for row in batch.memory)
        self.schedules.update((row.id, row) for row in batch.schedules)
        self.audit.extend(batch.audit)
        return first

    def _append(self, entry: LogEntry) -> None:
        index = len(self.log)
        self.log.append(entry)
        if isinstance(entry, JournalEntry):
            self.by_run[entry.event.run or ""].append(index)
            entry = entry.event
        else:
            self.blobs.add(entry)
        self.by_id[entry.id].append(index)

    def _apply_runs(self, runs: Iterable[Run], moves: Iterable[RunMove]) -> None:
        for run in runs:
            self._put_run(copy(run))
        for move in moves:
            run = self.runs[move.id]
            run.status, run.version, run.updated = move.status, move.version, move.updated
            run.raw_output, run.raw_error = move.raw_output, move.raw_error
            self._put_run(run)

    def _put_run(self, run: Run) -> None:
        self.runs[run.id] = run
        if run.status in LIVE:
            self.live[run.id] = run
        else:
            self.live.pop(run.id, None)

    def _apply_removals(self, batch: Batch) -> None:
        for run in batch.snapshots_done:
            self.snapshots.pop(run, None)
        for timer in batch.timers_done:
            self.timers.pop(timer, None)
        for listening in batch.listening_done:
            self.listening.pop(listening, None)
        for delivery in batch.deliveries_done:
            self.deliveries.pop(delivery, None)
        for letter in batch.dead_letters_done:
            self.dead_letters.pop(letter, None)
        for memory in batch.memory_done:
            self.memory.pop(memory, None)
        for setting in batch.plugin_settings_done:
            self.plugin_settings.pop(setting, None)
        for hook in batch.plugin_hooks_done:
            self.plugin_hooks.pop(hook, None)
        for schedule in batch.schedules_done:
            self.schedules.pop(schedule, None)

    def give_up(self, cursor: tuple[str, str]) -> None:
        self.claims[cursor] = (None, self.claims[cursor][1], 0.0)

    def event_at(self, index: int) -> Event:
        """The log entry as an event of its own: nobody can change what the store holds through it."""
        entry = self.log[index]
        assert entry is not None
        event = entry.event if isinstance(entry, JournalEntry) else entry
        return replace(event, position=index + 1, _data=[])

    def shown(self, indexes: Iterable[int]) -> Iterator[tuple[int, Event]]:
        """The events of the history at these indexes, as they are in the log."""
        for index in indexes:
            entry = self.log[index]
            if entry is not None and index not in self.hidden:
                yield index, entry.event if isinstance(entry, JournalEntry) else entry

    def remove(self, index: int) -> None:
        """Take an event out of the history; of a step event the journal keeps the row."""
        entry = self.log[index]
        if isinstance(entry, JournalEntry):
            self.hidden.add(index)
        elif entry is not None:
            self.blobs.remove(entry)
            self.by_id[entry.id].remove(index)
            self.log[index] = None
