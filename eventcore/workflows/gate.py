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
from eventcore.kernel.json import decode
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import EventQuery, LiveRunsBelow, LogEntry, Run, RunQuery
from eventcore.workflows.launch import Launcher, room_for
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
    """A run that waits for its turn. `read` is false for one that only its event has told of so far."""

    id: str
    tenant: str
    created: float
    key: str | None = None
    priority: int = 0
    read: bool = False


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
        self._bell, self._looking = anyio.Event(), False
        self.cancel: Callable[[str, Asked], Awaitable[Any]] | None = None

    async def start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        """Begin to let runs in. What is queued in the store comes through `add`, once it is this engine's."""
        stack.callback(self._store.watch(self._committed))
        tasks.start_soon(self._keep, name="eventcore queued runs")

    @property
    def idle(self) -> bool:
        """Whether no queued run is about to begin; those for which there is no room do not count."""
        return not self._looking and not self._bell.is_set()

    def add(self, run: Run) -> None:
        """A run waits for its turn."""
        self._queues.setdefault(run.slug, {})[run.id] = Queued(run.id, run.tenant, run.created)
        self._bell.set()

    def ended(self, then: Callable[[Event], None]) -> Callable[[Event], None]:
        """Hear of ends of runs, and pass them on."""

        def hear(event: Event) -> None:
            if self._queues:
                slug = event.data["slug"]
                self._queues.get(slug, {}).pop(event.run or "", None)  # cancelled while it waited
                self._bell.set()
            then(event)

        return hear

    def _committed(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            if isinstance(entry, Event) and entry.type == "workflow_queued" and not entry.imported and entry.run:
                row = Queued(entry.run, entry.tenant, entry.at)
                self._queues.setdefault(entry.data["slug"], {}).setdefault(entry.run, row)
                self._bell.set()

    async def _keep(self) -> None:
        while True:
            self._bell, wait = anyio.Event(), _LOOK
            self._looking = True
            try:
                for slug in [*self._queues]:
                    wait = min(wait, await self._pump(slug))
            except EventCoreError as error:
                log.error("queued runs could not begin: %s", error)
                wait = 1.0
            self._looking = False
            with anyio.move_on_after(wait):
                await self._bell.wait()

    async def _pump(self, slug: str) -> float:
        """Let in what there is room for; return the seconds until it is worth another look."""
        queue, wait = self._queues[slug], _LOOK
        full, resting = set[tuple[str, str | None]](), set[str]()
        for row in [row for row in queue.values() if not row.read]:
            await self._read(row, queue)
        for row in self._in_turn(slug):
            # What there is no room for is not read: a long queue must not cost a look at each of its runs.
            if row.tenant in resting or (row.tenant, row.key) in full:
                continue
            if (found := await self._waiting(row, queue)) is None:
                continue
            run, plan = found
            if (left := await self._rate_wait(plan, run)) > 0:
                resting.add(run.tenant)
                wait = min(wait, left)
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

    async def _waiting(self, row: Queued, queue: dict[str, Queued]) -> tuple[Run, Plan] | None:
        """The run of a row, if it still waits here; else the row goes."""
        run = await self._store.run(row.id)
        plan = await plan_of(self._registry, self._store, run) if run is not None else None
        if run is None or plan is None or run.status != "queued" or run.owner != self._launcher.owner:
            queue.pop(row.id, None)
            return None
        return run, plan

    async def _read(self, row: Queued, queue: dict[str, Queued]) -> None:
        """Learn what a run counts for, and how urgent it is."""
        if (found := await self._waiting(row, queue)) is not None:
            run, plan = found
            priority = plan.priority_of(decode(run.raw_inputs))
            queue[row.id] = Queued(run.id, run.tenant, run.created, run.limit_key, priority, read=True)

    def _in_turn(self, slug: str) -> list[Queued]:
        """Higher priority first; then the tenants in turn; then the oldest."""
        turn: Counter[str] = Counter()
        placed = []
        for row in sorted(self._queues[slug].values(), key=lambda one: (one.created, one.id)):
            placed.append((-row.priority, self._turns[slug, row.tenant] + turn[row.tenant], row.created, row.id, row))
            turn[row.tenant] += 1
        return [one[-1] for one in sorted(placed, key=lambda one: one[:4])]

    async def _rate_wait(self, plan: Plan, run: Run) -> float:
        rate = plan.workflow.rate
        if rate is None:
            return 0.0
        now = self._clock.now()
        began = self._began.get((run.tenant, run.slug))
        if began is None:  # what began before this engine did counts as well
            began = deque(await self._begun_since(run, now - rate.per, rate.limit))
            self._began[run.tenant, run.slug] = began
        if began and began[-1] > now:  # the clock was set back: they count as if they had just begun
            began = self._began[run.tenant, run.slug] = deque(min(one, now) for one in began)
        while began and began[0] <= now - rate.per:
            began.popleft()
        return began[0] + rate.per - now if len(began) >= rate.limit else 0.0

    async def _begun_since(self, run: Run, since: float, limit: int) -> list[float]:
        """When the last runs of a workflow began, oldest first."""
        query = EventQuery(
            tenant=run.tenant,
            types=("workflow_started",),
            source=f"/workflows/{run.slug}",
            since=since,
            newest_first=True,
            limit=min(limit, _PAGE),
        )
        return [event.at for event in await self._store.events(query)][::-1]

    async def _let_in(self, plan: Plan, run: Run) -> Literal["in", "full", "changed"]:
        """Begin a run; `changed`: its row is not as it was read, so it has to be looked at again."""
        staged = self._launcher.promote(run, plan)
        guards = (*staged.guards, *room_for(plan, run))
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
