"""`core.workflows`: what users call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

import anyio

from eventcore.bus.staging import Staging
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import Conflict, IdempotencyConflict, InvalidInput, NotFound, RunFailed, UnknownIntent
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode
from eventcore.kernel.ports import Clock, Invoker, Store
from eventcore.kernel.records import LIVE, Batch, Guard, KeyAbsent, Run, RunQuery
from eventcore.workflows.definition import Workflow
from eventcore.workflows.explain import explain_triggers
from eventcore.workflows.external.answers import Answers
from eventcore.workflows.launch import Launcher, Staged
from eventcore.workflows.plan import Plan
from eventcore.workflows.registry import Registry
from eventcore.workflows.runner import Runner
from eventcore.workflows.saving import Commit
from eventcore.workflows.schedules import Scheduler
from eventcore.workflows.verbs import Verbs


class RunHandle:
    """A run that was started or looked up.

    Attributes:
        id: the run's id.
        slug: the workflow's.
    """

    def __init__(self, run_id: str, slug: str, load: Callable[[str], Awaitable[Run]]) -> None:
        self.id, self.slug = run_id, slug
        self._load = load
        self._over = anyio.Event()
        self._data: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"RunHandle({self.slug!r}, {self.id!r})"

    async def row(self) -> Run:
        """The run's head row as it is now."""
        return await self._load(self.id)

    async def status(self) -> str:
        """`queued`, `running`, `waiting`, `paused`, `completed`, `failed`, `cancelled` or `terminated`."""
        return str((await self.row()).status)

    async def result(self, timeout: float | None = 60.0) -> Any:
        """Wait for the end and return the run's outputs.

        Args:
            timeout: seconds to wait; None waits for ever. The run goes on when the wait is given up.

        Raises:
            RunFailed: the run failed or was cancelled; `details` hold its status, step and error.
            TimeoutError: it is not over yet.
        """
        if not await self.over(timeout):
            raise TimeoutError(f"run {self.id} of {self.slug} is not over after {timeout:g} s")
        assert self._data is not None
        if self._data["status"] == "completed":
            return self._data["output"]
        raise RunFailed.of(self.slug, self.id, self._data["status"], self._data.get("error") or {})

    async def over(self, timeout: float | None = 60.0) -> bool:
        """Wait for the end, however it comes, at most `timeout` seconds; return whether it came."""
        if self._data is None:
            await self._look()
        with anyio.move_on_after(timeout):
            await self._over.wait()
        return self._data is not None

    async def _look(self) -> None:
        row = await self.row()
        if row.status not in LIVE and self._data is None:
            self.end({"status": row.status, "output": _decoded(row.raw_output), "error": _decoded(row.raw_error)})

    def end(self, data: dict[str, Any]) -> None:
        """The run is over; `data` is that of its `workflow_completed`."""
        self._data = data
        self._over.set()


def _decoded(raw: bytes | None) -> Any:
    return None if raw is None else decode(raw)


class Workflows:
    """Definitions and runs; reached as `core.workflows`."""

    def __init__(
        self,
        *,
        registry: Registry,
        launcher: Launcher,
        store: Store,
        commit: Commit,
        clock: Clock,
        invoker: Invoker,
        context: Callable[[], CallContext],
        reach: Callable[[str], None],
        staging: Callable[[], Staging | None],
        announce: Callable[..., Awaitable[Event]],
        build: Callable[..., Event],
    ) -> None:
        self.registry, self.launcher = registry, launcher
        self._store, self._commit, self._clock, self._invoker = store, commit, clock, invoker
        self._context, self._reach, self._staging = context, reach, staging
        self._handles: dict[str, WeakSet[RunHandle]] = {}
        self.runner: Runner | None = None
        self._announce = announce
        #: Acts on runs that exist: signal, pause, cancel, ...
        self.verbs = Verbs(
            registry=registry,
            launcher=launcher,
            store=store,
            commit=commit,
            clock=clock,
            context=context,
            announce=announce,
            build=build,
            load=self._load,
        )
        self.schedules: Scheduler | None = None
        self.answers: Answers | None = None

    async def signal(self, run_id: str, signal: str, data: Any = None) -> None:
        """Tell a run something; see `Verbs.signal`."""
        await self.verbs.signal(run_id, signal, data)

    async def pause(self, run_id: str, reason: str = "") -> Run:
        """Steps in flight finish, nothing new starts; what comes meanwhile is recorded, and deadlines run on."""
        return await self.verbs.ask("pause", run_id, reason)

    async def resume(self, run_id: str) -> Run:
        """Let a paused run go on."""
        return await self.verbs.ask("resume", run_id)

    async def cancel(self, run_id: str, reason: str = "") -> Run:
        """Stop a run, its children first, and undo what it finished."""
        return await self.verbs.ask("cancel", run_id, reason)

    async def terminate(self, run_id: str, reason: str = "") -> Run:
        """Stop a run at once; nothing is undone."""
        return await self.verbs.ask("terminate", run_id, reason)

    async def retry(self, run_id: str, *, same_key: bool = False) -> Run:
        """Go on from the failed steps, under new idempotency keys unless `same_key`."""
        return await self.verbs.ask("retry", run_id, same_key=same_key)

    async def fork(self, run_id: str, step: str, *, definition: str = "old") -> RunHandle:
        """A new run that begins at `step` with what the old one had done before it; see `Verbs.fork`."""
        return await self.run(await self.verbs.fork(run_id, step, definition=definition))

    async def answer(self, token: str, data: Any = None) -> str:
        """Take in what another engine sends to a `resume_url`, whose last part is `token`; return the run's id.

        Each token counts once. An answer `{"success": false, "message": ...}` fails the step.

        Raises:
            AccessDenied: the token is not one of this engine's, or its time is over.
            NotFound: the run is gone.
            Conflict: the token was used, or the step does not wait any more.
        """
        assert self.answers is not None
        return (await self.answers.answer(token, data)).run

    async def webhook(self, name: str, data: Any, context: CallContext) -> list[RunHandle]:
        """Start what a webhook of this name starts. The server's port: it has checked who calls.

        Raises:
            NotFound: no trigger has this name.
        """
        found = [(plan, one) for plan in self.registry for one in plan.triggers if one.trigger.webhook == name]
        if not found:
            raise NotFound(f"no workflow has a webhook {name!r}", hint="eventcore workflows list")
        handles, batch, guards = [], Batch(), list[Guard]()
        scope = {"event": {"type": "webhook", "subject": name, "data": data, "actor": context.actor}}
        for plan, one in found:
            if one.condition is None or one.condition(scope):
                staged = self.launcher.stage(plan, one.inputs(scope), context, trigger=one.id)
                handles.append(self._handle(staged.active.run, live=True))
                batch.add(staged.batch)
                guards.extend(staged.guards)
        if handles:  # in one commit: who is told of an error calls again, and none may have begun then
            await self._commit(batch, guards)
        return handles

    def define(self, source: str | Mapping[str, Any] | Workflow | Path, file: str = "<definition>") -> Plan:
        """Register a workflow: YAML text, a mapping, a `Workflow` model, or a path to a YAML file.

        Raises:
            InvalidDefinition: with file, line and key of each mistake.
        """
        return self.registry.define(source, file)

    def definitions(self) -> list[Plan]:
        """All definitions, by slug."""
        return [*self.registry]

    def explain(self, event: Event) -> list[dict[str, Any]]:
        """Every trigger that listens to the event's type, with what its condition says; see `explain_triggers`."""
        return explain_triggers(self.registry, event)

    async def start(
        self,
        slug: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        context: CallContext | None = None,
    ) -> RunHandle:
        """Start a run and return once it is durable.

        Inside a handler of a durable subscription the start is staged: it is committed together with the handler's
        acknowledgement, and dropped if the handler fails. Do not wait for the run's result there.

        Args:
            slug: a defined workflow.
            inputs: checked against the definition's schema.
            idempotency_key: the same key again, within seven days, returns the first run.
            context: on whose behalf; the run's steps call with these roles. Default: the current caller.

        Raises:
            UnknownWorkflow: no such slug, or a step starts one that nobody serves.
            UnknownIntent: a step calls an intent that nobody answers.
            InvalidPayload: the inputs do not fit.
            IdempotencyConflict: the key was used with other inputs.
        """
        plan = self.registry.get(slug)
        for child in sorted(plan.children):
            if not self.registry.knows(child):
                self.registry.get(child)  # raises, and names the places searched
        caller = context or self._context()
        for intent in sorted(plan.intents):
            if not self._invoker.knows(intent, caller.tenant):
                raise UnknownIntent(
                    f"{slug} calls the intent {intent!r}, which nobody answers",
                    hint=f"enable a plugin that has it: eventcore plugins list --intent {intent}",
                )
        staged = self.launcher.stage(plan, inputs or {}, caller, key=idempotency_key)
        if (staging := self._staging()) is not None:
            return await self._stage(staged, staging, idempotency_key)
        handle = self._handle(staged.active.run, live=True)
        self._reach("run.before_start")
        try:
            await self._commit(staged.batch, staged.guards)
        except Conflict as conflict:
            self.launcher.take(staged.active.run.id)
            self._handles.pop(staged.active.run.id, None)
            if idempotency_key is None or not isinstance(conflict.guard, KeyAbsent):
                raise
            return await self._first(staged, idempotency_key)
        return handle

    async def _stage(self, staged: Staged, staging: Staging, key: str | None) -> RunHandle:
        """Keep the start for the acknowledgement of the delivery being served."""
        run = staged.active.run
        for mine in staged.batch.keys:
            if await self._store.key(mine.tenant, mine.scope, mine.key, self._clock.now()) is not None:
                self.launcher.take(run.id)
                return await self._first(staged, key or mine.key)
        try:
            staging.add(staged.batch, staged.guards)
        except InvalidInput:
            self.launcher.take(run.id)
            raise
        handle = self._handle(run, live=True)

        def end() -> None:
            if not staging.committed:
                self.launcher.take(run.id)
                self._handles.pop(run.id, None)

        staging.at_end(end)
        return handle

    async def _first(self, staged: Staged, key: str) -> RunHandle:
        """The run that was started under this key before."""
        run = staged.active.run
        mine = staged.batch.keys[0]
        known = await self._store.key(mine.tenant, mine.scope, mine.key, self._clock.now())
        if known is None:
            raise Conflict(f"the key {key!r} of {run.slug} expired while it was being used; start again")
        if known.digest != mine.digest:
            raise IdempotencyConflict(
                f"the idempotency key {key!r} of {run.slug} belongs to run {known.ref}, which has other inputs"
            )
        return await self.run(known.ref)

    async def run(self, run_id: str) -> RunHandle:
        """A run by id.

        Raises:
            NotFound: there is none.
        """
        row = await self._load(run_id)
        return self._handle(row, live=row.status in LIVE)

    async def runs(
        self, *, slug: str | None = None, statuses: tuple[str, ...] = (), before: str | None = None, limit: int = 50
    ) -> list[Run]:
        """Runs, newest first. `before` is the last id of the page before this one."""
        tenant = self._context().tenant
        return await self._store.runs(RunQuery(tenant, slug, statuses, before, limit))

    async def _load(self, run_id: str) -> Run:
        run = await self._store.run(run_id)
        if run is None or run.tenant != self._context().tenant:
            raise NotFound(f"there is no run {run_id}", hint="eventcore runs list")
        return run

    def _handle(self, run: Run, *, live: bool) -> RunHandle:
        handle = RunHandle(run.id, run.slug, self._load)
        if live:
            self._handles.setdefault(run.id, WeakSet()).add(handle)
        return handle

    def ended(self, event: Event) -> None:
        """A `workflow_completed` was committed: tell who waits for that run."""
        handles = self._handles.pop(event.run or "", None)
        for handle in handles or ():
            handle.end(event.data)
