"""`InlineWorker`: plugin code in the host's own process. Only where the operator trusts the plugin and it asks for it.

Nothing confines it and nothing can end it: a plain function that never returns keeps its thread, and only the call
fails. What `ctx` asks goes through the same checks as from any other worker.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskGroup

from eventcore.kernel.errors import EventCoreError, Interrupted, InvalidPayload, PermissionDenied, PluginFailed
from eventcore.kernel.errors import PluginTimeout as TimedOut
from eventcore.kernel.json import decode, encode
from eventcore.kernel.ports import HostApi
from eventcore.plugins.sandbox.frames import MAX_FRAME
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.sandbox.worker.about import About
from eventcore.plugins.sandbox.worker.channel import as_exception
from eventcore.plugins.sandbox.worker.failures import message_of, trace_of
from eventcore.plugins.sandbox.worker.loader import LoadError, Plugin, load
from eventcore.plugins.sandbox.worker.runtime import verdict_of
from eventcore.sdk import Answer, Event, Nak, PluginError, Term, TransientError, bind

#: Tells the packages of two engines, or of two versions, apart in `sys.modules`.
_NUMBERS = itertools.count(1)


class InlineWorker:
    """A plugin's code in this process. Implements `eventcore.kernel.ports.Worker`."""

    def __init__(self, spec: WorkerSpec, tasks: TaskGroup) -> None:
        self.spec = spec
        self.registered: dict[str, Any] = {}
        #: It has no channel whose rules it could break.
        self.violated = False
        self._tasks = tasks
        self._plugin: Plugin | None = None
        self._package = f"{spec.slug}-inline-{next(_NUMBERS)}"
        self._turn = anyio.CapacityLimiter(1)
        self._ended = anyio.Event()

    @property
    def alive(self) -> bool:
        """Whether it can still be called."""
        return not self._ended.is_set()

    async def load(self, host: HostApi | None = None) -> dict[str, Any]:
        """Import the plugin, call its `initialize`, and return what it registers.

        Raises:
            PluginFailed: the code cannot be loaded.
        """
        answer = await self.call("load", {}, timeout=self.spec.limits.load, host=host)
        registered: dict[str, Any] = answer["result"]
        self.registered = registered
        return registered

    async def call(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        timeout: float,
        host: HostApi | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call the plugin; see the port for the contract. What it prints goes where the host's own output goes."""
        if not self.alive:
            raise Interrupted(f"{self.spec.slug} was closed", kind="Interrupted", started=False)
        body = decode(encode(params, limit=MAX_FRAME, what=f"a call of {self.spec.slug}"))
        with anyio.move_on_after(timeout) as scope:
            call = _Call(self._tasks, host, context or {}, self.spec.config, partial(_renew, scope, timeout))
            result = await self._run(kind, body, call)
            return {"result": result, "stdout": "", "stderr": ""}
        raise TimedOut(
            f"{self.spec.slug} did not answer {kind} within {timeout:g} s; it runs in the host, which cannot end it",
            kind="PluginTimeout",
            limit="time",
        )

    async def close(self, grace: float = 5.0) -> None:
        """Call the plugin's `cleanup` within `grace` seconds, and forget its modules."""
        if self.alive and self._plugin is not None:
            with suppress(PluginFailed):
                await self.call("cleanup", {}, timeout=grace)
        await self.kill("it was closed")

    async def kill(self, reason: str = "it was killed") -> None:
        """Call it no more. Code that runs goes on to its end."""
        self._ended.set()
        prefix = "eventcore._loaded.plugins." + self._package.replace("-", "_")
        for name in [name for name in sys.modules if name == prefix or name.startswith(f"{prefix}.")]:
            del sys.modules[name]

    async def ended(self) -> None:
        """Wait until it is closed."""
        await self._ended.wait()

    async def _run(self, kind: str, params: dict[str, Any], call: _Call) -> Any:
        try:
            result = await self._answer(kind, params, call)
            await call.settled()
            return self._checked(verdict_of(result) if kind in ("hook", "event") else result)
        except anyio.get_cancelled_exc_class():
            raise
        except (Nak, Term) as verdict:
            if kind == "event":
                return verdict_of(verdict)
            raise self._failed(verdict) from None
        except Exception as error:  # noqa: BLE001 - somebody else's code
            raise self._failed(error) from None
        finally:
            call.over = True

    async def _answer(self, kind: str, params: dict[str, Any], call: _Call) -> Any:
        with bind(call):
            if kind == "load":
                return await self._load(call)
            if self._plugin is None:
                raise LoadError("NotLoaded", "the plugin is not loaded")
            if kind == "event":
                params["event"] = Event(params["event"])
            found = self._plugin.handler(kind, params)
            if found is None:
                return {"status": "healthy"} if kind == "health" else None
            return await self._do(*found, call)

    async def _do(self, handler: Any, args: list[Any], call: _Call) -> Any:
        if not handler.blocking:
            return await handler(args)
        call.blocking = True
        result = await anyio.to_thread.run_sync(handler, args, limiter=self._turn, abandon_on_cancel=True)
        call.blocking = False
        return await result if inspect.isawaitable(result) else result

    async def _load(self, call: _Call) -> Any:
        spec = self.spec
        params = {
            "dir": str(spec.dir.absolute()),
            "module": spec.module,
            "class_name": spec.class_name,
            "entry_point": spec.entry_point,
            "config": dict(spec.config),
            "slug": self._package,
            "hooks": sorted(spec.hooks),
            "paths": [],
        }
        with _bytecode_kept():
            plugin = load(params)
        if (initialize := plugin.handler("initialize", {})) is not None and await self._do(*initialize, call) is False:
            raise LoadError("InitializeFailed", "initialize returned False")
        self._plugin = plugin
        return plugin.describe()

    def _checked(self, result: Any) -> Any:
        try:
            return decode(encode(result, limit=MAX_FRAME, what="the result"))
        except InvalidPayload as error:
            raise LoadError("ResultNotJSON", error.message) from None

    def _failed(self, error: BaseException) -> PluginFailed:
        kind = error.kind if isinstance(error, LoadError) else type(error).__name__
        trace = None if isinstance(error, LoadError) else trace_of(error)
        text = message_of(error) or kind
        return PluginFailed(text, kind=kind, trace=trace, transient=isinstance(error, TransientError))


def _renew(scope: anyio.CancelScope, timeout: float) -> None:
    scope.deadline = anyio.current_time() + timeout


@contextmanager
def _bytecode_kept() -> Iterator[None]:
    """The loader turns the writing of bytecode off, for the process of a worker; this one is the host's."""
    before = sys.dont_write_bytecode
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


class _Pending:
    """An answer of the host that is on its way."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.value: Any = None
        self.error: Exception | None = None

    def done(self) -> bool:
        return self.ready.is_set()

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from self.ready.wait().__await__()
        return self.result()


class _Call(About):
    """What `ctx` speaks for during one call. Implements `eventcore.sdk.Binding`."""

    def __init__(
        self,
        tasks: TaskGroup,
        host: HostApi | None,
        context: Mapping[str, Any],
        config: Mapping[str, Any],
        renew: Callable[[], None],
    ) -> None:
        super().__init__(context, config)
        self._tasks, self._host, self._renew = tasks, host, renew
        self._asked: list[_Pending] = []
        self.blocking = self.over = False

    def ask(self, method: str, params: dict[str, Any]) -> Answer[Any]:
        """Ask the host: at once from a plain function's thread, or in a task, in the order of asking."""
        if self.over:
            raise PluginError("the call is over: its handler has returned, so ctx cannot act for it any more")
        if self.blocking:
            return Answer(anyio.from_thread.run(self._ask, method, params))
        pending, before = _Pending(), self._asked[-1] if self._asked else None
        self._asked.append(pending)
        self._tasks.start_soon(self._answer, pending, before, method, params)
        return Answer(pending=pending)

    def tell(self, level: str, message: str, logger: str = "") -> None:
        """Log a line."""
        self.ask("log", {"level": level, "message": message, "logger": logger})

    async def settled(self) -> None:
        """Wait for what was asked without await: it is part of the call all the same."""
        for pending in self._asked:
            await pending.ready.wait()

    async def _answer(self, pending: _Pending, before: _Pending | None, method: str, params: dict[str, Any]) -> None:
        try:
            if before is not None:
                await before.ready.wait()
            pending.value = await self._ask(method, params)
        except Exception as error:  # noqa: BLE001 - raised where the answer is awaited
            pending.error = error
        finally:
            pending.ready.set()

    async def _ask(self, method: str, params: dict[str, Any]) -> Any:
        try:
            asked = decode(encode(params, limit=MAX_FRAME, what=f"ctx {method}"))
            if self._host is None:
                raise PermissionDenied(f"{method} is refused: this call has no services of the host")
            answer = decode(encode(await self._host(method, asked)))
        except EventCoreError as error:
            raise as_exception({"code": error.code, "message": str(error)}) from None
        if method == "in_progress":
            self._renew()
        return answer
