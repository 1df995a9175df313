"""`EventCore`: what embedders open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio

from eventcore.app.blocking import SyncCore
from eventcore.app.options import Options
from eventcore.app.remote import Remote
from eventcore.app.wiring import open_engine
from eventcore.bus.bus import Bus
from eventcore.bus.history import History
from eventcore.bus.signals import Signals
from eventcore.engine import Engine
from eventcore.home.control import ControlClient
from eventcore.home.control_client import socket_path
from eventcore.home.layout import Home
from eventcore.hooks.caller import Hooks
from eventcore.hooks.specs import HookSpec
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EngineClosed, EventCoreError, HomeInUse, RemoteError
from eventcore.kernel.ports import Clock, Faults, Metrics, Secrets, Store
from eventcore.kernel.settings import Settings
from eventcore.operations import perform
from eventcore.plugins.face import Plugins
from eventcore.workflows.face import Workflows

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


class EventCore:
    """An event bus, a hook and plugin host, and a workflow engine, in this process.

    ::

        async with EventCore() as core:                          # in memory
        async with EventCore("path/to/home") as core:            # a home; SQLite in its .eventcore/
        async with EventCore(store="sqlite:///f.db") as core:    # SQLite without a home

    Opening resumes what was in flight. Two engines share nothing. An engine belongs to the process and the event loop
    that opened it. A home that a running engine owns is not opened a second time: the object then talks to that engine
    through its control socket, and `remote` is True.

    Args:
        home: a folder with `eventcore.toml`, or None.
        store: a URL (`memory:`, `sqlite:///path`) or a store object; default SQLite in a home, memory without.
        settings: in place of the home's file.
        tenant: whose data calls are about that name no tenant; default that of the settings.
        clock, faults, metrics, secrets: ports, for tests and special needs.
        hooks: hooks of your own, declared before plugins and hook files are loaded.
        quiet: open only to look: nothing in flight is taken up, and opening and closing leave no events.

    Raises (on entering):
        HomeError: the folder is no home. HomeInUse: another engine owns it but does not answer.
        InvalidSettings: `eventcore.toml` has errors. StoreError: the store cannot be opened.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        store: Store | str | None = None,
        settings: Settings | None = None,
        tenant: str | None = None,
        clock: Clock | None = None,
        faults: Faults | None = None,
        metrics: Metrics | None = None,
        secrets: Secrets | None = None,
        hooks: Iterable[HookSpec] = (),
        quiet: bool = False,
    ) -> None:
        options = Options(Path(home) if home is not None else None, store, settings, tenant)
        options.clock = clock or options.clock
        options.faults = faults or options.faults
        options.metrics, options.secrets, options.quiet = metrics, secrets, quiet
        options.hooks = tuple(hooks)
        self._options = options
        self._stack: AsyncExitStack | None = None
        self._engine: Engine | None = None
        self._remote: Remote | None = None

    @classmethod
    def sync(cls, *args: Any, **options: Any) -> SyncCore:
        """`with EventCore.sync(...) as core:` for programs without an event loop; takes what `EventCore` takes."""
        return SyncCore(cls(*args, **options))

    # -- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> EventCore:
        if self._stack is not None:
            raise EngineClosed("this engine was opened before; make a new EventCore")
        stack = self._stack = AsyncExitStack()
        try:
            await self._open(stack)
        except BaseException:
            await self._close(stack)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        assert self._stack is not None
        try:
            if kind is None and self._remote is None:
                await self._stop_gently()
        finally:
            await self._close(self._stack)

    async def _close(self, stack: AsyncExitStack) -> None:
        # Closed as if nothing had been raised: our task groups would otherwise wrap the caller's own exception in
        # exception groups, three deep, and `except NotFound` around the block would miss it.
        self._engine = self._remote = None
        await stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        try:
            self._engine = await open_engine(self._options, stack)
        except HomeInUse as error:
            client = await self._reach_owner(error)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            self._remote = Remote(client, tasks)
            stack.push_async_callback(self._remote.bus.close)
            return
        await self._announce("system_started", "on_startup")

    async def _reach_owner(self, error: HomeInUse) -> ControlClient:
        """A way to the engine that owns our home, if it answers."""
        assert self._options.home is not None
        client = ControlClient(socket_path(Home.at(self._options.home).state))
        try:
            await client.call("status", timeout=5.0)
        except EventCoreError:
            raise error from None
        return client

    async def _stop_gently(self) -> None:
        await self.drain(self.engine.settings.engine.drain_timeout)
        await self._announce("system_stopped", "on_shutdown", first_hook=True)

    async def _announce(self, event: str, hook: str, *, first_hook: bool = False) -> None:
        if self._options.quiet:
            return
        engine = self.engine
        system = CallContext(tenant=engine.tenant, actor="system")
        if first_hook and any(engine.hooks.registry.ordered(hook).values()):
            await engine.hooks.call(hook, {}, context=system)
        await engine.bus.announce(event, {"home": engine.home}, system)
        if not first_hook and any(engine.hooks.registry.ordered(hook).values()):
            await engine.hooks.call(hook, {}, context=system)

    async def drain(self, timeout: float = 60.0) -> bool:
        """Wait until no event is being handled and no run is being driven, at most `timeout` seconds.

        Runs that wait for a time or for an intent do not count: they are safe in the store.

        Returns:
            Whether everything came to rest.
        """
        if self._remote is not None:
            settled = await self._remote.client.call("settle", {"timeout": timeout}, timeout=timeout + 5.0)
            return bool(settled["idle"])
        engine = self.engine
        with anyio.move_on_after(timeout):
            while not engine.idle:  # noqa: ASYNC110 - neither pumps nor runs signal idleness, to stay cheap
                await anyio.sleep(0.002)
        return engine.idle

    async def perform(self, operation: str, params: Mapping[str, Any] | None = None, *, timeout: float = 300.0) -> Any:
        """Carry out one of the operations of `eventcore.operations` by its name, and return its JSON.

        That is what the command line and the plugin classes (`PluginRouter` and its like) do; it works the same on an
        engine in another process. What an operation sends on its way is dropped.

        Args:
            timeout: seconds that an engine in another process may take.

        Raises:
            NotFound, InvalidInput: there is no such operation, or it does not take these parameters. What the operation
            raises comes through, from another process too.
        """
        asked = {key: value for key, value in (params or {}).items() if value is not None}
        if self._remote is not None:
            return await self._remote.client.call(operation, asked, timeout=timeout)
        return await perform(self.engine, operation, asked, _drop)

    @property
    def remote(self) -> bool:
        """Whether this object talks to an engine in another process."""
        return self._remote is not None

    def _room(self, kind: type[R], name: str) -> R:
        # A remote room has the methods of the real one that can be carried over; the rest say why not.
        return cast("R", getattr(self._remote if self._remote is not None else self.engine, name))

    # -- rooms -------------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The open engine's rooms.

        Raises:
            EngineClosed: it is not open.
        """
        if self._remote is not None:
            raise RemoteError("another process owns this home; its engine is not here")
        if self._engine is None:
            raise EngineClosed()
        return self._engine

    @property
    def bus(self) -> Bus:
        """Facts: emit, subscribe, stream."""
        return self._room(Bus, "bus")

    @property
    def hooks(self) -> Hooks:
        """Questions: call, register."""
        return self._room(Hooks, "hooks")

    @property
    def plugins(self) -> Plugins:
        """Plugins and intents: run, list, enable, disable."""
        return self._room(Plugins, "plugins")

    @property
    def workflows(self) -> Workflows:
        """Definitions and runs: define, start, run."""
        return self._room(Workflows, "workflows")

    @property
    def history(self) -> History:
        """What happened: query, get, tree."""
        return self._room(History, "history")

    @property
    def signals(self) -> Signals:
        """The in-process tap: `core.signals.workflow_started.connect(fn)`."""
        return self.engine.bus.signals

    @property
    def metrics(self) -> Metrics:
        """Counters, histograms and gauges; `core.metrics.text()` is Prometheus text."""
        return self.engine.metrics

    def intent(self, name: str, *, roles: Iterable[str] = ()) -> Callable[[F], F]:
        """Decorator: answer the intent `name` with this function, trusted and in-process.

        ::

            @core.intent("classify_text")
            async def classify(params): ...
        """

        def register(function: F) -> F:
            self.plugins.intent(name, function, roles)
            return function

        return register


async def _drop(item: Any) -> None:
    """Items of an operation whose result alone is asked for."""
