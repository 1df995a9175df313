"""Which call is being served right now, so that an emit inside a handler knows its cause.

The variable is the module's, as context variables must be; its value names the bus it belongs to, so that two engines
in one process never take each other's causes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, Protocol

from eventcore.kernel.context import CallContext
from eventcore.kernel.event import Event


class Deliverer(Protocol):
    """Who hands events to a handler, and in whose context."""

    def context_of(self, event: Event) -> CallContext:
        """On whose behalf, and because of what, the handler acts while it is at this event."""
        ...


#: (owner, context), or (owner, deliverer, event): the context of a delivery is made only if somebody asks for it.
_current: ContextVar[tuple[Any, ...] | None] = ContextVar("eventcore_current", default=None)


def current_context(owner: object) -> CallContext | None:
    """The context of the call that is being served for `owner` (a bus), or None outside of one."""
    value = _current.get()
    if value is None or value[0] is not owner:
        return None
    context: CallContext = value[1] if len(value) == 2 else value[1].context_of(value[2])
    return context


#: What is being served, for whichever bus; None outside of everything.
served_now: Callable[[], tuple[Any, ...] | None] = _current.get

#: Makes the context of a delivery, given as (owner, deliverer, event), the current one until `served` gets the token or
#: the task that serves it begins another. No context manager, for speed: a pump's task does nothing but deliver.
begin_delivery: Callable[[tuple[Any, ...]], Token[tuple[Any, ...] | None]] = _current.set


def serve(owner: object, context: CallContext) -> Token[tuple[Any, ...] | None]:
    """Make `context` the current one of `owner` until `served` gets the token. Where `serving` costs too much."""
    return _current.set((owner, context))


def served(token: Token[tuple[Any, ...] | None]) -> None:
    """End what `serve` or `begin_delivery` began, in the same task."""
    _current.reset(token)


class serving:  # noqa: N801 - used as a function is
    """Make `context` the current one of `owner` for the body. A class, not a generator: it is entered once a call."""

    __slots__ = ("_now", "_token")

    def __init__(self, owner: object, context: CallContext) -> None:
        self._now = (owner, context)

    def __enter__(self) -> None:
        self._token = _current.set(self._now)

    def __exit__(self, *exc_info: object) -> None:
        _current.reset(self._token)
