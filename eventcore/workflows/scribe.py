"""Turns decisions of the reducer into batches: the rows and events that a commit holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from eventcore.kernel.context import CallContext, Cause, PathEntry
from eventcore.kernel.event import MAX_PAYLOAD, Event
from eventcore.kernel.json import decode, encode
from eventcore.kernel.ports import Ids
from eventcore.kernel.quick import maker
from eventcore.kernel.records import Batch, JournalEntry, Listening, Run, RunMove, RunStatus, Timer
from eventcore.workflows.decision import Decision
from eventcore.workflows.plan import Plan
from eventcore.workflows.snapshots import MAX_SNAPSHOT, UnfitSnapshot, snapshot_of, spacing
from eventcore.workflows.state import Entry, State
from eventcore.workflows.ticks import Call, End, Listen

log = logging.getLogger("eventcore.workflows")

# These are made for every step.
_event = maker(Event)
_journal_entry = maker(JournalEntry)
_run_move = maker(RunMove)
_cause = maker(Cause)
_call_context = maker(CallContext)


@dataclass(slots=True)
class Active:
    """A run in memory: its head row, its plan, its state, and the event ids that later events point back to."""

    run: Run
    plan: Plan
    state: State
    started: dict[str, str] = field(default_factory=dict)
    #: Of a long run: where the last journal entry of `state` is, and from how many entries on a snapshot is due. Short
    #: runs leave both at 0. And whether a snapshot is stored.
    position: int = 0
    due: int = 0
    kept: bool = False
    #: What every event of the run has.
    source: str = field(init=False)
    roles: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.source, self.roles = f"/workflows/{self.run.slug}", frozenset(self.run.roles)

    def cause(self, step: str) -> Cause:
        """The cause of what a step does by itself: its own emits are a hop away."""
        entry: PathEntry = (f"workflow:{self.run.slug}", step, "")
        return _cause(
            event=self.started.get(step, self.run.id),
            correlation=self.run.correlation_id,
            hops=self.run.hops + 1,
            path=(*self.run.chain, entry),
            run=self.run.id,
            traceparent=self.run.traceparent,
        )

    def context(self, step: str) -> CallContext:
        """On whose behalf a step calls: the starter's."""
        return _call_context(tenant=self.run.tenant, actor=self.run.actor, roles=self.roles, cause=self.cause(step))


def initial_state(run: Run) -> State:
    """The state of a run that has no journal yet."""
    event = decode(run.raw_trigger_event) if run.raw_trigger_event else None
    about = {"id": run.id, "slug": run.slug, "tenant": run.tenant, "actor": run.actor, "created": run.created}
    return State(inputs=decode(run.raw_inputs), run=about, event=event)


def entries_of(journal: list[JournalEntry]) -> list[Entry]:
    """Stored journal entries as the reducer reads them."""
    return [Entry(entry.event.type, entry.step, entry.attempt, entry.event.data) for entry in journal]


def listening_row(run: Run, listen: Listen) -> Listening:
    """What a step listens for, as the store keeps it."""
    raw = encode({"kind": listen.kind, "match": listen.match, "about": listen.about})
    return Listening(f"{run.id}/{listen.path}", run.tenant, run.id, listen.path, listen.event, raw)


def _told(run: Run, end: End, at: float) -> Timer:
    """The row that tells the parent of a run's end."""
    parent, _, path = (run.parent or "").partition("/")
    told: dict[str, Any] = {"path": path, "ref": run.id, "output": end.output}
    if end.status != "completed":
        error = end.error or {}
        message = f"{run.slug} {end.status}: {error.get('message', 'no reason given')}"
        kind = "ChildFailed" if end.status == "failed" else "ChildCancelled"
        told["error"] = {"type": kind, "message": message, "run": run.id}
    return Timer(f"{parent}/{path}!{run.id}", run.tenant, at, parent, orjson.dumps(told))


class Scribe:
    """Writes what a decision says as rows; one an engine.

    Args:
        version: of the payload of an event type.
    """

    def __init__(self, ids: Ids, version: Callable[[str], int] = lambda name: 1) -> None:
        self._ids, self._version = ids, version

    def opening(self, active: Active, decision: Decision, at: float) -> Batch:
        """The batch that creates a run: `workflow_started` (its id is the run's), and what the first tick decided."""
        run = active.run
        data = {"slug": run.slug, "run": run.id, "trigger": run.trigger, "inputs": orjson.Fragment(run.raw_inputs)}
        batch = Batch(runs=[run], log=[self._event(run, "workflow_started", data, at, run.id, run.causation_id)])
        self._decided(active, decision, at, batch)
        if decision.end is not None:
            run.status = decision.end.status
            run.raw_output, run.raw_error = _ends(decision)
        elif not decision.calls:
            run.status = "waiting"
        return batch

    def queued(self, run: Run, at: float) -> Batch:
        """The batch that stores a run which has to wait until there is room for it."""
        run.status = "queued"
        data = {"slug": run.slug, "run": run.id, "trigger": run.trigger, "inputs": orjson.Fragment(run.raw_inputs)}
        event = self._event(run, "workflow_queued", data, at, self._ids.new(), run.causation_id)
        return Batch(runs=[run], log=[event])

    def promoted(self, active: Active, decision: Decision, at: float) -> Batch:
        """The batch that begins a queued run."""
        run, version = active.run, active.run.version + 1
        batch = self.opening(active, decision, at)
        batch.runs.clear()
        run.version, run.updated = version, at
        batch.moves.append(RunMove(run.id, run.status, version, at, run.raw_output, run.raw_error))
        return batch

    def progress(self, active: Active, decision: Decision, at: float, *, busy: bool) -> Batch:
        """The batch that moves a run on by one version.

        Args:
            busy: whether any step is being called once the decision is carried out.
        """
        run = active.run
        batch = Batch()
        if active.position:  # of what was committed before: where these entries will be is not known yet
            self._keep(active, decision, batch)
        self._decided(active, decision, at, batch)
        status: RunStatus = "paused" if decision.state.paused else "running" if busy else "waiting"
        output = error = None
        if decision.end is not None:
            status = decision.end.status
            output, error = _ends(decision)
        batch.moves.append(_run_move(run.id, status, run.version + 1, at, output, error))
        return batch

    def _keep(self, active: Active, decision: Decision, batch: Batch) -> None:
        """Put a snapshot of a long run beside what moves it on; take it away where the run ends."""
        if decision.end is not None:
            if active.kept:
                batch.snapshots_done.append(active.run.id)
        elif active.state.count >= active.due:
            try:
                batch.snapshots.append(snapshot_of(active.run, active.state, active.started, active.position))
            except UnfitSnapshot as unfit:
                log.warning("no snapshot of run %s of %s is kept: it %s", active.run.id, active.run.slug, unfit)
                active.due = active.state.count + spacing(MAX_SNAPSHOT)

    def parked(self, active: Active, calls: list[Call], at: float) -> Batch:
        """The batch that shows for what a run waits: intents that nobody answers."""
        intents = ", ".join(sorted({call.intent for call in calls}))
        waits = {"type": "UnknownIntent", "message": f"waits for the intent {intents}: nobody answers it yet"}
        run = active.run
        return Batch(moves=[RunMove(run.id, "waiting", run.version + 1, at, raw_error=encode(waits))])

    def _decided(self, active: Active, decision: Decision, at: float, batch: Batch) -> None:
        run = active.run
        for entry in decision.entries:
            batch.log.append(self._journal(active, entry, at))
        if not decision.plain:
            self._more(active, decision, at, batch)
        if decision.end is not None and run.parent is not None and "/" in run.parent:
            batch.timers.append(_told(run, decision.end, at))
        if decision.end is not None:
            batch.log.extend(self._ended(run, decision, at))

    def _more(self, active: Active, decision: Decision, at: float, batch: Batch) -> None:
        """What most decisions have not: events, timers, and who listens."""
        run = active.run
        for publish in decision.publishes:
            batch.log.append(self._published(active, publish.path, publish.type, publish.data, at))
        for wait in decision.waits:
            raw = encode({"path": wait.path, "set": at})
            batch.timers.append(Timer(f"{run.id}/{wait.path}", run.tenant, wait.due, run.id, raw))
        # Told by a row of the same commit, so that no child is left behind by a crash.
        for child, verb in decision.children:
            raw = encode({"ask": verb, "by": f"workflow:{run.slug}"})
            batch.timers.append(Timer(f"{child}!{verb}", run.tenant, at, child, raw))
        batch.timers_done.extend(f"{run.id}/{path}" for path in decision.waits_done)
        batch.timers_done.extend(decision.timers_done)
        batch.listening.extend(listening_row(run, listen) for listen in decision.listens)
        batch.listening_done.extend(f"{run.id}/{path}" for path in decision.listens_done)

    def _journal(self, active: Active, entry: Entry, at: float) -> JournalEntry:
        run = active.run
        event_id = self._ids.new()
        if not entry.path:
            data = {"slug": run.slug, "run": run.id, **entry.data}
            return JournalEntry(self._event(run, entry.type, data, at, event_id, run.id, subject=""), 0)
        if entry.type == "step_started":
            cause = run.id
            active.started[entry.path] = event_id
        else:
            cause = active.started.get(entry.path, run.id)
        step = active.plan.node(entry.path)
        data = {"slug": run.slug, "step": entry.path, "attempt": entry.attempt, step.kind: step.target, **entry.data}
        event = self._event(run, entry.type, data, at, event_id, cause, entry.path, active)
        return _journal_entry(event, entry.attempt)

    def _published(self, active: Active, step: str, type: str, data: Any, at: float) -> Event:
        cause = active.cause(step)
        return Event(
            id=self._ids.new(),
            type=type,
            source=f"/workflows/{active.run.slug}",
            at=at,
            raw=encode(data, limit=MAX_PAYLOAD, what=f"the data of {type}"),
            tenant=active.run.tenant,
            actor=f"workflow:{active.run.slug}",
            run=active.run.id,
            correlation_id=active.run.correlation_id,
            causation_id=cause.event,
            hops=cause.hops,
            path=cause.path,
            traceparent=cause.traceparent,
            schema_version=self._version(type),
            roles=frozenset(active.run.roles),
        )

    def _ended(self, run: Run, decision: Decision, at: float) -> list[Event]:
        end = decision.end
        assert end is not None
        data = {"slug": run.slug, "run": run.id, "status": end.status, "seconds": round(at - run.created, 6)}
        data |= {"error": end.error} if end.error else {"output": end.output}
        events = [self._event(run, "workflow_completed", data, at, self._ids.new(), run.id)]
        if end.status != "completed":
            ended = "workflow_failed" if end.status == "failed" else "workflow_cancelled"
            events.insert(0, self._event(run, ended, data, at, self._ids.new(), run.id))
        return events

    def _event(
        self,
        run: Run,
        type: str,
        data: dict[str, Any],
        at: float,
        event_id: str,
        cause: str | None,
        subject: str | None = None,
        active: Active | None = None,
    ) -> Event:
        # Not limited to MAX_PAYLOAD: inputs and outputs were when they came in, and these only wrap them.
        return _event(
            event_id,
            type,
            f"/workflows/{run.slug}" if active is None else active.source,
            at,
            orjson.dumps(data),
            run.tenant,
            run.actor,
            subject,
            None,
            run.id,
            run.correlation_id,
            cause,
            run.hops,
            run.chain,
            run.traceparent,
            roles=frozenset(run.roles) if active is None else active.roles,
        )


def _ends(decision: Decision) -> tuple[bytes | None, bytes | None]:
    end = decision.end
    assert end is not None
    if end.status != "completed":
        return None, orjson.dumps(end.error)
    return orjson.dumps(end.output), None
