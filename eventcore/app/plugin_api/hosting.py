"""Engines for objects that come without `async with`.

An engine belongs to one event loop, and a program may use a `PluginRouter` from several, or from none. So each such
engine runs on a loop in a thread of its own, one for each home, shared by all objects of the process. It is opened at
the first use and closed when the main thread ends, or by `close`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal

from eventcore.app.core import EventCore
from eventcore.app.plugin_api.place import Place
from eventcore.home.control_client import EngineNotRunning
from eventcore.kernel.errors import EngineClosed, RemoteError
from eventcore.kernel.settings import PluginSettings, Settings

#: How long opening and closing may take, in seconds.
_PATIENCE = 120.0


class Hosted:
    """One engine in a thread of its own.

    Raises:
        HomeError, InvalidSettings, StoreError: it cannot be opened.
    """

    def __init__(self, place: Place, core: EventCore | None = None) -> None:
        self._core = core or _core(place)
        self._portal: BlockingPortal | None = None
        self._ready: Future[None] = Future()
        # No daemon: the interpreter waits for it at its end, so that plugins are cleaned up and the store is closed.
        self._thread = threading.Thread(target=anyio.run, args=(self._serve,), name=f"eventcore {place.home or ''}")
        self._thread.start()
        self._ready.result(_PATIENCE)
        threading.Thread(target=self._close_with_main, name="eventcore close", daemon=True).start()

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return self._portal is not None

    def start(self, operation: str, params: Mapping[str, Any], timeout: float) -> Future[Any]:
        """Begin an operation.

        Raises:
            EngineClosed: it was closed.
        """
        portal = self._portal
        if portal is None:
            raise EngineClosed()
        return portal.start_task_soon(self._perform, operation, dict(params), timeout)

    def run(self, function: Callable[[EventCore], Awaitable[Any]]) -> Any:
        """Run a function of the engine on its own loop, and wait for it.

        Raises:
            EngineClosed: it was closed.
        """
        if self._portal is None:
            raise EngineClosed()
        return self._portal.call(function, self._core)

    def close(self) -> None:
        """Close the engine and wait for its end."""
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.start_task_soon(portal.stop)
        self._thread.join(_PATIENCE)

    async def _serve(self) -> None:
        try:
            async with BlockingPortal() as portal, self._core:
                self._portal = portal
                self._ready.set_result(None)
                await portal.sleep_until_stopped()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self._portal = None

    async def _perform(self, operation: str, params: dict[str, Any], timeout: float) -> Any:
        return await self._core.perform(operation, params, timeout=timeout)

    def _close_with_main(self) -> None:
        threading.main_thread().join()
        self.close()


class Link:
    """A way to the engine of a place; made at once, and opened at the first use."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def call(self, operation: str, params: Mapping[str, Any] | None = None, timeout: float = 300.0) -> Any:
        """Carry out an operation and wait for it. In an event loop, which this blocks, only for short looks.

        Raises:
            EventCoreError: it was refused or failed; the class is the same whichever process has the engine.
        """
        for last in (False, True):
            try:
                return hosted(self.place).start(operation, params or {}, timeout).result()
            except RemoteError as error:
                _mend(self.place, error, last)
        raise AssertionError("unreachable: the last turn of the loop returns or raises")

    async def acall(self, operation: str, params: Mapping[str, Any] | None = None, timeout: float = 300.0) -> Any:
        """As `call`, for async code on any loop; cancelling it cancels the operation."""
        for last in (False, True):
            try:
                # Opening takes a while, and the loop goes on meanwhile.
                host = running(self.place)
                if host is None:
                    host = await to_thread.run_sync(hosted, self.place)
                return await _result(host.start(operation, params or {}, timeout))
            except RemoteError as error:
                _mend(self.place, error, last)
        raise AssertionError("unreachable: the last turn of the loop returns or raises")


def _mend(place: Place, error: RemoteError, last: bool) -> None:
    """The engine that we talked to is gone: the next try opens the home, or finds its next owner."""
    if last or not isinstance(error, EngineNotRunning):
        raise error from None
    close(place)


async def _result(future: Future[Any]) -> Any:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # trio
        return await to_thread.run_sync(future.result, abandon_on_cancel=True)
    return await asyncio.wrap_future(future, loop=loop)


def _core(place: Place) -> EventCore:
    if place.plugins is None:
        return EventCore(place.home)
    return EventCore(settings=Settings(plugins=PluginSettings(search=(str(place.plugins),))))


# -- the engines of this process ---------------------------------------------------------------------------------------

#: Shared by the plugin classes, never by engines: two places have two engines, which know nothing of each other.
_HOSTS: Final[dict[tuple[int, Place], Hosted]] = {}
_LOCK: Final = threading.Lock()


def running(place: Place) -> Hosted | None:
    """The engine of a place, if this process has it open."""
    found = _HOSTS.get((os.getpid(), place))
    return found if found is not None and found.open else None


def hosted(place: Place) -> Hosted:
    """The engine of a place; opens it if this process has none. A forked child opens its own.

    Raises:
        HomeError, InvalidSettings, StoreError: it cannot be opened.
    """
    with _LOCK:
        found = running(place)
        if found is None:
            found = _HOSTS[os.getpid(), place] = Hosted(place)
        return found


def adopt(place: Place, core: EventCore) -> None:
    """Let the plugin classes use this engine, which nobody has opened yet, for a place. For tests.

    Raises:
        EngineClosed: the place has an engine; close it first.
    """
    with _LOCK:
        if running(place) is not None:
            raise EngineClosed("this place has an open engine; close it first")
        _HOSTS[os.getpid(), place] = Hosted(place, core)


def close(place: Place | None = None) -> None:
    """Close the engine of a place that the plugin classes opened, or all of them. The next use opens it again."""
    with _LOCK:
        keys = [key for key in _HOSTS if key[0] == os.getpid() and place in (None, key[1])]
        hosts = [_HOSTS.pop(key) for key in keys]
    for host in hosts:
        host.close()
