"""The hooks of one engine: the standard ones, and those that its embedder declares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from pydantic import BaseModel

from eventcore.hooks.specs import HOOKS, HookSpec, Mode, OnError, Record
from eventcore.kernel.errors import InvalidInput, InvalidName, NotFound
from eventcore.kernel.names import CORE_EVENTS, MAX_NAME, did_you_mean

_NAME = re.compile(r"on_[a-z0-9][a-z0-9_]*")


class SpecTable:
    """Specs by name. Two engines share only the standard ones, which nobody changes.

    Args:
        timeouts, budgets: the operator's seconds by hook name, in place of the spec's.
    """

    def __init__(self, timeouts: Mapping[str, float] | None = None, budgets: Mapping[str, float] | None = None) -> None:
        self._timeouts, self._budgets = dict(timeouts or {}), dict(budgets or {})
        self._declared: dict[str, HookSpec] = {}
        self._tuned = {name: self._tune(HOOKS[name]) for name in {*self._timeouts, *self._budgets} & HOOKS.keys()}
        #: Called with each spec that is declared, so that functions of its name become its handlers.
        self.listeners: list[Callable[[HookSpec], None]] = []

    def declare(self, spec: HookSpec) -> HookSpec:
        """Add a hook. The same spec again is no error.

        Returns:
            The spec as it holds here: with the operator's time limits.

        Raises:
            InvalidName: it is not `on_<lower case words>`, or it is `on_` and a core event.
            InvalidInput: there is another hook of this name, or a field makes no sense.
        """
        _check(spec)
        tuned = self._tune(spec)
        known = self._declared.get(spec.name) or HOOKS.get(spec.name)
        if known is not None:
            if known in (spec, tuned):
                return self.get(spec.name)
            raise InvalidInput(f"there is a hook {spec.name} already, and it is another one")
        self._declared[spec.name] = tuned
        for listener in self.listeners:
            listener(tuned)
        return tuned

    def get(self, name: str) -> HookSpec:
        """The spec of a hook.

        Raises:
            NotFound: there is no such hook; names the nearest.
        """
        spec = self._declared.get(name) or self._tuned.get(name) or HOOKS.get(name)
        if spec is None:
            names = [one.name for one in self]
            raise NotFound(f"there is no hook {name!r}{did_you_mean(name, names)}", hint=f"hooks: {', '.join(names)}")
        return spec

    def __contains__(self, name: object) -> bool:
        return name in self._declared or name in HOOKS

    def __iter__(self) -> Iterator[HookSpec]:
        """The standard ones first, then the declared ones in the order of their declaration."""
        return iter([*(self._tuned.get(name, spec) for name, spec in HOOKS.items()), *self._declared.values()])

    def _tune(self, spec: HookSpec) -> HookSpec:
        timeout = self._timeouts.get(spec.name, spec.timeout)
        # A longer limit for one handler that the call's budget would cut short again is hardly what was meant.
        return replace(spec, timeout=timeout, budget=self._budgets.get(spec.name, max(spec.budget, timeout)))


def _check(spec: HookSpec) -> None:
    if not _NAME.fullmatch(spec.name) or len(spec.name) > MAX_NAME or spec.name[3:] in CORE_EVENTS:
        raise InvalidName(f"{spec.name!r} is no name for a hook", hint="on_ and words of your own, as on_price_asked")
    for field, allowed in (("mode", Mode), ("on_error", OnError), ("record", Record)):
        if getattr(spec, field) not in get_args(allowed):
            raise InvalidInput(f"{spec.name}: {field} is one of {', '.join(get_args(allowed))}")
    if spec.timeout <= 0 or spec.budget <= 0:
        raise InvalidInput(f"{spec.name}: timeout and budget are above 0 seconds")
    models: tuple[Any, ...] = (spec.payload, *(() if spec.reply is None else (spec.reply,)))
    for model in models:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InvalidInput(f"{spec.name}: payload and reply are pydantic models")
