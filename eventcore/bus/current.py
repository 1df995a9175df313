"""Which call is being served right now, so that an emit inside a handler knows its cause.

The variable is the module's, as context variables must be; its value names the bus it belongs to, so that two engines
in one process never take each other's causes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from eventcore.kernel.context import CallContext

_current: ContextVar[tuple[object, CallContext] | None] = ContextVar("eventcore_current", default=None)


def current_context(owner: object) -> CallContext | None:
    """The context of the call that is being served for `owner` (a bus), or None outside of one."""
    value = _current.get()
    return value[1] if value is not None and value[0] is owner else None


@contextmanager
def serving(owner: object, context: CallContext) -> Iterator[None]:
    """Make `context` the current one of `owner` for the body."""
    token = _current.set((owner, context))
    try:
        yield
    finally:
        _current.reset(token)
