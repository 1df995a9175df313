"""The runner: carries out what the reducer decides, and commits each tick before the next thing happens.

One task drives a run while something of it is being called. A run that only waits (for a timer, or for an intent that
nobody answers yet) costs no task and no memory but a row: a timer or a newly known intent loads it again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from eventcore.kernel.errors import Conflict, EventCoreError, StoreError
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock, Faults, Invoker, Metrics, Randomness, Store
from eventcore.kernel.records import LIVE, Batch, JournalEntry, LogEntry, Run, RunAt, Timer
from eventcore.workflows.asking import Asking
from eventcore.workflows.claims import Claims
from eventcore.workflows.decision import Decision
from eventcore.workflows.driven import Arrival, Driven, timer_name
from eventcore.workflows.launch import Launcher
from eventcore.workflows.leases import keep_leases
from eventcore.workflows.listening import Listeners
from eventcore.workflows.loading import load
from eventcore.workflows.lookback import look_back
from eventcore.workflows.pinned import plan_of
from eventcore.workflows.reducer import reduce
from eventcore.workflows.registry import Registry
from eventcore.workflows.saving import Commit, Saver
from eventcore.workflows.scribe import Scribe, listening_row
from eventcore.workflows.stepcalls import Other, StepCalls
from eventcore.workflows.ticks import Answered, Asked, Call, Resumed, TimerFired
from eventcore.workflows.timers import TimerKeeper, tick_of
from eventcore.workflows.waking import Waker

log = logging.getLogger("eventcore.workflows")

#: How long an engine holds a run without renewing, in seconds.
LEASE = 30.0
_AFTER_A_BUG = 30.0


class Runner:
    """Drives the runs that this engine owns.

    Args:
        owner: this engine's name in claims.
        commit: the bus's commit, so that triggers see what runs emit.
        on_end: told of each run that ends here or elsewhere: (run id, status, data of `workflow_completed`).
    """

    def __init__(
        self,
        *,
        owner: str,
        store: Store,
        commit: Commit,
        clock: Clock,
        randomness: Randomness,
        metrics: Metrics,
        faults: Faults,
        invoker: Invoker,
        registry: Registry,
        scribe: Scribe,
        launcher: Launcher,
        others: Mapping[str, Other],
        listeners: Listeners,
        queued: Callable[[Run], None],
        on_end: Callable[[Event], None],
        lease: float = LEASE,
    ) -> None:
        self._owner, self._lease, self._claims = owner, lease, Claims(store, clock, owner, lease)
        self._store, self._clock = store, clock
        self._faults, self._invoker, self._randomness = faults, invoker, randomness
        self._registry, self._scribe, self._launcher, self._on_end = registry, scribe, launcher, on_end
        self._driven: dict[str, Driven] = {}
        self._parked: dict[str, tuple[str, frozenset[str]]] = {}
        self._tasks: TaskGroup | None = None
        self._calls = StepCalls(invoker, clock, randomness, faults, others)
        self._listeners, self._queued = listeners, queued
        self._saver = Saver(commit, clock, metrics)
        self._timers = TimerKeeper(store, clock, self._fire)
        self.expect = self._timers.expect
        self._waker = Waker(store, self._saver, listeners, self._timers, self._spawn)
        self._asking = Asking(
            self._driven,
            self._claims,
            go_on=self._go_on,
            settle=self._settle,
            call=self._call_beside,
            spawn=self._spawn,
        )
        self.ask = self._asking.ask

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        """Begin to drive: watch commits, keep timers and leases."""
        self._tasks = tasks
        await self._waker.load()
        stack.callback(self._store.watch(self._committed))
        tasks.start_soon(self._timers.keep, name="eventcore timers")
        renewing = partial(keep_leases, self._store, self._clock, self._owner, self._lease, self.recover)
        tasks.start_soon(renewing, name="eventcore leases")

    @property
    def idle(self) -> bool:
        """Whether no run of this engine is being driven, or about to be; those that wait do not count."""
        return not self._driven and not self._timers.behind

    async def recover(self, *, alone: bool = False) -> int:
        """Take over live runs that nobody holds and go on with them; return how many.

        Args:
            alone: no other engine can be using this store, so claims in it are those of a dead one. They are taken
                over at once: a run must not wait for the lease of an engine that was killed.
        """
        self._claims.alone |= alone
        count, since = 0, math.inf
        while runs := await self._claims.some():
            for run in runs:
                if run.status == "queued":
                    self._queued(run)
                elif run.status == "waiting" and run.raw_error is None:
                    since = min(since, run.created)  # nothing is to be done: its rows wake it
                else:
                    await self._take_over(run)
            count += len(runs)
        if since < math.inf:
            await self._waker.catch_up(since, self._wake, reload=not self._claims.alone)
        return count

    async def _take_over(self, run: Run) -> None:
        try:
            await self._go_on(run, Resumed(self._clock.now()))
        except StoreError as error:  # it is ours now, so nobody else would look at it again
            log.error("run %s cannot be read: %s; trying again in %g s", run.id, error, _AFTER_A_BUG)
            self._spawn(self._wake, run.id, _AFTER_A_BUG)

    def intents_changed(self) -> None:
        """Go on with what was waiting for an intent that is known now."""
        for driven in list(self._driven.values()):
            ready = [call for call in driven.parked if self._known(driven, call)]
            driven.parked = [call for call in driven.parked if call not in ready]
            self._call_beside(driven, ready)
        for run_id, (tenant, intents) in list(self._parked.items()):
            if any(self._invoker.knows(intent, tenant) for intent in intents):
                self._spawn(self._wake, run_id)

    def _known(self, driven: Driven, call: Call) -> bool:
        return call.kind != "plugin" or self._invoker.knows(call.intent, driven.active.run.tenant)

    def _spawn(self, function: Callable[..., Any], *args: Any) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(function, *args, name=f"eventcore {function.__name__}")

    # -- beginnings --------------------------------------------------------------------------------------------------

    def _committed(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            event = entry.event if isinstance(entry, JournalEntry) else entry
            if self._listeners and not event.imported:
                self._waker.heard(event)
            if type(entry) is not Event or entry.imported:
                continue
            if entry.type == "workflow_started" and entry.run:
                self._started(entry.run)
            elif entry.type == "workflow_completed":
                self._faults.reach("run.after_end")
                self._on_end(entry)

    def _started(self, run_id: str) -> None:
        staged = self._launcher.take(run_id)
        if staged is None:
            return
        self._faults.reach("run.after_start")
        for wait in staged.decision.waits:
            self._timers.expect(wait.due)
        for listen in staged.decision.listens:
            self._listeners.add(listening_row(staged.active.run, listen))
        if staged.decision.end is None:
            driven = self._driven[run_id] = Driven(staged.active)
            self._spawn(self._drive, driven, staged.decision.calls)
        else:
            self._saver.count_end(staged.active.run, staged.decision)

    async def _go_on(
        self, run: Run, tick: Resumed | TimerFired | Answered | Asked, asked: Arrival | None = None
    ) -> None:
        """Load a run, and drive it from `tick`."""
        plan = await plan_of(self._registry, self._store, run)
        if plan is None:
            log.error("run %s of %s cannot go on: its definition is gone", run.id, run.slug)
            if asked is not None:
                asked.refused = Conflict(f"run {run.id} of {run.slug} cannot go on: its definition is gone")
                asked.settled(None)
            return
        driven = Driven(await load(self._store, run, plan, self._saver.every))
        other = self._driven.get(run.id)
        if other is not None and other.active.run.fence == run.fence:
            # It was loaded while we read, and what was interrupted goes on already.
            if isinstance(tick, TimerFired | Answered):
                other.fire(tick)
            elif isinstance(tick, Asked):
                self._asking.hand(other, asked or Arrival(tick))
            return
        self._parked.pop(run.id, None)
        self._driven[run.id] = driven
        if isinstance(tick, Resumed):
            driven.put(Arrival(tick))
        else:
            stops = isinstance(tick, Asked) and tick.verb in ("cancel", "terminate", "retry")
            if not stops and any(
                step.status == "running" and not step.inside for step in driven.active.state.steps.values()
            ):
                driven.put(Arrival(Resumed(tick.at)))  # steps that wait for an intent are nobody's calls
            if isinstance(tick, Asked):
                driven.put(asked or Arrival(tick))
            else:
                driven.fire(tick)
        self._spawn(self._drive, driven, [])

    async def _wake(self, run_id: str, after: float = 0.0) -> None:
        try:
            if after:
                await self._clock.sleep(after)
            run = await self._store.run(run_id)
            if run is not None and run.status in LIVE and run.owner == self._owner:
                await self._go_on(run, Resumed(self._clock.now()))
        except StoreError as error:
            log.error("run %s cannot be read: %s; trying again in %g s", run_id, error, _AFTER_A_BUG)
            self._spawn(self._wake, run_id, _AFTER_A_BUG)

    # -- driving -----------------------------------------------------------------------------------------------------

    async def _drive(self, driven: Driven, calls: list[Call]) -> None:
        run = driven.active.run
        try:
            while True:
                await self._make_calls(driven, calls)
                if not driven.inbox and not driven.calls and await self._rest(driven):
                    return
                arrival = await driven.next()
                while driven.aside is not None:
                    await driven.aside.wait()
                decision = await self._settle(driven, arrival)
                driven.firing.discard(timer_name(arrival.tick))
                arrival.settled(decision)
                if decision is None or decision.end is not None:
                    return
                calls = decision.calls
        except Exception:
            # A bug of ours. The run stays live in the store and is taken up again: it must not be lost.
            log.exception("driving run %s of %s failed; trying again in %g s", run.id, run.slug, _AFTER_A_BUG)
            self._spawn(self._wake, run.id, _AFTER_A_BUG)
        finally:
            driven.close()
            if self._driven.get(run.id) is driven:
                del self._driven[run.id]

    async def _make_calls(self, driven: Driven, calls: list[Call]) -> None:
        ready = [call for call in calls if self._known(driven, call)]
        driven.parked.extend(call for call in calls if call not in ready)
        if len(ready) == 1 and not driven.calls and driven.only_one_unsettled:
            await self._call_inline(driven, ready[0])  # no task for the plain sequence
        else:
            self._call_beside(driven, ready)

    async def _call_inline(self, driven: Driven, call: Call) -> None:
        if call.kind == "plugin" and self._invoker.at_once(call.intent, driven.active.run.tenant):
            driven.inbox.append(await self._calls.call(driven.active, call))
            return
        with driven.calling(call.path):
            driven.inbox.append(await self._calls.call(driven.active, call))

    def _call_beside(self, driven: Driven, calls: list[Call]) -> None:
        for call in calls:
            driven.calls += 1
            self._spawn(self._call_and_put, driven, call)

    async def _call_and_put(self, driven: Driven, call: Call) -> None:
        scope = driven.scopes[call.path] = anyio.CancelScope()
        try:
            with scope:
                driven.put(await self._calls.call(driven.active, call))
        finally:
            driven.calls -= 1
            if driven.scopes.get(call.path) is scope:
                del driven.scopes[call.path]
            if scope.cancelled_caught:
                driven.bell.set()

    async def _rest(self, driven: Driven) -> bool:
        """Let go of a run that can do nothing now. False if something came in meanwhile."""
        run = driven.active.run
        if driven.parked:
            missing = frozenset(call.intent for call in driven.parked)
            if missing != driven.told and not await self._tell(driven, missing):
                return True
            if driven.inbox or driven.calls:
                return False
            self._parked[run.id] = run.tenant, missing
        if self._driven.get(run.id) is driven:
            del self._driven[run.id]
        return True

    async def _tell(self, driven: Driven, missing: frozenset[str]) -> bool:
        """Say in the run's row what it waits for. False: another engine has taken the run over."""
        run = driven.active.run
        log.warning("run %s of %s waits for the intent %s", run.id, run.slug, ", ".join(sorted(missing)))
        batch = self._scribe.parked(driven.active, driven.parked, self._clock.now())
        try:
            await self._saver.save(batch, [RunAt(run.id, run.version, run.fence)])
        except Conflict:
            self._lost(run)
            return False
        run.version, run.status, driven.told = run.version + 1, "waiting", missing
        return True

    # -- committing --------------------------------------------------------------------------------------------------

    async def _settle(self, driven: Driven, arrival: Arrival) -> Decision | None:
        """Reduce one tick and commit what it decides. None: the run is not ours any more."""
        active, alone = driven.active, False
        while True:
            decision = reduce(active.plan, active.state, arrival.tick)
            if not decision.says:
                return decision  # too late or already done: nothing to say, and what it wanted to change is dropped
            joined = driven.join(decision) if driven.inbox and arrival.bare and not alone else []
            try:
                if not await self._store_tick(driven, decision, joined[-1] if joined else arrival):
                    return None
            except EventCoreError as error:
                if arrival.guards and isinstance(arrival.tick, Asked):
                    arrival.refused = error
                    return Decision(active.plan, active.state)
                if joined:
                    driven.inbox.extendleft(reversed(joined))
                    alone = True  # one of them may be the reason, and each has to fail or stand by itself
                else:
                    arrival = self._calls.refused(arrival, error)
                continue
            return decision

    async def _store_tick(self, driven: Driven, decision: Decision, arrival: Arrival) -> bool:
        """Commit a decision. False: another engine has taken the run over.

        Raises:
            Conflict, EventCoreError: what the step wants to commit beside it does not hold.
        """
        active = driven.active
        run = active.run
        busy = driven.busy or decision.begins
        batch = self._scribe.progress(active, decision, arrival.tick.at, busy=busy)
        if arrival.effects is not None and decision.entries:
            batch.add(arrival.effects)
        plain = decision.plain
        if not plain and decision.listens:
            await look_back(self._store, self._listeners, run, decision.listens, batch)
        guards = [RunAt(run.id, run.version, run.fence), *(arrival.guards if decision.entries else ())]
        self._faults.reach("run.before_end" if decision.end else "step.before_commit")
        try:
            await self._saver.save(batch, guards)
        except Conflict as conflict:
            if isinstance(conflict.guard, RunAt) and conflict.guard.run == run.id:
                self._lost(run)
                return False
            raise
        move = batch.moves[0]
        run.version, run.status, run.updated = move.version, move.status, move.updated
        active.state, driven.told = decision.state, frozenset()
        if not plain or "timers" in batch.touched:
            self._carry_out(driven, decision, batch)
        self._saver.count(active, decision, batch)
        if decision.end is None:  # the end of a run has its own point, before those who wait for it are told
            self._faults.reach("step.after_commit")
        return True

    def _carry_out(self, driven: Driven, decision: Decision, batch: Batch) -> None:
        """What most decisions have not: timers, listeners that go, calls to cut off."""
        run = driven.active.run
        for timer in batch.timers:
            self._timers.expect(timer.due)
        for path in decision.listens_done:
            self._listeners.remove(f"{run.id}/{path}")
        driven.cut_off(decision.dropped)

    def _lost(self, run: Run) -> None:
        """Our copy of a run is out of date: another engine drives it now, or we ourselves loaded it twice."""
        log.info("run %s was moved on by somebody else", run.id)
        # If it is ours all the same, nobody else will go on with it; `_wake` looks whose it is.
        self._spawn(self._wake, run.id)

    # -- timers and leases -------------------------------------------------------------------------------------------

    async def _fire(self, timer: Timer) -> bool:
        tick = tick_of(timer, self._clock.now(), self._randomness.random())
        if driven := self._driven.get(timer.run):
            driven.fire(tick)
            return True
        run = await self._store.run(timer.run)
        if run is None or run.status not in LIVE:
            await self._saver.save(Batch(timers_done=[timer.id]), [])
            return True
        if run.status == "paused" and run.owner != self._owner:  # nobody takes such a run over before it is needed
            run = await self._claims.one(run.id) or run
        if run.owner != self._owner:
            return False
        await self._go_on(run, tick)
        return True
