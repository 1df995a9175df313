"""Calling the intent of a step: whatever comes of it becomes a tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio

from eventcore.bus.calling import readable
from eventcore.kernel.errors import EventCoreError, PluginFailed, PluginTimeout
from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.ids import step_key
from eventcore.kernel.json import decode, encode
from eventcore.kernel.ports import Clock, Faults, Invocation, Invoker, Randomness
from eventcore.kernel.quick import maker
from eventcore.kernel.records import Batch, Guard
from eventcore.workflows.driven import Arrival
from eventcore.workflows.scribe import Active
from eventcore.workflows.ticks import Call, StepBroke, StepParked, StepSucceeded

#: The longest wait that an error may ask for, in seconds.
_MAX_RETRY_AFTER = 86400.0


_succeeded = maker(StepSucceeded)

#: Does a step that calls no intent: (run, call, metadata) -> what came of it.
Other = Callable[..., Any]


@dataclass(slots=True)
class Parked:
    """The step's work was handed on; its end comes later, as an `Answered`.

    Attributes:
        ref: the child's run id, or what identifies the answer.
        effects: what is committed together with the step's beginning to wait.
        limit: seconds that it waits at most, whatever the step's own `timeout` says; None for no such limit.
    """

    waits: Literal["child", "answer"]
    ref: str
    effects: Batch = field(default_factory=Batch)
    guards: tuple[Guard, ...] = ()
    limit: float | None = None


class StepCalls:
    """Calls intents for the runner."""

    def __init__(
        self, invoker: Invoker, clock: Clock, randomness: Randomness, faults: Faults, others: Mapping[str, Other]
    ) -> None:
        self._invoker, self._clock, self._randomness, self._faults = invoker, clock, randomness, faults
        self._others = others

    async def call(self, active: Active, call: Call) -> Arrival:
        """Call the intent of a step; whatever happens becomes a tick."""
        run = active.run
        metadata = {
            "call_id": f"{run.id}/{call.path}#{call.attempt}",
            "idempotency_key": step_key(run.id, call.path, call.epoch),
            "run": run.id,
            "step": call.path,
            "attempt": call.attempt,
            "tenant": run.tenant,
        }
        self._faults.reach("step.before_call")
        # A step without a limit of its own has the invoker's, which every call has; two would cost twice.
        limit = None if call.timeout is None else anyio.CancelScope(deadline=anyio.current_time() + call.timeout)
        done: Invocation | Parked | None = None
        try:
            with limit or nullcontext():
                if call.kind == "plugin":
                    params = call.params if not call.secrets else self._others["secrets"](call)
                    done = await self._invoker.invoke(call.intent, params, active.context(call.path), metadata)
                else:
                    done = await self._others[call.kind](active, call, metadata)
            if done is None:
                raise PluginTimeout(f"{call.intent} ran over the step's {call.timeout:g} s")
            if isinstance(done, Parked):
                self._faults.reach("step.after_call")
                parked = StepParked(call.path, call.attempt, done.waits, done.ref, self._clock.now(), done.limit)
                return Arrival(parked, done.effects, done.guards)
            if (raw := done.raw) is None or len(raw) > MAX_PAYLOAD:
                raw = encode(done.result, limit=MAX_PAYLOAD, what=f"the result of {call.intent}")
            output = decode(raw)
            if call.secrets:
                output = self._others["masked"](call, output)
        except Exception as error:  # noqa: BLE001 - isolation: a step's failure is recorded, never the engine's
            return self._broke(call, error)
        self._faults.reach("step.after_call")
        if isinstance(output, dict) and output.get("success") is False:
            return self._broke(call, _reported_failure(call, output))
        tick = _succeeded(call.path, call.attempt, output, self._clock.now())
        return Arrival(tick, done.effects, done.guards)

    def _broke(self, call: Call, error: BaseException) -> Arrival:
        kind = error.kind if isinstance(error, PluginFailed) and error.kind != "PluginFailed" else type(error).__name__
        message = readable(error.message if isinstance(error, EventCoreError) else error)
        after = _seconds(error.details.get("retry_after") if isinstance(error, EventCoreError) else None)
        body = {"type": kind, "message": message}
        if call.secrets:
            body = self._others["masked"](call, body)
        return Arrival(StepBroke(call.path, call.attempt, body, self._clock.now(), self._randomness.random(), after))

    def refused(self, arrival: Arrival, error: EventCoreError) -> Arrival:
        """What a step wanted to commit along with its completion is not acceptable: the step failed."""
        tick = arrival.tick
        if not isinstance(tick, StepSucceeded | StepParked):
            raise error
        body = {"type": type(error).__name__, "message": error.message}
        return Arrival(StepBroke(tick.path, tick.attempt, body, tick.at, self._randomness.random()))


def _reported_failure(call: Call, output: dict[str, Any]) -> PluginFailed:
    """A result `{"success": false}` is a failure that the handler reports instead of raising."""
    message = output.get("message") or output.get("error") or f"{call.intent} reported a failure"
    kind, after = str(output.get("error") or "PluginFailed"), output.get("retry_after")
    return PluginFailed(str(message), kind=kind, retry_after=after)


def _seconds(after: Any) -> float | None:
    """What an error asks to wait, where it is a number that can be waited for."""
    if isinstance(after, bool) or not isinstance(after, int | float) or not after >= 0:
        return None
    return min(float(after), _MAX_RETRY_AFTER)
