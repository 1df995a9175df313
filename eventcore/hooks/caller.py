"""The call of a hook: gates, filters, commit, replies, observers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
from pydantic import ValidationError

from eventcore.bus.bus import Bus
from eventcore.bus.calling import as_async, describe, name_of, readable
from eventcore.bus.current import serving
from eventcore.bus.types import explain
from eventcore.hooks.registry import Answer, ChatCommand, Handler, HookRegistry, Stage, Tier
from eventcore.hooks.specs import HOOKS, HookSpec, checked, spec_of
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import HookFailed, InvalidPayload, NotFound, PluginFailed, PluginTimeout
from eventcore.kernel.event import MAX_PAYLOAD, Event
from eventcore.kernel.json import decode, encode, encode_sorted, text_digest
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.ports import Clock, Metrics
from eventcore.kernel.records import Batch, Guard
from eventcore.sdk.stages import mark_of
from eventcore.sdk.verdicts import Deny, Replace, Stop

log = logging.getLogger("eventcore.hooks")

CallStatus = Literal["ok", "denied", "replaced", "error", "timeout", "skipped"]


@dataclass(frozen=True, slots=True)
class Trace:
    """What one handler did in one call."""

    handler: str
    stage: Stage
    status: CallStatus
    seconds: float
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        body = {"handler": self.handler, "stage": self.stage, "status": self.status, "ms": round(self.seconds * 1e3, 3)}
        return {**body, "error": self.error} if self.error else body


@dataclass(slots=True)
class HookOutcome:
    """What came of a hook call.

    Attributes:
        hook: its name.
        value: the payload as observers saw it; None if the call was denied.
        denied, reason, by: whether, why and by which handler it was denied.
        replies: what reply handlers answered, in order.
        repliers: the handler of each reply.
        event: the recorded event; None if the call was denied.
        trace: one entry a handler, in the order of the call.
    """

    hook: str
    value: dict[str, Any] | None = None
    denied: bool = False
    reason: str | None = None
    by: str | None = None
    replies: list[Any] = field(default_factory=list)
    repliers: list[str] = field(default_factory=list)
    event: Event | None = None
    trace: list[Trace] = field(default_factory=list)


class _Denied(Exception):
    def __init__(self, handler: str, reason: str) -> None:
        self.handler, self.reason = handler, reason


class Hooks:
    """Made by the engine; reached as `core.hooks`."""

    def __init__(self, *, bus: Bus, clock: Clock, metrics: Metrics) -> None:
        self._bus, self._clock, self._metrics = bus, clock, metrics
        self.registry = HookRegistry()

    # -- registering -------------------------------------------------------------------------------------------------

    def register(
        self,
        hook: str,
        function: Callable[..., Any],
        *,
        stage: Stage | None = None,
        owner: str = "host",
        tier: Tier = "plugin",
        priority: int | None = None,
        place: str = "",
        line: int = 0,
    ) -> Handler:
        """Add a trusted in-process handler.

        Args:
            hook: a hook's name, `on_message`.
            function: sync or async; gets the payload. A stage decorator on it is followed unless `stage` is given.
            stage: `gate`, `filter`, `reply` (default) or `observe`.

        Raises:
            NotFound: there is no such hook.
        """
        spec_of(hook)
        mark = mark_of(function)
        handler = Handler(
            hook=hook,
            owner=owner,
            function=name_of(function),
            stage=stage or (mark.stage if mark else "reply"),
            call=_in_process(function, self._bus),
            tier=tier,
            priority=priority if priority is not None else (mark.priority if mark else 0),
            before=mark.before if mark else (),
            after=mark.after if mark else (),
            recheck=mark.recheck if mark else False,
            place=place,
            line=line,
        )
        self.registry.register([handler])
        return handler

    # -- calling -----------------------------------------------------------------------------------------------------

    async def call(self, hook: str, payload: Any, *, context: CallContext | None = None) -> HookOutcome:
        """Put the question of `hook` to its handlers.

        Args:
            hook: a hook's name.
            payload: JSON that fits the hook's model.
            context: on whose behalf; default the current caller.

        Raises:
            NotFound, InvalidPayload: no such hook, or a payload that does not fit.
            HookFailed: a gate or filter failed and the hook's rule is to raise.
            LoopDetected: the call came of a handler, and would close a causal loop.
        """
        self._bus.check_open()
        spec = spec_of(hook)
        data = _checked(spec, payload)
        stages = self.registry.ordered(hook)
        return await self._call(spec, data, stages, stages["reply"], stages["observe"], context, _payload_only)

    async def command(self, message: Any, *, context: CallContext | None = None) -> HookOutcome:
        """Run a chat command such as `/greet ada`: the gates and filters of `on_message`, then the declaring plugin.

        Raises:
            NotFound: nobody declares it; names the nearest.
        """
        self._bus.check_open()
        said = _checked(HOOKS["on_message"], message)
        name, *args = said["text"].split() or ("",)
        if not name:
            raise InvalidPayload("on_command: the text holds no command", hint="/help, for instance")
        command = self.command_of(name)
        data = _checked(HOOKS["on_command"], {**said, "command": name, "args": args})
        stages = self.registry.ordered("on_message")
        return await self._call(
            HOOKS["on_command"],
            data,
            stages,
            (command.handler,),
            (),
            context,
            lambda said: (said["command"], said["args"]),
        )

    def command_of(self, name: str) -> ChatCommand:
        """The declared command of this name.

        Raises:
            NotFound: there is none; names the nearest.
        """
        command = self.registry.command(name)
        if command is None:
            names = [one.name for one in self.registry.commands()]
            raise NotFound(f"there is no command {name}{did_you_mean(name, names)}", hint="eventcore hooks list")
        return command

    async def _call(
        self,
        spec: HookSpec,
        data: dict[str, Any],
        stages: dict[Stage, tuple[Handler, ...]],
        replies: tuple[Handler, ...],
        observers: tuple[Handler, ...],
        context: CallContext | None,
        arguments: Callable[[dict[str, Any]], tuple[Any, ...]],
    ) -> HookOutcome:
        call = _Call(self, spec, context or self._bus.context())
        began = self._clock.monotonic()
        try:
            await call.gates(stages["gate"], data)
            value = await call.filters(stages["filter"], data)
            await call.gates(tuple(handler for handler in stages["gate"] if handler.recheck), value)
        except _Denied as denial:
            await call.record_denial(denial, data)
        else:
            await call.commit(value)
            await call.replies(replies, value, arguments)
            await call.observers(observers, value)
            await call.record_end()
        outcome = call.outcome
        self._metrics.count("eventcore_hook_calls_total", hook=spec.name, outcome="denied" if outcome.denied else "ok")
        self._metrics.observe("eventcore_hook_seconds", self._clock.monotonic() - began, hook=spec.name)
        return outcome


class _Call:
    """One call in progress."""

    def __init__(self, hooks: Hooks, spec: HookSpec, context: CallContext) -> None:
        self._bus, self._clock, self._spec = hooks._bus, hooks._clock, spec
        self._context = context
        self._deadline = self._clock.monotonic() + spec.budget
        self._effects, self._guards = Batch(), list[Guard]()
        self.outcome = HookOutcome(spec.name)

    # -- stages ------------------------------------------------------------------------------------------------------

    async def gates(self, handlers: tuple[Handler, ...], value: dict[str, Any]) -> None:
        for handler in handlers:
            answer = await self._ask(handler, (value,), self._context, effects=False)
            if answer is None:
                self._failed(handler)
            elif isinstance(answer.value, Deny):
                self._status("denied")
                raise _Denied(handler.name, readable(answer.value.reason))
            elif answer.value is not None:
                self._contract(handler, answer.value, "None or Deny(reason)")
                self._failed(handler)

    async def filters(self, handlers: tuple[Handler, ...], value: dict[str, Any]) -> dict[str, Any]:
        for handler in handlers:
            answer = await self._ask(handler, (value,), self._context, effects=False)
            if answer is None:
                self._failed(handler)
            elif isinstance(answer.value, Replace):
                value = self._replaced(handler, answer.value.value, value)
            elif answer.value is not None:
                self._contract(handler, answer.value, "None or Replace(payload)")
                self._failed(handler)
        return value

    def _replaced(self, handler: Handler, new: Any, old: dict[str, Any]) -> dict[str, Any]:
        try:
            value = _checked(self._spec, new)
        except InvalidPayload as error:
            self._status("error", f"its Replace does not fit: {error.message}")
            self._failed(handler)
            return old
        self._status("replaced")
        if "args" in old and value["text"] != old["text"] and value["args"] == old["args"]:
            # A filter that masks the text of a command means its arguments too: they are the same words.
            value["args"] = value["text"].split()[1:]
        return value

    async def replies(
        self,
        handlers: tuple[Handler, ...],
        value: dict[str, Any],
        arguments: Callable[[dict[str, Any]], tuple[Any, ...]],
    ) -> None:
        for handler in handlers:
            answer = await self._ask(handler, arguments(value), self._after(handler), effects=True)
            if answer is None or answer.value is None:
                self._keep(answer)
                continue
            reply = answer.value.value if isinstance(answer.value, Stop) else answer.value
            if not isinstance(reply, dict):
                self._contract(handler, answer.value, "None, an object, or Stop(object)")
                continue
            try:
                encode(reply, limit=MAX_PAYLOAD, what="its reply")
            except InvalidPayload as error:
                self._status("error", error.message)
                continue
            self._keep(answer)
            self.outcome.replies.append(reply)
            self.outcome.repliers.append(handler.name)
            if isinstance(answer.value, Stop) or self._spec.mode == "first":
                return

    async def observers(self, handlers: tuple[Handler, ...], value: dict[str, Any]) -> None:
        for handler in handlers:
            self._keep(await self._ask(handler, (value,), self._after(handler), effects=True))

    def _keep(self, answer: Answer | None) -> None:
        if answer is not None:
            self._effects.add(answer.effects)
            self._guards.extend(answer.guards)

    def _after(self, handler: Handler) -> CallContext:
        """The context of a handler that runs after the commit: what it does follows from the event."""
        assert self.outcome.event is not None
        return self._context.because(self.outcome.event.cause(hop=handler.name))

    # -- one handler -------------------------------------------------------------------------------------------------

    async def _ask(
        self, handler: Handler, args: tuple[Any, ...], context: CallContext, *, effects: bool
    ) -> Answer | None:
        """The handler's answer; None if it failed, with the failure in the trace."""
        began = self._clock.monotonic()
        limit = min(self._spec.timeout, self._deadline - began)
        if limit <= 0:
            self._trace(handler, "skipped", 0.0, f"the call's budget of {self._spec.budget:g} s is used up")
            return None
        answer: Answer | None = None
        try:
            with anyio.move_on_after(limit) as scope:
                answer = await handler.call(args, context, effects=effects, timeout=limit)
        except Exception as error:
            log.warning("%s failed in %s", handler.name, handler.hook, exc_info=error)
            message = error.message if isinstance(error, PluginFailed) else describe(error)
            status: CallStatus = "timeout" if isinstance(error, PluginTimeout) else "error"
            self._trace(handler, status, self._clock.monotonic() - began, message)
            return None
        if scope.cancelled_caught:
            self._trace(handler, "timeout", self._clock.monotonic() - began, f"ran over its {limit:g} s")
            return None
        self._trace(handler, "ok", self._clock.monotonic() - began)
        return answer

    def _trace(self, handler: Handler, status: CallStatus, seconds: float, error: str | None = None) -> None:
        self.outcome.trace.append(Trace(handler.name, handler.stage, status, seconds, error))

    def _status(self, status: CallStatus, error: str | None = None) -> None:
        last = self.outcome.trace[-1]
        self.outcome.trace[-1] = Trace(last.handler, last.stage, status, last.seconds, error)

    def _contract(self, handler: Handler, value: Any, allowed: str) -> None:
        self._status("error", f"a {handler.stage} answers {allowed}, not {type(value).__name__}")

    def _failed(self, handler: Handler) -> None:
        """A gate or filter failed: what that means is the tier's and the spec's to say."""
        why = self.outcome.trace[-1].error or "failed"
        if handler.stage == "gate" and handler.tier == "policy":
            raise _Denied(handler.name, f"the policy gate failed and so denies: {why}")
        if self._spec.on_error == "deny":
            raise _Denied(handler.name, why)
        if self._spec.on_error == "raise":
            raise HookFailed(f"{handler.name} failed in {self._spec.name}: {why}")

    # -- recording ---------------------------------------------------------------------------------------------------

    async def commit(self, value: dict[str, Any]) -> None:
        """Record the event, with whatever it starts."""
        self.outcome.value = value
        event = self._bus.build(self._spec.name, value, self._context, source="/hooks")
        await self._bus.check_loop(event)  # a handler of hook events may call hooks
        await self._bus.commit(Batch(log=[event]))
        self.outcome.event = event

    async def record_denial(self, denial: _Denied, data: dict[str, Any]) -> None:
        outcome = self.outcome
        outcome.denied, outcome.by, outcome.reason = True, denial.handler, denial.reason
        record = {
            "hook": self._spec.name,
            "denied": True,
            "by": denial.handler,
            "reason": denial.reason,
            "payload_sha256": text_digest(encode_sorted(data).decode()),
        }
        await self._finish(record, self._context)

    async def record_end(self) -> None:
        event = self.outcome.event
        assert event is not None
        record = {"hook": self._spec.name, "denied": False, "replies": len(self.outcome.replies)}
        await self._finish(record, self._context.because(event.cause()))

    async def _finish(self, record: dict[str, Any], context: CallContext) -> None:
        """One commit: the record of the call, what handlers want to change, and an error event for each that failed."""
        traces = self.outcome.trace
        if not traces and not self.outcome.denied:
            return
        host = context.acting_as("system", ())
        record["handlers"] = [trace.as_dict() for trace in traces]
        batch = Batch(log=[self._bus.build("hook_completed", record, host, source="/hooks", subject=self._spec.name)])
        for trace in traces:
            if trace.status in ("error", "timeout", "skipped"):
                data = {"plugin": trace.handler.partition(".")[0], "hook": self._spec.name, **trace.as_dict()}
                batch.log.append(self._bus.build("plugin_error", data, host, source="/hooks"))
        batch.add(self._effects)
        await self._bus.commit(batch, self._guards)


def _payload_only(value: dict[str, Any]) -> tuple[Any, ...]:
    return (value,)


def _checked(spec: HookSpec, data: Any) -> dict[str, Any]:
    encode(data, what=f"the payload of {spec.name}")
    try:
        return checked(spec, data)
    except ValidationError as error:
        raise InvalidPayload(f"{spec.name}: {explain(error)}") from None


def _in_process(function: Callable[..., Any], bus: Bus) -> Any:
    call = as_async(function)

    async def run(args: tuple[Any, ...], context: CallContext, *, effects: bool, timeout: float) -> Answer:
        with serving(bus, context):
            # Its own copy: what one handler does to the payload must not reach the next one, or differ from the record.
            return Answer(await call(*decode(encode(args))))

    return run
