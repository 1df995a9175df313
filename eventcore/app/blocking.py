"""`EventCore.sync(...)`: the same engine for programs without an event loop.

The engine runs on a loop in a thread of its own (anyio's blocking portal); every call is carried over to it and waited
for. Handlers and intents given as plain functions run in worker threads, so they may block.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from eventcore.bus.stream import EventStream
from eventcore.kernel.errors import EngineClosed
from eventcore.workflows.face import RunHandle

F = TypeVar("F", bound=Callable[..., Any])

_ROOMS = ("bus", "hooks", "plugins", "workflows", "history")


class SyncCore(AbstractContextManager["SyncCore"]):
    """An engine whose methods wait. `bus`, `hooks`, `plugins`, `workflows` and `history` are as on `EventCore`, with
    results instead of awaitables and iterators instead of async ones.
    """

    def __init__(self, core: AbstractAsyncContextManager[Any]) -> None:
        self._core: Any = core
        self._stack: ExitStack | None = None
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> SyncCore:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(self._portal.wrap_async_context_manager(self._core))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        self._stack.__exit__(kind, error, trace)
        self._portal = None

    def intent(self, name: str, *, roles: Iterable[str] = ()) -> Callable[[F], F]:
        """Decorator: answer the intent `name` with this function; a plain one runs in a worker thread."""

        def register(function: F) -> F:
            self.plugins.intent(name, function, roles)
            return function

        return register

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._portal is None:
            raise EngineClosed()
        value = getattr(self._core, name)
        return _Room(value, self._portal) if name in _ROOMS else _bridge(value, self._portal)


class _Room:
    """A room, or something it returned, whose methods wait."""

    def __init__(self, inner: Any, portal: BlockingPortal) -> None:
        self._inner, self._portal = inner, portal

    def __getattr__(self, name: str) -> Any:
        return _bridge(getattr(self._inner, name), self._portal)

    def __repr__(self) -> str:
        return repr(self._inner)


def _bridge(value: Any, portal: BlockingPortal) -> Any:
    if isinstance(value, RunHandle):
        return _Room(value, portal)
    if isinstance(value, AsyncIterator | EventStream):
        return _iterate(value, portal)
    if not callable(value) or isinstance(value, type):
        return value

    @functools.wraps(value)
    def call(*args: Any, **options: Any) -> Any:
        # On the loop's thread even for plain methods: what they touch is not made for two threads.
        return _bridge(portal.call(functools.partial(value, *args, **options)), portal)

    return call


def _iterate(source: AsyncIterator[Any], portal: BlockingPortal) -> Iterator[Any]:
    end = object()

    async def step() -> Any:
        return await anext(source, end)

    while (item := portal.call(step)) is not end:
        yield item
