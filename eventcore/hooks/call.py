"""One call of a hook in progress: gates, filters, commit, replies, observers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from eventcore.bus.calling import readable
from eventcore.bus.current import serve, served, serving
from eventcore.hooks.limits import Limits, TimedOut
from eventcore.hooks.outcome import CallStatus, Denied, HookOutcome, Trace
from eventcore.hooks.payload import copied, fitting, raw_payload, same_words
from eventcore.hooks.record import Trouble, record_call, trouble_of
from eventcore.hooks.registry import Answer, Handler, Stage
from eventcore.hooks.room import Room
from eventcore.hooks.specs import HookSpec
from eventcore.hooks.wrap import Wrapped, Wrapper
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import HookFailed, InvalidPayload, PluginTimeout
from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.json import decode, encode
from eventcore.kernel.records import Batch, Guard
from eventcore.sdk.verdicts import Deny, Replace, Stop

#: Picks a handler's arguments out of the payload.
Pick = Callable[[dict[str, Any]], tuple[Any, ...]]
#: The caller's own work in a hook of mode `wrap`.
Inner = Callable[[dict[str, Any]], Any]

_PLAIN = frozenset({str, int, float, bool, type(None)})

#: What `_ask` gives for a handler that did not answer; its trace says why.
_NOTHING = object()


class Call:
    """One call. `run` is called once."""

    __slots__ = (
        "_allowed", "_answer", "_deadline", "_flat", "_healthy", "_last", "_limits", "_monotonic", "_timeout", "_value",
        "context", "effects", "guards", "outcome", "raw", "raw_original", "room", "spec", "troubles",
    )  # fmt: skip

    def __init__(self, room: Room, spec: HookSpec, context: CallContext, raw: bytes) -> None:
        self.room, self.spec, self.context = room, spec, context
        self.raw_original = raw
        self._take(raw)
        self._timeout, self._healthy = spec.timeout, room.breaker.quiet
        self.effects: Batch | None = None
        self.guards: list[Guard] = []
        self.troubles: dict[int, Trouble] = {}
        self.outcome = HookOutcome(spec.name)
        self._monotonic, self._limits = room.clock.monotonic, Limits()
        self._last = self._monotonic()  # when the handler before ended, and so the next one begins
        self._deadline = self._last + spec.budget
        self._allowed: dict[str, bool] = {}
        self._answer: Answer | None = None

    def _take(self, raw: bytes) -> None:
        """Go on with this payload."""
        self.raw, self._value = raw, decode(raw)
        # Most payloads hold nothing that can be changed inside; a shallow copy of those is a copy.
        self._flat = type(self._value) is dict and _PLAIN.issuperset(map(type, self._value.values()))

    def _payload(self) -> dict[str, Any]:
        """A copy for one handler: what it does to it must not reach the next one, or differ from the record."""
        copy: dict[str, Any] = self._value.copy() if self._flat else decode(self.raw)
        return copy

    async def run(
        self,
        stages: dict[Stage, tuple[Handler, ...]],
        replies: tuple[Handler, ...],
        observers: tuple[Handler, ...],
        pick: Pick | None,
        inner: Inner | None,
    ) -> None:
        """All stages, and the record of them.

        Raises:
            HookFailed: a gate or filter failed and the hook's rule is to raise. What `inner` raises is passed on.
        """
        failure: Exception | None = None
        failed = False
        token = serve(self.room.bus, self.context)
        try:
            await self._before(stages["gate"], stages["filter"])
            await self._commit()
            if self.spec.mode == "wrap":
                failure = await self._wrapped(replies, pick, inner)
            else:
                await self._plain(replies, pick)
            for handler in observers:
                if await self._ask(handler, self._after(handler)) is not _NOTHING:
                    self._keep()
        except Denied as denial:
            self.outcome.denied, self.outcome.by, self.outcome.reason = True, denial.handler, denial.reason
        except HookFailed as error:
            failure, failed = error, True
        finally:
            self._limits.close()
            served(token)
        if self.troubles or self.effects is not None or self.spec.record != "never" or not self.room.breaker.quiet:
            await record_call(self, failed=failed)
        if failure is not None:
            raise failure

    # -- stages ------------------------------------------------------------------------------------------------------

    async def _before(self, gates: tuple[Handler, ...], filters: tuple[Handler, ...]) -> None:
        for handler in gates:
            if (answer := await self._ask(handler, self.context, False)) is not None:
                self._gate(handler, answer)
        for handler in filters:
            if (answer := await self._ask(handler, self.context, False)) is not None:
                self._filter(handler, answer)
        for handler in gates:
            if handler.recheck and (answer := await self._ask(handler, self.context, False)) is not None:
                self._gate(handler, answer)

    def _gate(self, handler: Handler, answer: Any) -> None:
        if answer is _NOTHING:
            self._failed(handler)
        elif isinstance(answer, Deny):
            self._status("denied")
            raise Denied(handler.name, readable(answer.reason))
        else:
            self._contract(handler, answer, "None or Deny(reason)")
            self._failed(handler)

    def _filter(self, handler: Handler, answer: Any) -> None:
        if answer is _NOTHING:
            self._failed(handler)
        elif isinstance(answer, Replace):
            self._replace(handler, answer.value)
        else:
            self._contract(handler, answer, "None or Replace(payload)")
            self._failed(handler)

    def _replace(self, handler: Handler, new: Any) -> None:
        try:
            raw = raw_payload(self.spec, new)
        except InvalidPayload as error:
            self._wrong(f"its Replace does not fit: {error.message}", "its Replace does not fit")
            self._failed(handler)
            return
        self._status("replaced")
        self._take(same_words(self._value, raw))

    async def _commit(self) -> None:
        """Record the event, with whatever it starts."""
        value = self.outcome.value = self._payload()
        if self.spec.record == "always":
            event = self.room.bus.build(self.spec.name, value, self.context, source="/hooks")
            self.room.bus.check(event)  # a handler of hook events may call hooks
            await self.room.bus.commit(Batch(log=[event]))
            self.outcome.event = event
            self._last = self._monotonic()

    async def _wrapped(self, handlers: tuple[Handler, ...], pick: Pick | None, inner: Inner | None) -> Exception | None:
        """Ask for replies. What the caller's own work raised is returned: wrappers see it, and it is recorded after."""
        wrapped = Wrapped()
        wrappers = [Wrapper(handler) for handler in handlers if handler.wrapper is not None]
        for wrapper in wrappers:
            await self._enter(wrapper)
        try:
            await self._plain(tuple(one for one in handlers if one.wrapper is None), pick)
            wrapped.reply = self.outcome.replies[0] if self.outcome.replies else None
            if inner is not None and wrapped.reply is None:
                wrapped.reply = await self._inner(inner)
        except Exception as error:  # noqa: BLE001 - handed on by the return value
            wrapped.error = error
        except BaseException:
            for wrapper in reversed(wrappers):
                if wrapper.entered:
                    await wrapper.abandon()
            raise
        for wrapper in reversed(wrappers):
            await self._leave(wrapper, wrapped)
        if (wrappers or inner is not None) and wrapped.error is None:
            self.outcome.replies = [] if wrapped.reply is None else [wrapped.reply]
        return wrapped.error

    async def _inner(self, inner: Inner) -> Any:
        """The caller's own work: it has no limit of ours, and its time is not on the handlers' budget."""
        self._limits.close()
        try:
            return await inner(self._payload())
        finally:
            now = self._monotonic()
            self._deadline += now - self._last
            self._last = now

    async def _plain(self, handlers: tuple[Handler, ...], pick: Pick | None) -> None:
        for handler in handlers:
            answer = await self._ask(handler, self._after(handler), True, pick)
            if answer is _NOTHING:
                continue
            if answer is None:
                self._keep()
                continue
            stops = isinstance(answer, Stop)
            reply = self._reply(handler, answer.value if stops else answer)
            if reply is None:
                continue
            self._keep()
            self.outcome.replies.append(reply)
            self.outcome.repliers.append(handler.name)
            if stops or self.spec.mode in ("first", "wrap"):
                return

    def _reply(self, handler: Handler, reply: Any) -> Any:
        """The reply as the hook's model has it; None if it does not fit, with the reason in the trace."""
        if not isinstance(reply, dict):
            self._contract(handler, reply, "None, an object, or Stop(object)")
            return None
        try:
            encode(reply, limit=MAX_PAYLOAD, what="its reply")
            return reply if self.spec.reply is None else decode(fitting(self.spec.reply, "its reply", reply))
        except InvalidPayload as error:
            self._wrong(error.message, "its reply does not fit")
            return None

    def _keep(self) -> None:
        """Keep what the last handler wants to change."""
        answer, self._answer = self._answer, None
        if answer is not None and answer.effects:
            self.effects = self.effects or Batch()
            self.effects.add(answer.effects)
            self.guards.extend(answer.guards)

    def _after(self, handler: Handler) -> CallContext:
        """The context of a handler that runs after the commit: what it does follows from the event, if there is one."""
        event = self.outcome.event
        return self.context if event is None else self.context.because(event.cause(hop=handler.name))

    # -- wrappers ----------------------------------------------------------------------------------------------------

    async def _enter(self, wrapper: Wrapper) -> None:
        with serving(self.room.bus, self._after(wrapper.handler)):
            await self._ask(wrapper.handler, self.context, effects=True, local=wrapper.enter)

    async def _leave(self, wrapper: Wrapper, wrapped: Wrapped) -> None:
        if not wrapper.entered:
            return

        async def leave(payload: Any) -> None:
            await wrapper.leave(wrapped)

        before = copied(wrapped.reply)
        with serving(self.room.bus, self._after(wrapper.handler)):
            answer = await self._ask(wrapper.handler, self.context, effects=True, local=leave)
        spoilt = wrapped.reply is not None and self._reply(wrapper.handler, wrapped.reply) is None
        if answer is _NOTHING or spoilt:
            wrapped.reply = before

    # -- one handler -------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        handler: Handler,
        context: CallContext,
        effects: bool = True,
        pick: Pick | None = None,
        local: Callable[..., Any] | None = None,
    ) -> Any:
        """The handler's answer; `_NOTHING` if it failed or was not asked, with the reason in the trace."""
        began = self._last
        if began >= self._deadline:
            return self._skip(handler, f"the call's budget of {self.spec.budget:g} s is used up")
        if not self._healthy and not self._may_ask(handler.owner, began):
            wait = self.room.breaker.wait(handler.owner, began)
            return self._skip(handler, f"{handler.owner} is degraded; it is asked again in {wait:.0f} s", degraded=True)
        try:
            if handler.at_once is not None and pick is local is None and context is self.context:
                answer = await handler.at_once(self._payload())
            else:
                limit = min(self._timeout, self._deadline - began)
                begin = partial(self._begin, handler, context, effects, pick, local, limit)
                answer = await self._limits.run(begin, limit)
        except TimedOut as over:
            return self._trouble(handler, "timeout", began, Trouble(f"ran over its {over.limit:g} s"))
        except Exception as error:  # noqa: BLE001 - somebody else's code: its failure is its own
            status: CallStatus = "timeout" if isinstance(error, PluginTimeout) else "error"
            return self._trouble(handler, status, began, trouble_of(error))
        self._last = now = self._monotonic()
        self.outcome.trace.append(Trace(handler.name, handler.stage, "ok", now - began))
        self._answer = None
        if handler.call is None:
            return answer
        self._answer = answer
        return answer.value

    def _begin(
        self,
        handler: Handler,
        context: CallContext,
        effects: bool,
        pick: Pick | None,
        local: Callable[..., Any] | None,
        limit: float,
    ) -> Any:
        payload = self._payload()
        args = (payload,) if pick is None else pick(payload)
        call = local or handler.local
        if call is None:
            assert handler.call is not None
            return handler.call(args, context, effects=effects, timeout=limit)
        if context is self.context:
            return call(*args)
        return self._serving(call, args, context)

    async def _serving(self, call: Callable[..., Any], args: tuple[Any, ...], context: CallContext) -> Any:
        with serving(self.room.bus, context):
            return await call(*args)

    def _may_ask(self, owner: str, now: float) -> bool:
        # Once a call: all handlers of an owner that is being tried again are tried, not only the first.
        if owner not in self._allowed:
            self._allowed[owner] = self.room.breaker.allows(owner, now)
        return self._allowed[owner]

    # -- the trace ---------------------------------------------------------------------------------------------------

    def _skip(self, handler: Handler, why: str, *, degraded: bool = False) -> object:
        self.troubles[len(self.outcome.trace)] = Trouble(why, degraded=degraded)
        self.outcome.trace.append(Trace(handler.name, handler.stage, "skipped", 0.0, why))
        return _NOTHING

    def _trouble(self, handler: Handler, status: CallStatus, began: float, trouble: Trouble) -> object:
        self.troubles[len(self.outcome.trace)] = trouble
        self._last = now = self._monotonic()
        self.outcome.trace.append(Trace(handler.name, handler.stage, status, now - began, trouble.text))
        return _NOTHING

    def _status(self, status: CallStatus) -> None:
        self.outcome.trace[-1].status = status

    def _contract(self, handler: Handler, value: Any, allowed: str) -> None:
        self._wrong(f"a {handler.stage} answers {allowed}, not {type(value).__name__}")

    def _wrong(self, text: str, safe: str | None = None) -> None:
        """The last handler answered something that counts as its error."""
        self.outcome.trace[-1].status, self.outcome.trace[-1].error = "error", text
        self.troubles[len(self.outcome.trace) - 1] = Trouble(text, safe)

    def _failed(self, handler: Handler) -> None:
        """A handler that could have stopped the call failed: what that means is the tier's and the spec's to say."""
        trouble = self.troubles[len(self.outcome.trace) - 1]
        if handler.stage == "gate" and handler.tier == "policy":
            # The reason is recorded, and an error's text may quote the payload.
            raise Denied(handler.name, f"the policy gate failed and so denies: {trouble.safe or trouble.text}")
        if self.spec.on_error == "deny" and handler.stage in ("gate", "filter"):
            raise Denied(handler.name, trouble.safe or trouble.text)
        if self.spec.on_error == "raise":
            raise HookFailed(f"{handler.name} failed in {self.spec.name}: {trouble.text}")
