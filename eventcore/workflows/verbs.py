"""What people do to runs that exist: signal, pause, resume, cancel, terminate, retry, fork, decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import AccessDenied, Conflict, InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import LIVE, Batch, Guard, Listening, LiveRunsBelow, Run, StillListening
from eventcore.workflows.advance import DECIDED
from eventcore.workflows.definition import needs_of
from eventcore.workflows.launch import Launcher, room_for
from eventcore.workflows.listening import wake_timer
from eventcore.workflows.pinned import plan_of
from eventcore.workflows.plan import SIGNALLED, Plan
from eventcore.workflows.registry import Registry
from eventcore.workflows.runner import Runner
from eventcore.workflows.saving import Commit
from eventcore.workflows.scribe import entries_of
from eventcore.workflows.state import UNDO, Entry
from eventcore.workflows.ticks import Asked

_ENDED_BADLY = frozenset({"failed", "cancelled", "terminated"})

_LISTS = "eventcore approvals list"
#: As what a run may be found where a verb changed nothing, since somebody else has asked for the same.
_LEADS_TO = {
    "pause": {"paused"},
    "resume": set[str](),
    "cancel": {"cancelled", *LIVE},
    "terminate": {"terminated"},
    "retry": set[str](),
}


class Verbs:
    """Acts on runs; reached through `core.workflows`."""

    def __init__(
        self,
        *,
        registry: Registry,
        launcher: Launcher,
        store: Store,
        commit: Commit,
        clock: Clock,
        context: Callable[[], CallContext],
        announce: Callable[..., Awaitable[Event]],
        build: Callable[..., Event],
        load: Callable[[str], Awaitable[Run]],
    ) -> None:
        self._registry, self._launcher, self._store = registry, launcher, store
        self._commit, self._clock = commit, clock
        self._context, self._load = context, load
        self._announce, self._build = announce, build
        self.runner: Runner | None = None

    async def signal(self, run_id: str, signal: str, data: Any = None) -> None:
        """Tell a run something; a step with `wait_for: {signal: ...}` gets it, now or when it comes to that.

        Raises:
            NotFound: there is no such run.
            Conflict: it is over.
        """
        run = await self._live(run_id, "signal")
        told = {"run": run.id, "signal": signal, "data": data}
        await self._announce(SIGNALLED, told, self._context(), source="/workflows", subject=signal)

    async def ask(self, verb: str, run_id: str, reason: str = "", *, same_key: bool = False) -> Run:
        """Do one of `pause`, `resume`, `cancel`, `terminate`, `retry`; return the run as it is then.

        Raises:
            NotFound: there is no such run.
            Conflict: the run is not in a state for that, another engine drives it, or the workflow's limit of live runs
                is reached (`retry`, `resume`).
        """
        if verb == "retry":
            run = await self._load(run_id)
            await self._check_retry(run)
        else:
            run = await self._live(run_id, verb)
        if verb == "resume" and run.status != "paused":
            raise Conflict(f"run {run.id} is {run.status}, not paused")
        if verb == "pause" and run.status in ("paused", "queued"):
            raise Conflict(f"run {run.id} is {run.status}")
        assert self.runner is not None
        guards: tuple[Guard, ...] = ()
        # A run that is paused or over takes up no place.
        if verb in ("retry", "resume") and (plan := await plan_of(self._registry, self._store, run)) is not None:
            guards = room_for(plan, run)
        asked = Asked(verb, self._context().actor, self._clock.now(), reason, same_key)  # type: ignore[arg-type]
        try:
            changed = await self.runner.ask(run.id, asked, guards)
        except Conflict as conflict:
            raise _explained(conflict, verb) from None
        if changed is None:
            raise Conflict(f"run {run.id} was told to {verb}, but has not done so yet; look again later")
        now = await self._load(run.id)
        # A run that was paused in its last step is over with that.
        if (verb == "pause" or not changed) and now.status not in _LEADS_TO[verb]:
            raise Conflict(f"run {run.id} {_too_late(verb, now.status)}")
        return now

    async def _live(self, run_id: str, verb: str) -> Run:
        run = await self._load(run_id)
        if run.status not in LIVE:
            raise Conflict(f"run {run.id} is {run.status}, so it is too late to {verb} it")
        return run

    async def _check_retry(self, run: Run) -> None:
        if run.status not in _ENDED_BADLY:
            raise Conflict(f"run {run.id} is {run.status}; only a run that failed or was cancelled can be retried")
        journal = await self._store.journal(run.id)
        if any(entry.step.endswith(UNDO) for entry in journal):
            raise Conflict(
                f"steps of run {run.id} have been undone, so it cannot go on", hint="start a new run, or fork this one"
            )
        if not journal:
            raise Conflict(f"run {run.id} never began, so there is no failed step", hint="start a new run")

    # -- fork --------------------------------------------------------------------------------------------------------

    async def fork(self, run_id: str, step: str, *, definition: str = "old") -> str:
        """Start a new run with what an old one finished before `step`; return its id.

        Args:
            step: a step outside groups; it and all that needs it run anew.
            definition: `old`, that of the old run, or `new`, the slug's as it is now.

        Raises:
            NotFound: there is no such run or step.
            Conflict: what would be kept was undone, or the workflow's limit of live runs is reached.
        """
        run = await self._load(run_id)
        if definition not in ("old", "new"):
            raise InvalidInput("definition is `old` or `new`")
        old = definition == "old"
        plan = await plan_of(self._registry, self._store, run) if old else self._registry.get(run.slug)
        if plan is None:
            raise NotFound(f"the definition of run {run.id} is gone", hint="fork it on the new one")
        if step not in plan.by_id:
            raise NotFound(f"{run.slug} has no step {step!r}", hint=f"steps: {', '.join(plan.by_id)}")
        kept = _kept(entries_of(await self._store.journal(run.id)), plan, step)
        context = self._context()
        staged = self._launcher.stage_fork(plan, run, kept, context)
        try:
            await self._commit(staged.batch, (*staged.guards, *room_for(plan, staged.active.run)))
        except Conflict as conflict:
            self._launcher.take(staged.active.run.id)
            raise _explained(conflict, "fork") from None
        return staged.active.run.id

    # -- approvals ---------------------------------------------------------------------------------------------------

    async def approvals(self) -> list[dict[str, Any]]:
        """Approvals that somebody has to give: run, step, message, roles."""
        return [{"run": row.run, "step": row.path, **decode(row.raw)["about"]} for row in await self._approvals()]

    async def _approvals(self) -> list[Listening]:
        tenant, found, after = self._context().tenant, list[Listening](), ""
        while rows := await self._store.listening(after):
            found += [row for row in rows if row.tenant == tenant and decode(row.raw)["kind"] == "approval"]
            after = rows[-1].id
        return found

    async def decide(self, run_id: str, step: str | None, *, approved: bool, note: str = "") -> str:
        """Approve or deny what a run waits for; return the step.

        Raises:
            NotFound: nothing of the run waits for an approval.
            InvalidInput: several steps do, and none is named.
            AccessDenied: the caller has none of the roles.
            Conflict: somebody else has decided in this moment, or the time for it is over.
        """
        status = (await self._load(run_id)).status
        waiting = {row.path: row for row in await self._approvals() if row.run == run_id}
        if step is None and len(waiting) > 1:
            raise InvalidInput(f"several steps of run {run_id} wait: {', '.join(waiting)}", hint="name one")
        row = waiting.get(step) if step is not None else next(iter(waiting.values()), None)
        if row is None:
            raise NotFound(f"no step of run {run_id}, which is {status}, waits for an approval", hint=_LISTS)
        context = self._context()
        roles = decode(row.raw)["about"]["roles"]
        if "operator" not in context.roles and not {*roles} & context.roles:
            raise AccessDenied(f"{context.actor} may not decide this; one of {', '.join(roles) or 'operator'} may")
        told = {"run": run_id, "step": row.path, "approved": approved, "by": context.actor, "note": note}
        await self._decided(row, self._build(DECIDED, told, context, source="/workflows", subject=row.path))
        return row.path

    async def _decided(self, row: Listening, event: Event) -> None:
        """The first decision counts, of whatever engine: it ends the wait in its own commit."""
        batch = Batch(log=[event], timers=[wake_timer(row, event)], listening_done=[row.id])
        try:
            await self._commit(batch, (StillListening(row.id),))
        except Conflict as conflict:
            if not isinstance(conflict.guard, StillListening):
                raise
            message = f"{row.path} of run {row.run} does not wait any more: somebody else decided, or its time is over"
            raise Conflict(message, hint=f"eventcore runs show {row.run}") from None


def _too_late(verb: str, status: str) -> str:
    """Why nothing came of what was asked, in the moment in which somebody else's came first."""
    if status not in LIVE:
        return f"is {status}, so it is too late to {verb} it"
    if verb == "pause":
        return "is ending: what it did is being undone, so it is too late to pause it"
    return f"is {status}: it goes on already"


def _explained(conflict: Conflict, verb: str) -> Conflict:
    if not isinstance(conflict.guard, LiveRunsBelow):
        return conflict
    return Conflict(f"{conflict.message}, so there is no place to {verb} this one", hint=f"{verb} it when one is over")


def _finished(entries: list[Entry]) -> set[str]:
    """Paths that are over. What was retried and goes on belongs to the old run; so does a child that it waits for."""
    done = set[str]()
    for entry in entries:
        if entry.type == "step_completed" and entry.data["status"] != "cancelled":
            done.add(entry.path)
        elif entry.type == "step_started":
            done.discard(entry.path)
        elif entry.type == "workflow_retried":
            done -= {*entry.data["paths"], *entry.data["containers"]}
    return done


def _kept(entries: list[Entry], plan: Plan, step: str) -> list[Entry]:
    """The journal of what a fork does not do again: settled steps that do not come after `step`."""
    again = {step}
    for name, needs in needs_of(plan.workflow.steps).items():
        if again & {*needs}:
            again.add(name)
    changed = True
    while changed:
        changed = False
        for name, needs in needs_of(plan.workflow.steps).items():
            if name not in again and again & {*needs}:
                again.add(name)
                changed = True
    done = _finished(entries)
    kept = []
    for entry in entries:
        top = entry.path.split("/")[0].split("[")[0]
        if top.endswith(UNDO) and top.removesuffix(UNDO) not in again:
            raise Conflict(f"{top.removesuffix(UNDO)} was undone, so a fork cannot build on it", hint="fork further up")
        if top and top not in again and top in done and top in plan.by_id and entry.type.startswith("step_"):
            kept.append(Entry(entry.type, entry.path, entry.attempt, entry.data))
    return kept
