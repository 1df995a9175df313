"""Starting runs by the clock: cron and one-off times, each occurrence at most once.

Cron fields are read in the trigger's zone. A local time that a clock change skips fires as much later as the clocks
were put forward; one that comes twice fires the first time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from eventcore.kernel.context import CallContext
from eventcore.kernel.cron import next_time
from eventcore.kernel.errors import Conflict, EventCoreError, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode, encode, text_digest
from eventcore.kernel.ports import Clock, Ids, Store
from eventcore.kernel.records import LIVE, Batch, KeyAbsent, Run, RunQuery, Schedule
from eventcore.workflows.clockwork import moment
from eventcore.workflows.definition import Trigger
from eventcore.workflows.launch import Launcher
from eventcore.workflows.plan import Plan, TriggerPlan
from eventcore.workflows.registry import Registry
from eventcore.workflows.saving import Commit
from eventcore.workflows.ticks import Asked

log = logging.getLogger("eventcore.workflows")

#: An occurrence is missed once it is so late, in seconds.
LATE = 60.0
#: The most occurrences that one look catches up with, the newest ones, and buffers.
_MOST = 1000
# Seconds between looks: never longer than a clock that jumps may hide.
_IDLE, _BUFFERED, _PAGE = 30.0, 1.0, 10_000
_NEVER = 9e15


def next_after(trigger: Trigger, after: float) -> float | None:
    """The first occurrence later than `after` (seconds since the epoch), or None."""
    if trigger.at is not None:
        when = moment(trigger)
        return when if when > after else None
    return None if trigger.cron is None else next_time(trigger.cron, trigger.timezone, after)


def occurrences(trigger: Trigger, first: float, now: float) -> Iterator[float]:
    """Which of the occurrences from `first` up to now are to start runs, by the trigger's `missed` and `window`."""
    most = _MOST if trigger.missed == "all" else 1
    oldest, span = max(first, now - max(trigger.window, LATE)), LATE
    # The newest count, and there may be a million before them: so the look goes back step by step until it has enough.
    while True:
        begin = max(oldest, now - span)
        found = deque(_walk(trigger, first if begin <= first else next_after(trigger, begin), now), maxlen=most)
        if len(found) == most or begin == oldest:
            break
        span *= 4
    if trigger.missed != "none" or (found and now - found[-1] <= LATE):
        yield from found


def _walk(trigger: Trigger, when: float | None, now: float) -> Iterator[float]:
    while when is not None and when <= now:
        yield when
        when = next_after(trigger, when)


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule row, read."""

    row: Schedule
    slug: str
    trigger: str
    paused: bool
    next: float
    pending: tuple[float, ...]
    #: The trigger's clock as it was when `next` was worked out; empty in rows of versions that did not keep it.
    clock: str = ""

    @staticmethod
    def of(row: Schedule) -> Planned:
        body = decode(row.raw)
        pending = tuple(body.get("pending", ()))
        clock = body.get("clock", "")
        return Planned(row, body["slug"], body["trigger"], body["paused"], body["next"], pending, clock)

    def stored(self, trigger: Trigger, **changes: Any) -> Schedule:
        """The row with changes."""
        new = replace(self, **changes)
        body = {"slug": new.slug, "trigger": new.trigger, "paused": new.paused, "next": new.next}
        body["clock"] = _clock_of(trigger)
        due = _NEVER if new.paused else new.next + _spread(self.row.id, new.next, trigger.jitter)
        return replace(self.row, due=due, raw=encode({**body, "pending": list(new.pending)}))


def _clock_of(trigger: Trigger) -> str:
    """What decides when a trigger is due."""
    return f"{trigger.cron or trigger.at} {trigger.timezone}"


def _spread(name: str, at: float, jitter: float) -> float:
    """Up to `jitter` seconds, the same whenever it is asked."""
    return int(text_digest(f"{name}\0{at}")[:8], 16) / 0x100000000 * jitter


class Scheduler:
    """Keeps the schedules of a tenant's triggers; one an engine."""

    def __init__(
        self,
        *,
        store: Store,
        commit: Commit,
        clock: Clock,
        ids: Ids,
        registry: Registry,
        launcher: Launcher,
        tenant: str,
        ask: Callable[[str, Asked], Awaitable[Any]],
    ) -> None:
        self._store, self._commit, self._clock, self._ids = store, commit, clock, ids
        self._registry, self._launcher, self._tenant, self._ask = registry, launcher, tenant, ask
        self._bell = anyio.Event()
        self._stale, self._settling = True, anyio.Lock()
        registry.watchers.append(self.changed)

    def changed(self) -> None:
        """Definitions came or went."""
        self._stale = True
        self._bell.set()

    async def start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        """Begin to keep the schedules."""
        tasks.start_soon(self._keep, name="eventcore schedules")

    async def _keep(self) -> None:
        await anyio.lowlevel.checkpoint()  # the definitions of the home are read before the first look
        while True:
            self._bell = anyio.Event()
            try:
                await self._settle()
                wait = await self._look()
            except EventCoreError as error:
                log.error("schedules could not be kept: %s", error)
                wait = 5.0
            except Exception:  # a bug of ours must not end the engine
                log.exception("schedules could not be kept; trying again in %g s", _IDLE)
                wait = _IDLE
            with anyio.move_on_after(max(0.0, wait)):
                await self._bell.wait()

    async def _settle(self) -> None:
        """Bring the rows in line with the definitions, if these have changed."""
        async with self._settling:
            if self._stale:
                self._stale = False
                await self._align()

    def _triggers(self) -> dict[str, tuple[Plan, TriggerPlan]]:
        return {
            f"{self._tenant}/{plan.slug}/{one.id}": (plan, one)
            for plan in self._registry
            for one in plan.triggers
            if one.trigger.cron is not None or one.trigger.at is not None
        }

    async def _align(self) -> None:
        """Rows for triggers that are new; none for those that are gone; a new time where the clock of one has changed.

        A definition that is not known (yet: code may define it later) keeps its rows, which then start nothing.
        """
        there = {row.id: Planned.of(row) for row in await self._rows()}
        # From here to the commit nothing waits: a definition must not come in between and lose its rows.
        wanted, now, batch = self._triggers(), self._clock.now(), Batch()
        for name, (plan, one) in wanted.items():
            known = there.get(name)
            if known is not None and known.clock not in ("", _clock_of(one.trigger)):
                batch.schedules.append(known.stored(one.trigger, next=next_after(one.trigger, now) or _NEVER))
            elif known is None:
                first = next_after(one.trigger, now)
                if first is not None:
                    empty = Planned(Schedule(name, self._tenant, 0.0, b""), plan.slug, one.id, False, first, ())
                    batch.schedules.append(empty.stored(one.trigger))
        gone = there.keys() - wanted.keys()
        batch.schedules_done.extend(name for name in gone if self._registry.find(there[name].slug) is not None)
        if batch:
            await self._commit(batch, [])

    async def _rows(self, due: float = 2 * _NEVER) -> list[Schedule]:
        return [row for row in await self._store.schedules(due, _PAGE) if row.tenant == self._tenant]

    async def _look(self) -> float:
        """Start what is due; return the seconds until something is."""
        triggers, buffered = self._triggers(), False
        for row in await self._rows(self._clock.now()):
            if row.id in triggers:
                planned = Planned.of(row)
                buffered |= await self._due(planned, *triggers[row.id])
        following = next((row.due for row in await self._rows() if row.id in triggers), None)
        wait = _IDLE if following is None else following - self._clock.now()
        return min(max(wait, _BUFFERED) if buffered else max(wait, 0.01), _IDLE)

    async def _due(self, planned: Planned, plan: Plan, one: TriggerPlan) -> bool:
        """Start what one schedule says; return whether anything of it waits for an earlier run to end."""
        now, trigger = self._clock.now(), one.trigger
        wanted = [*planned.pending, *occurrences(trigger, planned.next, now)]
        following = next_after(trigger, max(now, planned.next)) or _NEVER
        live = await self._live(plan.slug, one.id)
        pending: list[float] = []
        for at in dict.fromkeys(wanted):
            if live and trigger.overlap in ("buffer_one", "buffer_all"):
                pending.append(at)
            elif live and trigger.overlap == "skip":
                log.info("%s: the occurrence of %s is skipped; run %s goes on", plan.slug, _iso(at), live[0].id)
            else:
                if trigger.overlap in ("cancel_other", "terminate_other"):
                    verb: Literal["cancel", "terminate"] = (
                        "cancel" if trigger.overlap == "cancel_other" else "terminate"
                    )
                    for run in live:
                        why = "the next occurrence has come"
                        await self._ask(run.id, Asked(verb, f"trigger:{plan.slug}", now, why))
                begun = await self._begin(planned, plan, one, at)
                live = [begun] if begun is not None and trigger.overlap != "allow" else []
        kept = tuple(pending[-1:] if trigger.overlap == "buffer_one" else pending[-_MOST:])
        row = planned.stored(trigger, next=following, pending=kept)
        if kept:
            row = replace(row, due=min(row.due, now + _BUFFERED))
        await self._commit(Batch(schedules=[row]), [])
        return bool(kept)

    async def _live(self, slug: str, trigger: str) -> list[Run]:
        runs = await self._store.runs(RunQuery(self._tenant, slug, tuple(LIVE), limit=_PAGE))
        return [run for run in runs if run.trigger == trigger]

    async def _begin(self, planned: Planned, plan: Plan, one: TriggerPlan, at: float) -> Run | None:
        """Start the run of one occurrence; its key makes sure that it is never started twice."""
        context = CallContext(self._tenant, f"trigger:{plan.slug}", frozenset({"user"}))
        scope = {"event": {"type": "cron", "time": _iso(at), "at": at, "data": {}, "actor": context.actor}}
        try:
            inputs = one.inputs(scope)
            staged = self._launcher.stage(plan, inputs, context, key=f"{one.id}@{at!r}", trigger=one.id)
        except EventCoreError as error:
            await self._failed(plan, one, at, error, context)
            return None
        try:
            await self._commit(staged.batch, staged.guards)
        except Conflict as conflict:
            self._launcher.take(staged.active.run.id)
            if not isinstance(conflict.guard, KeyAbsent):
                raise
            return None
        return staged.active.run

    async def _failed(
        self, plan: Plan, one: TriggerPlan, at: float, error: EventCoreError, context: CallContext
    ) -> None:
        data = {"slug": plan.slug, "trigger": one.id, "time": _iso(at), **error.as_dict()}
        source, now = f"/workflows/{plan.slug}", self._clock.now()
        event_id = self._ids.new()
        event = Event(event_id, "trigger_failed", source, now, encode(data), context.tenant, correlation_id=event_id)
        await self._commit(Batch(log=[event]), [])

    # -- for people --------------------------------------------------------------------------------------------------

    async def listed(self) -> list[dict[str, Any]]:
        """Every schedule: id, slug, what it says, when it is next."""
        await self._settle()
        triggers, found = self._triggers(), []
        for row in await self._rows():
            planned = Planned.of(row)
            trigger = triggers[row.id][1].trigger if row.id in triggers else None
            found.append(
                {
                    "id": f"{planned.slug}/{planned.trigger}",
                    "slug": planned.slug,
                    "says": (trigger.cron or trigger.at) if trigger else None,
                    "timezone": trigger.timezone if trigger else None,
                    "paused": planned.paused,
                    "next": None if planned.paused or planned.next >= _NEVER else _iso(planned.next),
                    "buffered": len(planned.pending),
                }
            )
        return found

    async def pause(self, schedule: str, *, paused: bool = True) -> None:
        """Let a schedule rest, or go on from now.

        Raises:
            NotFound: there is no such schedule.
        """
        planned, _, one = await self._named(schedule)
        following = next_after(one.trigger, self._clock.now()) or _NEVER
        await self._commit(Batch(schedules=[planned.stored(one.trigger, paused=paused, next=following)]), [])
        self._bell.set()

    async def run(self, schedule: str) -> str:
        """Start the run of a schedule now, beside its times; return the run's id.

        Raises:
            NotFound: there is no such schedule.
        """
        planned, plan, one = await self._named(schedule)
        run = await self._begin(planned, plan, one, self._clock.now())
        if run is None:
            raise Conflict(
                f"the schedule {schedule} could not start its run", hint="eventcore events list --type trigger_failed"
            )
        return str(run.id)

    async def _named(self, schedule: str) -> tuple[Planned, Plan, TriggerPlan]:
        await self._settle()
        name = f"{self._tenant}/{schedule}"
        triggers = self._triggers()
        row = next((row for row in await self._rows() if row.id == name), None)
        if row is None or name not in triggers:
            raise NotFound(f"there is no schedule {schedule!r}", hint="eventcore schedules list")
        return (Planned.of(row), *triggers[name])


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
