"""Starting runs: by hand, from an event in the event's own commit, and from a plugin's call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventcore.kernel.context import CallContext, Cause, loop_in
from eventcore.kernel.errors import EventCoreError, LoopDetected
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode, encode, text_digest
from eventcore.kernel.ports import Clock, Ids
from eventcore.kernel.records import (
    Batch,
    Definition,
    Guard,
    JournalEntry,
    Key,
    KeyAbsent,
    LiveRunsBelow,
    LogEntry,
    Run,
    RunAt,
)
from eventcore.kernel.upkeep import KEEP_UNUSED
from eventcore.workflows.plan import Plan, TriggerPlan
from eventcore.workflows.reducer import Decision, fold, reduce
from eventcore.workflows.registry import Registry
from eventcore.workflows.scribe import Active, Scribe, initial_state
from eventcore.workflows.state import Entry
from eventcore.workflows.ticks import Begun

_MAX_STAGED = 100_000


def limit_key(plan: Plan, inputs: Mapping[str, Any]) -> str | None:
    """Which of a workflow's limits a run counts for."""
    if plan.limit_key is None:
        return None
    value = plan.limit_key({"inputs": inputs})
    return value if isinstance(value, str) else encode(value).decode()


def room_for(plan: Plan, run: Run) -> tuple[Guard, ...]:
    """What must hold for a run to begin, or to begin again: there is a place among the live ones."""
    limit = plan.workflow.concurrency
    if limit is None:
        return ()
    return (LiveRunsBelow(run.tenant, run.slug, limit.limit, run.limit_key if limit.key else None),)


@dataclass(slots=True)
class Staged:
    """A run that is ready to be committed: its rows, and what to do once they are."""

    active: Active
    decision: Decision
    batch: Batch
    guards: tuple[Guard, ...]


class Launcher:
    """Prepares runs. Implements `WorkflowStarter` for plugins and `Contributor` for the bus.

    What is staged here is driven when the runner sees its `workflow_started` in a commit. Staged runs whose commit
    never came are forgotten, oldest first.
    """

    def __init__(
        self, registry: Registry, scribe: Scribe, ids: Ids, clock: Clock, *, owner: str, lease: float, key_window: float
    ) -> None:
        self._registry, self._scribe, self._ids, self._clock = registry, scribe, ids, clock
        self.owner, self._lease, self._key_window = owner, lease, key_window
        self._staged: OrderedDict[str, Staged] = OrderedDict()
        # When each definition was last stored, by hash: those that no run names are removed after some days.
        self._stored: dict[str, float] = {}

    def take(self, run_id: str) -> Staged | None:
        """The staged run, once."""
        staged = self._staged.pop(run_id, None)
        if staged is not None:
            for definition in staged.batch.definitions:
                self._stored[definition.hash] = definition.created
        return staged

    # -- WorkflowStarter ---------------------------------------------------------------------------------------------

    def knows(self, slug: str, tenant: str) -> bool:
        return self._registry.knows(slug)

    def stage_start(
        self, slug: str, inputs: Mapping[str, Any], context: CallContext, *, key: str | None = None
    ) -> tuple[Batch, tuple[Guard, ...], str]:
        staged = self.stage(self._registry.get(slug), inputs, context, key=key)
        return staged.batch, staged.guards, staged.active.run.id

    # -- Contributor -------------------------------------------------------------------------------------------------

    def contribute(self, entries: Sequence[LogEntry]) -> tuple[Batch, tuple[Guard, ...]] | None:
        batch: Batch | None = None
        for entry in entries:
            event = entry.event if isinstance(entry, JournalEntry) else entry
            for plan, trigger in self._registry.triggers(event.type):
                batch = Batch() if batch is None else batch
                batch.add(self._triggered(plan, trigger, event))
        return (batch, ()) if batch else None

    def _triggered(self, plan: Plan, trigger: TriggerPlan, event: Event) -> Batch:
        """The rows of a run that `event` starts, none if it does not, or those of `trigger_failed`."""
        scope = {"event": event.as_dict()}
        # No key guards these starts: they are in the commit of an event that is itself stored only once.
        context = CallContext(event.tenant, event.actor, event.roles, cause=event.cause())
        try:
            if trigger.trigger.command is not None and not _is_command(event, trigger.trigger.command):
                return Batch()
            if trigger.condition is not None and not trigger.condition(scope):
                return Batch()
            inputs = trigger.inputs(scope)
            return self.stage(plan, inputs, context, trigger=trigger.id, event=event).batch
        except EventCoreError as error:
            return self._failed(plan, trigger, event, error)

    def _failed(self, plan: Plan, trigger: TriggerPlan, event: Event, error: EventCoreError) -> Batch:
        kind = "bus_loop_detected" if isinstance(error, LoopDetected) else "trigger_failed"
        if event.type == kind:  # a trigger on trigger_failed that fails must not feed itself
            return Batch()
        data = {"slug": plan.slug, "trigger": trigger.id, "event": event.id, "type": event.type, **error.as_dict()}
        if kind == "bus_loop_detected":
            data["members"] = sorted({who for who, _, _ in event.path})
        failed = Event(
            id=self._ids.new(),
            type=kind,
            source=f"/workflows/{plan.slug}",
            at=self._clock.now(),
            raw=encode(data),
            tenant=event.tenant,
            correlation_id=event.correlation_id,
            causation_id=event.id,
        )
        return Batch(log=[failed])

    # -- staging -----------------------------------------------------------------------------------------------------

    def stage(
        self,
        plan: Plan,
        inputs: Mapping[str, Any],
        context: CallContext,
        *,
        key: str | None = None,
        trigger: str | None = None,
        event: Event | None = None,
        parent: str | None = None,
    ) -> Staged:
        """Everything of a new run's first commit, the start of its first steps included.

        Raises:
            InvalidPayload: the inputs do not fit the schema.
            LoopDetected: the run would close a causal loop.
        """
        raw_inputs = plan.check_inputs(inputs)
        run = self._run(plan, raw_inputs, context, trigger, event)
        run.parent = parent or run.parent
        at = run.created
        active = Active(run, plan, initial_state(run))
        if plan.limited:
            run.limit_key = limit_key(plan, plan.filled(inputs))
            decision, batch = Decision(plan, active.state), self._scribe.queued(run, at)
        else:
            decision = reduce(plan, active.state, Begun(at))
            active.state = decision.state
            batch = self._scribe.opening(active, decision, at)
        if at - self._stored.get(plan.hash, -KEEP_UNUSED) >= KEEP_UNUSED / 2:
            batch.definitions.append(Definition(plan.hash, run.tenant, plan.slug, plan.raw, at))
        guards: tuple[Guard, ...] = ()
        if key is not None:
            request = text_digest(raw_inputs.decode())
            row = Key(run.tenant, f"start:{plan.slug}", key, request, run.id, at + self._key_window)
            batch.keys.append(row)
            guards = (KeyAbsent(row.tenant, row.scope, row.key, at),)
        staged = Staged(active, decision, batch, guards)
        if not plan.limited:
            self._stage(staged)
        return staged

    def _stage(self, staged: Staged) -> None:
        self._staged[staged.active.run.id] = staged
        if len(self._staged) > _MAX_STAGED:
            self._staged.popitem(last=False)

    def stage_fork(self, plan: Plan, old: Run, kept: list[Entry], context: CallContext) -> Staged:
        """A new run that has done already what `kept` tells."""
        run = self._run(plan, old.raw_inputs, context, "fork", None)
        run.causation_id, run.raw_trigger_event = old.id, old.raw_trigger_event
        run.limit_key = limit_key(plan, decode(old.raw_inputs))
        state = initial_state(run)
        decision = reduce(plan, fold(state, kept), Begun(run.created))
        decision.entries[:0] = kept
        active = Active(run, plan, decision.state)
        batch = self._scribe.opening(active, decision, run.created)
        batch.definitions.append(Definition(plan.hash, run.tenant, plan.slug, plan.raw, run.created))
        staged = Staged(active, decision, batch, ())
        self._stage(staged)
        return staged

    def promote(self, run: Run, plan: Plan) -> Staged:
        """What begins a queued run."""
        at = self._clock.now()
        guard = RunAt(run.id, run.version, run.fence)
        active = Active(run, plan, initial_state(run))
        decision = reduce(plan, active.state, Begun(at))
        active.state = decision.state
        run.status = "running"
        staged = Staged(active, decision, self._scribe.promoted(active, decision, at), (guard,))
        self._stage(staged)
        return staged

    def _run(
        self, plan: Plan, raw_inputs: bytes, context: CallContext, trigger: str | None, event: Event | None
    ) -> Run:
        cause = context.cause
        what = event.type if event else "start"
        chain = (*cause.path, (f"workflow:{plan.slug}", what, (event.key or "") if event else ""))
        if why := loop_in(Cause(hops=cause.hops, path=chain)):
            raise LoopDetected(f"starting {plan.slug} would close a loop: {why}")
        run_id = self._ids.new()
        at = self._clock.now()
        return Run(
            id=run_id,
            tenant=context.tenant,
            slug=plan.slug,
            definition=plan.hash,
            status="running",
            raw_inputs=raw_inputs,
            actor=context.actor,
            roles=tuple(sorted(context.roles)),
            created=at,
            updated=at,
            correlation_id=cause.correlation or run_id,
            causation_id=cause.event,
            hops=cause.hops,
            chain=chain,
            traceparent=cause.traceparent,
            trigger=trigger,
            raw_trigger_event=encode(event.as_dict()) if event else None,
            parent=cause.run,
            owner=self.owner,
            fence=1,
            lease_until=at + self._lease,
        )


def _is_command(event: Event, command: str) -> bool:
    said = event.data.get("command") if isinstance(event.data, dict) else None
    return bool(said == command or said == command.removeprefix("/"))
