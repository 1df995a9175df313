"""Lets queued runs begin when there is room: limits, rates, priorities, and turns between tenants.

What counts is always the rows that are live: the guard `LiveRunsBelow` is checked inside the commit that begins a run.
Nothing is counted here, so no slot can leak.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup

from eventcore.kernel.errors import Conflict, EventCoreError
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import LiveRunsBelow, LogEntry, Run, RunQuery
from eventcore.workflows.launch import Launcher
from eventcore.workflows.pinned import plan_of
from eventcore.workflows.plan import Plan
from eventcore.workflows.registry import Registry
from eventcore.workflows.saving import Commit
from eventcore.workflows.ticks import Asked

log = logging.getLogger("eventcore.workflows")

_PAGE = 10_000
#: Seconds after which a queue is looked at again, whatever was heard.
_LOOK = 30.0


@dataclass(frozen=True, slots=True)
class Queued:
    """A run that waits for its turn."""

    id: str
    tenant: str
    key: str | None
    created: float
    priority: int
    hash: str


class Gate:
    """One an engine.

    Attributes:
        cancel: asks a run for something; see `Runner.ask`.
    """

    def __init__(self, store: Store, commit: Commit, clock: Clock, registry: Registry, launcher: Launcher) -> None:
        self._store, self._commit, self._clock = store, commit, clock
        self._registry, self._launcher = registry, launcher
        self._queues: dict[str, dict[str, Queued]] = {}
        #: How often each tenant had its turn, by slug.
        self._turns: Counter[tuple[str, str]] = Counter()
        self._began: dict[tuple[str, str], deque[float]] = {}
        self._bell = anyio.Event()
        self.cancel: Callable[[str, Asked], Awaitable[Any]] | None = None

    async def start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        """Begin to let runs in. What is queued in the store comes through `add`, once it is this engine's."""
        stack.callback(self._store.watch(self._committed))
        tasks.start_soon(self._keep, name="eventcore queued runs")

    def add(self, run: Run) -> None:
        """A run waits for its turn."""
        plan = self._registry.pinned(run.definition)
        priority = plan.workflow.priority if plan else 0
        row = Queued(run.id, run.tenant, run.limit_key, run.created, priority, run.definition)
        self._queues.setdefault(run.slug, {})[run.id] = row
        self._bell.set()

    def ended(self, then: Callable[[Event], None]) -> Callable[[Event], None]:
        """Hear of ends of runs, and pass them on."""

        def hear(event: Event) -> None:
            if self._queues:
                self._bell.set()
            then(event)

        return hear

    def _committed(self, entries: Sequence[LogEntry]) -> None:
        if any(isinstance(entry, Event) and entry.type == "workflow_queued" for entry in entries):
            self._bell.set()
            for entry in entries:
                if isinstance(entry, Event) and entry.type == "workflow_queued":
                    data = entry.data
                    self._queues.setdefault(data["slug"], {}).setdefault(
                        data["run"], Queued(data["run"], entry.tenant, None, entry.at, 0, "")
                    )

    async def _keep(self) -> None:
        while True:
            self._bell = anyio.Event()
            wait = _LOOK
            try:
                for slug in [*self._queues]:
                    wait = min(wait, await self._pump(slug))
            except EventCoreError as error:
                log.error("queued runs could not begin: %s", error)
                wait = 1.0
            with anyio.move_on_after(wait):
                await self._bell.wait()

    async def _pump(self, slug: str) -> float:
        """Let in what there is room for; return the seconds until it is worth another look."""
        queue, full, wait = self._queues[slug], set[tuple[str, str | None]](), _LOOK
        for row in self._in_turn(slug):
            run = await self._store.run(row.id)
            plan = await plan_of(self._registry, self._store, run) if run is not None else None
            if run is None or plan is None or run.status != "queued" or run.owner != self._launcher.owner:
                queue.pop(row.id, None)
                continue
            if (left := self._rate_wait(plan, run)) > 0:
                wait = min(wait, left)
                continue
            if (run.tenant, run.limit_key) in full:
                continue
            outcome = await self._let_in(plan, run)
            if outcome == "in":
                queue.pop(row.id, None)
                self._turns[slug, run.tenant] += 1
            elif outcome == "full":
                full.add((run.tenant, run.limit_key))
                await self._no_room(plan, run, queue)
            else:
                self._bell.set()
        if not queue:
            del self._queues[slug]
        return wait

    def _in_turn(self, slug: str) -> list[Queued]:
        """Higher priority first; then the tenants in turn; then the oldest."""
        turn: Counter[str] = Counter()
        placed = []
        for row in sorted(self._queues[slug].values(), key=lambda one: (one.created, one.id)):
            placed.append((-row.priority, self._turns[slug, row.tenant] + turn[row.tenant], row.created, row.id, row))
            turn[row.tenant] += 1
        return [one[-1] for one in sorted(placed, key=lambda one: one[:4])]

    def _rate_wait(self, plan: Plan, run: Run) -> float:
        rate = plan.workflow.rate
        if rate is None:
            return 0.0
        began, now = self._began.setdefault((run.tenant, run.slug), deque()), self._clock.now()
        while began and began[0] <= now - rate.per:
            began.popleft()
        return began[0] + rate.per - now if len(began) >= rate.limit else 0.0

    async def _let_in(self, plan: Plan, run: Run) -> Literal["in", "full", "changed"]:
        """Begin a run; `changed`: its row is not as it was read, so it has to be looked at again."""
        limit = plan.workflow.concurrency
        staged = self._launcher.promote(run, plan)
        guards = [*staged.guards]
        if limit is not None:
            guards.append(LiveRunsBelow(run.tenant, run.slug, limit.limit, run.limit_key if limit.key else None))
        try:
            await self._commit(staged.batch, guards)
        except Conflict as conflict:
            self._launcher.take(run.id)
            return "full" if isinstance(conflict.guard, LiveRunsBelow) else "changed"
        if plan.workflow.rate is not None:
            self._began.setdefault((run.tenant, run.slug), deque()).append(self._clock.now())
        return "in"

    async def _no_room(self, plan: Plan, run: Run, queue: dict[str, Queued]) -> None:
        limit = plan.workflow.concurrency
        assert limit is not None
        assert self.cancel is not None
        if limit.on_limit == "cancel_oldest":
            query = RunQuery(run.tenant, run.slug, ("running", "waiting", "paused"), limit=_PAGE)
            live = [one for one in await self._store.runs(query) if one.limit_key == run.limit_key]
            if live:
                await self.cancel(
                    live[-1].id, Asked("cancel", "system", self._clock.now(), "a newer run needs its place")
                )
            return
        waiting = [row for row in queue.values() if row.key == run.limit_key and row.tenant == run.tenant]
        if limit.on_limit == "skip":
            waiting = [row for row in waiting if row.id == run.id]
        else:
            newest_first = sorted(waiting, key=lambda row: row.id, reverse=True)
            waiting = newest_first[: max(0, len(waiting) - limit.max_queued)]
        for row in waiting:
            queue.pop(row.id, None)
            why = f"{limit.limit} runs of {run.slug} are live" if limit.on_limit == "skip" else "its queue is full"
            await self.cancel(row.id, Asked("cancel", "system", self._clock.now(), why))
