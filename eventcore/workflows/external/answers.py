"""Taking in what other engines answer under the `resume_url` they were given: each address counts once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from eventcore.kernel.errors import Conflict, NotFound
from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.json import encode, text_digest
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import LIVE, Batch, Key, KeyAbsent, Run, Timer
from eventcore.workflows.external.resume import Resume, ResumeTokens, answer_ref
from eventcore.workflows.loading import load
from eventcore.workflows.marks import names_of
from eventcore.workflows.pinned import plan_of
from eventcore.workflows.registry import Registry
from eventcore.workflows.saving import Commit

_SCOPE = "resume"


class Answers:
    """One an engine.

    Args:
        masked: a value without the secrets of these names.
        expect: told when something is due; see `TimerKeeper.expect`.
    """

    def __init__(
        self,
        tokens: ResumeTokens,
        *,
        registry: Registry,
        store: Store,
        commit: Commit,
        clock: Clock,
        masked: Callable[[Any, Collection[str]], Any],
        expect: Callable[[float], None],
    ) -> None:
        self._tokens, self._registry, self._store = tokens, registry, store
        self._commit, self._clock, self._masked, self._expect = commit, clock, masked, expect

    async def answer(self, token: str, data: Any) -> Resume:
        """Give the step that a token is for its answer, durably; return which step that is.

        An answer `{"success": false, "error": ..., "message": ...}` fails the step, as a plugin's result does.

        Raises:
            AccessDenied: the token is not one of this engine's, or its time is over.
            NotFound: the run is gone.
            Conflict: the token was used, or the step does not wait any more.
            InvalidInput: the answer is too large.
        """
        told = self._tokens.verify(token)
        raw = encode(data, limit=MAX_PAYLOAD, what="the answer")
        run = await self._store.run(told.run)
        if run is None:
            raise NotFound(f"run {told.run} is gone")
        attempt, secrets = await self._waiting(run, told)
        now = self._clock.now()
        key = Key(run.tenant, _SCOPE, told.ref, text_digest(raw.decode()), run.id, now + self._tokens.lifetime)
        wake = _wake(run, told.path, attempt, self._masked(data, secrets), now)
        try:
            await self._commit(Batch(timers=[wake], keys=[key]), (KeyAbsent(run.tenant, _SCOPE, told.ref, now),))
        except Conflict:
            raise Conflict(f"{told.path} of run {run.id} has been answered under this address") from None
        self._expect(now)
        return told

    async def _waiting(self, run: Run, told: Resume) -> tuple[int, frozenset[str]]:
        """The attempt that the answer is for, and the secrets that the step was given.

        It is a later attempt than the token's, if the step was called again under the same key.
        """
        over = Conflict(f"{told.path} of run {run.id} does not wait for an answer any more")
        plan = await plan_of(self._registry, self._store, run) if run.status in LIVE else None
        if plan is None:
            raise over
        state = (await load(self._store, run, plan)).state
        step = state.steps.get(told.path)
        if step is None or state.epochs.get(told.path, 0) != told.epoch:
            raise over
        if step.status != "running" and not (step.status == "waiting" and step.waits == "answer"):
            raise over
        return step.attempt, names_of(plan.node(told.path).secrets)


def _wake(run: Run, path: str, attempt: int, data: Any, now: float) -> Timer:
    """The row that tells the run, due at once: it is there after a crash too."""
    ref = answer_ref(run.id, path, attempt)
    told: dict[str, Any] = {"path": path, "ref": ref, "output": data}
    if isinstance(data, dict) and data.get("success") is False:
        kind, message = str(data.get("error") or "AnswerFailed"), data.get("message") or data.get("error")
        told["error"] = {"type": kind, "message": str(message or "the other engine reported a failure")}
    return Timer(f"{run.id}/{path}!{ref}", run.tenant, now, run.id, encode(told))
