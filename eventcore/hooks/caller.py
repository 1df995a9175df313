"""`core.hooks`: declare, register, call."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from eventcore.bus.bus import Bus
from eventcore.bus.calling import as_async, name_of
from eventcore.bus.current import current_context
from eventcore.hooks.breaker import Breaker
from eventcore.hooks.call import Call, Inner, Pick
from eventcore.hooks.declared import SpecTable
from eventcore.hooks.outcome import HookOutcome
from eventcore.hooks.payload import raw_payload
from eventcore.hooks.registry import ChatCommand, Handler, HookRegistry, Stage, Tier
from eventcore.hooks.room import Room
from eventcore.hooks.specs import HookSpec
from eventcore.hooks.tally import CallTally
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, InvalidPayload, NotFound
from eventcore.kernel.json import decode
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.ports import Clock, Metrics
from eventcore.sdk.stages import mark_of


class Hooks:
    """Made by the engine; reached as `core.hooks`.

    Args:
        timeouts, budgets: the operator's seconds by hook name, in place of the specs'.
        keep_denied: record the payload of denied calls too, not only its hash.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        clock: Clock,
        metrics: Metrics,
        timeouts: Mapping[str, float] | None = None,
        budgets: Mapping[str, float] | None = None,
        keep_denied: bool = False,
    ) -> None:
        self._bus = bus
        self.room = Room(bus, clock, metrics, Breaker(), keep_denied)
        self._operator: CallContext | None = None
        self._tally = CallTally(metrics)
        self.registry = HookRegistry()
        self.specs = SpecTable(timeouts, budgets)

    # -- registering -------------------------------------------------------------------------------------------------

    def declare(self, spec: HookSpec) -> HookSpec:
        """Add a hook of your own; plugins and hook files then handle it with functions of its name.

        ::

            core.hooks.declare(HookSpec("on_price_asked", Question, "first", "What does it cost?", record="never"))

        Raises:
            InvalidName, InvalidInput: the name is not possible or taken, or a field makes no sense.
        """
        return self.specs.declare(spec)

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
            InvalidInput: an async generator (a wrapper) for a hook that is not of the mode `wrap`.
        """
        handler = self.handler(
            hook, function, stage=stage, owner=owner, tier=tier, priority=priority, place=place, line=line
        )
        self.registry.register([handler])
        return handler

    def handler(
        self,
        hook: str,
        function: Callable[..., Any],
        *,
        stage: Stage | None,
        owner: str,
        tier: Tier,
        priority: int | None,
        place: str,
        line: int,
    ) -> Handler:
        """What `register` adds."""
        spec, mark = self.specs.get(hook), mark_of(function)
        stage = stage or (mark.stage if mark else "reply")
        wraps = inspect.isasyncgenfunction(function)
        if wraps and (spec.mode != "wrap" or stage != "reply"):
            raise InvalidInput(f"{name_of(function)} is an async generator; only hooks of the mode wrap have wrappers")
        return Handler(
            hook=hook,
            owner=owner,
            function=name_of(function),
            stage=stage,
            tier=tier,
            priority=priority if priority is not None else (mark.priority if mark else 0),
            before=mark.before if mark else (),
            after=mark.after if mark else (),
            recheck=mark.recheck if mark else False,
            place=place,
            line=line,
            local=None if wraps else as_async(function),
            wrapper=function if wraps else None,
        )

    # -- calling -----------------------------------------------------------------------------------------------------

    async def call(
        self,
        hook: str,
        payload: Any,
        *,
        context: CallContext | None = None,
        inner: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
    ) -> HookOutcome:
        """Put the question of `hook` to its handlers.

        Args:
            hook: a hook's name.
            payload: JSON that fits the hook's model.
            context: on whose behalf; default the current caller.
            inner: for a hook of the mode `wrap`: an async function that answers if no handler does. Wrappers run
                around it; it has no time limit, and what it raises is passed on.

        Raises:
            NotFound, InvalidPayload: no such hook, or a payload that does not fit.
            InvalidInput: `inner` for a hook of another mode.
            HookFailed: a gate or filter failed and the hook's rule is to raise.
            LoopDetected: the call came of a handler, and would close a causal loop.
        """
        self._bus.check_open()
        spec = self.specs.get(hook)
        if inner is not None and spec.mode != "wrap":
            raise InvalidInput(f"{hook} is of the mode {spec.mode}; only hooks of the mode wrap have an inner function")
        stages = self.registry.ordered(hook)
        raw = raw_payload(spec, payload)
        return await self._call(spec, raw, stages, stages["reply"], stages["observe"], context, None, inner)

    async def command(self, message: Any, *, context: CallContext | None = None) -> HookOutcome:
        """Run a chat command such as `/greet ada`: the gates and filters of `on_message`, then the declaring plugin.

        Raises:
            NotFound: nobody declares it; names the nearest.
            AccessDenied: the caller has none of the roles that the declaring plugin asks for.
        """
        self._bus.check_open()
        said = decode(raw_payload(self.specs.get("on_message"), message))
        name, *args = said["text"].split() or ("",)
        if not name:
            raise InvalidPayload("on_command: the text holds no command", hint="/help, for instance")
        command = self.command_of(name)
        if command.check is not None:
            await command.check(context or self._bus.context())
        spec = self.specs.get("on_command")
        raw = raw_payload(spec, {**said, "command": name, "args": args})
        stages, watching = self.registry.ordered("on_message"), self.registry.ordered("on_command")["observe"]
        return await self._call(
            spec,
            raw,
            stages,
            (command.handler,),
            watching,
            context,
            lambda said: (said["command"], said["args"]),
            None,
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

    def _outside(self) -> CallContext:
        """The context of a call that is made outside of any other: always the same."""
        if self._operator is None:
            self._operator = self._bus.context()
        return self._operator

    async def _call(
        self,
        spec: HookSpec,
        raw: bytes,
        stages: dict[Stage, tuple[Handler, ...]],
        replies: tuple[Handler, ...],
        observers: tuple[Handler, ...],
        context: CallContext | None,
        pick: Pick | None,
        inner: Inner | None,
    ) -> HookOutcome:
        room = self.room
        began = room.clock.monotonic()
        call = Call(room, spec, context or current_context(self._bus) or self._outside(), raw)
        await call.run(stages, replies, observers, pick, inner)
        outcome = call.outcome
        self._tally.called(spec.name, outcome.denied)
        room.metrics.observe("eventcore_hook_seconds", room.clock.monotonic() - began, hook=spec.name)
        return outcome
