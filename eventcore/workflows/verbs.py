"""What people do to runs that exist: signal, pause, resume, cancel, terminate, retry, fork, decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import AccessDenied, Conflict, InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import LIVE, Guard, LiveRunsBelow, Run
from eventcore.workflows.advance import DECIDED
from eventcore.workflows.definition import needs_of
from eventcore.workflows.launch import Launcher, room_for
from eventcore.workflows.pinned import plan_of
from eventcore.workflows.plan import SIGNALLED, Plan
from eventcore.workflows.registry import Registry
from eventcore.workflows.runner import Runner
from eventcore.workflows.saving import Commit
from eventcore.workflows.scribe import entries_of
from eventcore.workflows.state import UNDO, Entry
from eventcore.workflows.ticks import Asked

_ENDED_BADLY = frozenset({"failed", "cancelled", "terminated"})


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
        load: Callable[[str], Awaitable[Run]],
    ) -> None:
        self._registry, self._launcher, self._store = registry, launcher, store
        self._commit, self._clock = commit, clock
        self._context, self._announce, self._load = context, announce, load
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
            done = await self.runner.ask(run.id, asked, guards)
        except Conflict as conflict:
            raise _explained(conflict, verb) from None
        if not done:
            raise Conflict(f"run {run.id} was told to {verb}, but has not done so yet; look again later")
        now = await self._load(run.id)
        if verb == "pause" and now.status != "paused":
            why = "is ending: what it did is being undone" if now.status in LIVE else f"is {now.status}"
            raise Conflict(f"run {run.id} {why}, so it is too late to pause it")
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
        tenant, found, after = self._context().tenant, list[dict[str, Any]](), ""
        while rows := await self._store.listening(after):
            for row in rows:
                body = decode(row.raw)
                if body["kind"] == "approval" and row.tenant == tenant:
                    found.append({"run": row.run, "step": row.path, **body["about"]})
            after = rows[-1].id
        return found

    async def decide(self, run_id: str, step: str | None, *, approved: bool, note: str = "") -> str:
        """Approve or deny what a run waits for; return the step.

        Raises:
            NotFound: nothing of the run waits for an approval.
            InvalidInput: several steps do, and none is named.
            AccessDenied: the caller has none of the roles.
        """
        await self._load(run_id)
        waiting = {one["step"]: one for one in await self.approvals() if one["run"] == run_id}
        if step is None and len(waiting) > 1:
            raise InvalidInput(f"several steps of run {run_id} wait: {', '.join(waiting)}", hint="name one")
        one = waiting.get(step) if step is not None else next(iter(waiting.values()), None)
        if one is None:
            raise NotFound(f"no step of run {run_id} waits for an approval", hint="eventcore approvals list")
        context = self._context()
        if "operator" not in context.roles and not {*one["roles"]} & context.roles:
            raise AccessDenied(
                f"{context.actor} may not decide this; one of {', '.join(one['roles']) or 'operator'} may"
            )
        told: Mapping[str, Any] = {
            "run": run_id,
            "step": one["step"],
            "approved": approved,
            "by": context.actor,
            "note": note,
        }
        await self._announce(DECIDED, told, context, source="/workflows", subject=one["step"])
        return str(one["step"])


def _explained(conflict: Conflict, verb: str) -> Conflict:
    if not isinstance(conflict.guard, LiveRunsBelow):
        return conflict
    return Conflict(f"{conflict.message}, so there is no place to {verb} this one", hint=f"{verb} it when one is over")


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
    done = {entry.path for entry in entries if entry.type == "step_completed" and entry.data["status"] != "cancelled"}
    kept = []
    for entry in entries:
        top = entry.path.split("/")[0].split("[")[0]
        if top.endswith(UNDO) and top.removesuffix(UNDO) not in again:
            raise Conflict(f"{top.removesuffix(UNDO)} was undone, so a fork cannot build on it", hint="fork further up")
        if top and top not in again and top in done and top in plan.by_id and entry.type.startswith("step_"):
            kept.append(Entry(entry.type, entry.path, entry.attempt, entry.data))
    return kept
