"""`ctx`: what plugin code may ask of its host while it handles a call."""

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


def bound() -> Binding | None:
    """The binding of the current call, or None outside one."""
    return _bound.get()


def _current() -> Binding:
    binding = _bound.get()
    if binding is None:
        raise PluginError(
            "ctx is used outside a call: use it inside a handler, or in tasks started by one (not at import, "
            "and not in a plain thread)"
        )
    return binding


class MemoryContext:
    """`ctx.memory`: results remembered for this tenant."""

    def read(self, query: str, limit: int = 5) -> Answer[list[dict[str, Any]]]:
        """Memories whose query or result holds every word of `query`, newest first, at most `limit`."""
        return _current().ask("memory.read", {"query": query, "limit": limit})

    def write(self, query: str, result: Any) -> Answer[None]:
        """Remember a JSON `result` under `query`."""
        return _current().ask("memory.write", {"query": query, "result": result})


class WorkflowsContext:
    """`ctx.workflows`; needs `enable_external_workflow` in the manifest."""

    def start(self, slug: str, inputs: Mapping[str, Any] | None = None) -> Answer[dict[str, Any]]:
        """Start a run of the workflow `slug`; the answer names the run."""
        return _current().ask("workflows.start", {"slug": slug, "inputs": dict(inputs or {})})


class Context:
    """The proxy behind `ctx`. It holds nothing itself; every use looks up the call that the running code belongs to.

    Every method raises `PluginError` outside a call and `PermissionDenied` where the host refuses. A handler may also
    take it as a parameter: `def run(params, ctx)`.
    """

    memory = MemoryContext()
    workflows = WorkflowsContext()

    def emit(
        self,
        type: str,
        data: Any = None,
        *,
        key: str | None = None,
        now: bool = False,
    ) -> Answer[Any]:
        """Emit an event.

        Args:
            type: one that the manifest lists in `events.emits`, or a name under the plugin's own prefix.
            data: JSON, at most 256 KiB.
            key: events of one key are handled in order.
            now: commit at once. Without it, a durable delivery or a workflow step stages the event and commits it
                together with its own success; an error drops it.
        """
        return _current().ask("emit", {"type": type, "data": data, "key": key, "now": now})

    def request(self, intent: str, params: Mapping[str, Any] | None = None, timeout: float = 10) -> Answer[Any]:
        """Ask another plugin, by intent or slug, and wait at most `timeout` seconds for its result.

        Raises `NoResponder` at once if there is none.
        """
        return _current().ask("request", {"intent": intent, "params": dict(params or {}), "timeout": timeout})

    def in_progress(self) -> Answer[None]:
        """Still at it: the time limit of this delivery begins anew. For durable subscriptions (`events.durable`)."""
        return _current().ask("in_progress", {})

    def log(self, level: str, message: str) -> Answer[None]:
        """Write a line to the host's log: `debug`, `info`, `warning`, `error` or `critical`. Need not be awaited."""
        _current().tell(level, message)
        return Answer(None)

    def ask(self, method: str, **params: Any) -> Answer[Any]:
        """Ask for a host service by its name on the channel; the other methods are short for this."""
        return _current().ask(method, params)

    @property
    def tenant(self) -> str:
        """Whose data this call is about."""
        return _current().tenant

    @property
    def actor(self) -> str:
        """Who caused this call, as `kind:name`."""
        return _current().actor

    @property
    def permissions(self) -> frozenset[str]:
        """The permissions that are granted now."""
        return _current().permissions

    @property
    def replay(self) -> bool:
        """Whether this is the past once more, which somebody asked for (`eventcore events replay`)."""
        return _current().replay

    @property
    def attempt(self) -> int:
        """Which attempt at this event it is, in a durable subscription; 1 everywhere else."""
        return _current().attempt

    @property
    def config(self) -> Mapping[str, Any]:
        """The plugin's settings."""
        return _current().config

    def __repr__(self) -> str:
        return "<eventcore.sdk.ctx>"


ctx = Context()
