"""What connects `ctx` with the call that the running code belongs to; the modules of `ctx` build upon it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar, cast

from eventcore.sdk.errors import PluginError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """The part of a future that `Answer` needs; `asyncio.Future` fits."""

    def done(self) -> bool: ...
    def result(self) -> T_co: ...
    def __await__(self) -> Generator[Any, None, T_co]: ...


class Answer(Generic[T]):
    """What came back from the host, or will.

    The request was sent when the method of `ctx` was called, awaited or not. In `async def` code await the answer; a
    refusal is raised there. In plain `def` code the method has waited already (and raised, if it was refused).
    """

    __slots__ = ("_pending", "_value")

    def __init__(self, value: T | None = None, *, pending: Pending[T] | None = None) -> None:
        self._value = value
        self._pending = pending

    def __await__(self) -> Generator[Any, None, T]:
        if self._pending is None:
            return cast("T", self._value)
        return (yield from self._pending.__await__())

    @property
    def value(self) -> T:
        """The result.

        Raises:
            PluginError: it is not there yet, because this is `async def` code that has to await it first.
        """
        if self._pending is None:
            return cast("T", self._value)
        if not self._pending.done():
            raise PluginError("the answer is not there yet: in an async function, await it")
        return self._pending.result()


class Binding(Protocol):
    """What stands behind `ctx` during one call. The worker has one; an in-process host may bring its own."""

    @property
    def tenant(self) -> str: ...
    @property
    def actor(self) -> str: ...
    @property
    def permissions(self) -> frozenset[str]: ...
    @property
    def replay(self) -> bool: ...
    @property
    def attempt(self) -> int: ...
    @property
    def config(self) -> Mapping[str, Any]: ...

    def ask(self, method: str, params: dict[str, Any]) -> Answer[Any]:
        """Send a request to the host."""
        ...

    def tell(self, level: str, message: str, logger: str = "") -> None:
        """Send a log line to the host; nobody waits for it."""
        ...


#: The call that the running code belongs to. Tasks inherit it; plain threads do not.
_bound: ContextVar[Binding | None] = ContextVar("eventcore_call", default=None)


@contextmanager
def bind(binding: Binding) -> Iterator[None]:
    """Let `ctx` speak for `binding` inside the `with` block. For hosts and tests, not for plugins."""
    token = _bound.set(binding)
    try:
        yield
    finally:
        _bound.reset(token)


def bind_for_good(binding: Binding) -> None:
    """As `bind`, for all the rest of the current `contextvars.Context`. For hosts that give each call one."""
    _bound.set(binding)


def bound() -> Binding | None:
    """The binding of the current call, or None outside one."""
    return _bound.get()


def current() -> Binding:
    """The binding of the current call.

    Raises:
        PluginError: there is no call.
    """
    binding = _bound.get()
    if binding is None:
        raise PluginError(
            "ctx is used outside a call: use it inside a handler, or in tasks started by one (not at import, "
            "and not in a plain thread)"
        )
    return binding
