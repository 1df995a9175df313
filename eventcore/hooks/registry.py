"""Who handles which hook, in an order that can be explained.

Within a stage: tier (policy < plugin < observer) -> before/after -> priority (higher first) -> owner's name -> place in
the file. Never the order of imports, sets or directory listings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, Protocol

from eventcore.bus.calling import never_waits
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.records import Batch, Guard

Stage = Literal["gate", "filter", "reply", "observe"]
Tier = Literal["policy", "plugin", "observer"]

STAGES: tuple[Stage, ...] = ("gate", "filter", "reply", "observe")
_TIERS: tuple[Tier, ...] = ("policy", "plugin", "observer")


@dataclass(slots=True)
class Answer:
    """What a handler gave back.

    Attributes:
        value: None, a JSON value, or a verdict (`Deny`, `Replace`, `Stop`).
        effects, guards: staged changes, committed with the record of the call; always empty for gates and filters.
    """

    value: Any = None
    effects: Batch = field(default_factory=Batch)
    guards: tuple[Guard, ...] = ()


class HandlerCall(Protocol):
    """Calls the handler's code, wherever it runs."""

    def __call__(
        self, args: tuple[Any, ...], context: CallContext, *, effects: bool, timeout: float
    ) -> Awaitable[Answer]: ...


@dataclass(frozen=True, slots=True)
class Handler:
    """One function that handles one hook.

    Attributes:
        owner: the plugin's or hook file's slug, or `host`.
        call: calls it wherever it runs; None for a function of this process.
        local: the function, made async, of a handler in this process.
        wrapper: the async generator function of a handler that wraps the others (hooks of the mode `wrap`).
        place: `file:line`, for people.
        line: position in the file, for the order.
    """

    hook: str
    owner: str
    function: str
    stage: Stage
    call: HandlerCall | None = None
    tier: Tier = "plugin"
    priority: int = 0
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    recheck: bool = False
    place: str = ""
    line: int = 0
    local: Callable[..., Awaitable[Any]] | None = None
    wrapper: Callable[..., Any] | None = None
    #: `owner.function`.
    name: str = ""
    #: `local`, if it runs from its beginning to its end in one step, so that no time limit can end it.
    at_once: Callable[..., Awaitable[Any]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.owner}.{self.function}")
        if self.local is not None and never_waits(self.local):
            object.__setattr__(self, "at_once", self.local)

    def why(self) -> str:
        """Where it stands and what put it there."""
        parts = [f"tier {self.tier}", f"priority {self.priority}"]
        parts += [f"before {', '.join(self.before)}"] if self.before else []
        parts += [f"after {', '.join(self.after)}"] if self.after else []
        parts += ["rechecks what filters made"] if self.recheck else []
        return "; ".join([*parts, f"name {self.owner}", self.place])


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A declared command and the handler of the plugin that declares it.

    Attributes:
        check: raises where the caller may not use the command; asked before anything is recorded or called.
    """

    name: str
    owner: str
    description: str
    usage: str
    handler: Handler
    check: Callable[[CallContext], Awaitable[None]] | None = None


class HookRegistry:
    """Handlers by hook, and commands by name. Registration of an owner is all or nothing."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = {}
        self._commands: dict[str, ChatCommand] = {}
        self._ordered: dict[str, dict[Stage, tuple[Handler, ...]]] = {}
        #: Commands that no handler declares: those that start workflows. What a plugin declares goes first.
        self.others: Callable[[], Iterable[ChatCommand]] = tuple

    def register(self, handlers: Iterable[Handler], commands: Iterable[ChatCommand] = ()) -> None:
        """Add handlers and commands of one owner.

        Raises:
            InvalidInput: a command is declared by two plugins, or before/after make a circle; nothing was added.
        """
        new, declared = list(handlers), list(commands)
        for command in declared:
            if (other := self._commands.get(command.name)) and other.owner != command.owner:
                raise InvalidInput(f"the command {command.name} is declared by {other.owner} and by {command.owner}")
        touched = {handler.hook for handler in new}
        before = {hook: list(self._handlers.get(hook, ())) for hook in touched}
        for handler in new:
            self._handlers.setdefault(handler.hook, []).append(handler)
        try:
            for hook in touched:
                self._ordered[hook] = _order(self._handlers[hook])
        except CycleError as error:
            self._handlers.update(before)
            self._ordered.clear()
            circle = " -> ".join(reversed(error.args[1]))
            raise InvalidInput(f"before and after of these hook handlers make a circle: {circle}") from None
        self._commands.update({command.name: command for command in declared})

    def replace(self, owner: str, handlers: Iterable[Handler], commands: Iterable[ChatCommand] = ()) -> None:
        """Put these in place of everything of `owner`, or, if they are refused, leave all as it is.

        Raises:
            InvalidInput: as `register`.
        """
        before = {hook: list(there) for hook, there in self._handlers.items()}, dict(self._commands)
        self.unregister(owner)
        try:
            self.register(handlers, commands)
        except InvalidInput:
            self._handlers, self._commands = before
            self._ordered.clear()
            raise

    def unregister(self, owner: str) -> None:
        """Remove everything of an owner."""
        for hook, handlers in self._handlers.items():
            self._handlers[hook] = [handler for handler in handlers if handler.owner != owner]
        self._commands = {name: command for name, command in self._commands.items() if command.owner != owner}
        self._ordered.clear()

    def ordered(self, hook: str) -> dict[Stage, tuple[Handler, ...]]:
        """The handlers of a hook by stage, each stage in order."""
        found = self._ordered.get(hook)
        if found is None:
            found = self._ordered[hook] = _order(self._handlers.get(hook, []))
        return found

    def command(self, name: str) -> ChatCommand | None:
        return self._commands.get(name) or next((one for one in self.others() if one.name == name), None)

    def commands(self) -> list[ChatCommand]:
        """All commands, by name."""
        every = {**{command.name: command for command in self.others()}, **self._commands}
        return sorted(every.values(), key=lambda command: command.name)

    def hooks(self) -> list[str]:
        """Hooks that have a handler."""
        return sorted(hook for hook, handlers in self._handlers.items() if handlers)


def _order(handlers: list[Handler]) -> dict[Stage, tuple[Handler, ...]]:
    return {stage: _sort([handler for handler in handlers if handler.stage == stage]) for stage in STAGES}


def _sort(handlers: list[Handler]) -> tuple[Handler, ...]:
    """Plain order first; then each handler waits for those that must come before it, within its tier."""
    plain = sorted(handlers, key=lambda one: (_TIERS.index(one.tier), -one.priority, one.owner, one.line))
    result: list[Handler] = []
    for tier in _TIERS:
        result.extend(_relations([one for one in plain if one.tier == tier]))
    return tuple(result)


def _relations(handlers: list[Handler]) -> list[Handler]:
    if not any(handler.before or handler.after for handler in handlers):
        return handlers
    by_name = {handler.name: handler for handler in handlers}

    def named(reference: str) -> list[str]:
        return [name for name, handler in by_name.items() if reference in (name, handler.owner)]

    graph: dict[str, set[str]] = {name: set() for name in by_name}
    for name, handler in by_name.items():
        for reference in handler.after:
            graph[name].update(named(reference))
        for reference in handler.before:
            for later in named(reference):
                graph[later].add(name)
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    place = {name: index for index, name in enumerate(by_name)}
    ordered: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
        ordered.append(first := ready.pop(0))
        sorter.done(first)
    return [by_name[name] for name in ordered]
