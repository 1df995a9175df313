"""Where a command's operations are carried out: by the engine that runs on the home, else by one opened for it.

Standard library and click only, so that a command which finds a running engine is quick.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from eventcore.cli.base import HOME
from eventcore.cli.pipeline import pipeline
from eventcore.home import control_client
from eventcore.home.control_client import EngineNotRunning
from eventcore.home.layout import Home
from eventcore.kernel.errors import EventCoreError, HomeError, HomeInUse, RemoteError

T = TypeVar("T")

#: How long to wait for a home that another command has open, in seconds.
PATIENCE = 10.0
_PAUSE = 0.05
#: How many events are on their way at once; the control socket takes 32 requests of one connection.
WINDOW = 24

#: Asking again does no harm.
_READS = frozenset(
    {"status", "settle", "events.list", "events.show", "events.summary", "events.count", "events.explain"}
    | {"hooks.list", "plugins.list", "plugins.info", "plugins.config", "plugins.inspect", "plugins.absent"}
    | {"workflows.list", "workflows.show", "runs.list", "runs.show", "runs.wait"}
)


class Link(Protocol):
    """A way to an engine."""

    def call(self, op: str, params: Mapping[str, Any], timeout: float) -> Any: ...
    def stream(self, op: str, params: Mapping[str, Any]) -> Generator[Any, None, Any]: ...
    def many(
        self, op: str, requests: Iterable[tuple[T, dict[str, Any]]], window: int
    ) -> Iterator[tuple[T, dict[str, Any] | EventCoreError]]: ...
    def close(self, drain: float | None) -> None: ...


class Remote:
    """The engine behind a control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(self, op: str, params: Mapping[str, Any], timeout: float) -> Any:
        return control_client.request(self._path, op, params, timeout)

    def stream(self, op: str, params: Mapping[str, Any]) -> Generator[Any, None, Any]:
        return (yield from control_client.stream(self._path, op, params))

    def many(
        self, op: str, requests: Iterable[tuple[T, dict[str, Any]]], window: int
    ) -> Iterator[tuple[T, dict[str, Any] | EventCoreError]]:
        return pipeline(self._path, op, requests, window)

    def close(self, drain: float | None) -> None:
        """Nothing to do: each request has a connection of its own."""


class Session:
    """Operations on one home.

    Attributes:
        home: the home.
        drain: seconds that an engine opened for this command may take to finish what it does when the command is done;
            None means what the settings say. A running engine is not affected.
    """

    def __init__(self, home: Home, *, quiet: bool) -> None:
        self.home = home
        self.drain: float | None = None
        self._quiet = quiet
        self._link = _link(home, quiet)

    @property
    def remote(self) -> bool:
        """Whether an engine in another process does the work."""
        return isinstance(self._link, Remote)

    def call(self, op: str, params: Mapping[str, Any] | None = None, timeout: float = 30.0) -> Any:
        """The result of an operation. Parameters that are None are left out.

        Args:
            timeout: seconds that a running engine may take to answer.

        Raises:
            EventCoreError: it was refused or failed; from a running engine, `RemoteError` with the same `code`.
        """
        given = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            return self._link.call(op, given, timeout)
        except RemoteError as error:
            # The engine closed between our finding it and our asking, or (`connection_lost`) while we asked.
            if not (isinstance(error, EngineNotRunning) or (error.code == "connection_lost" and op in _READS)):
                raise
        self._link = _link(self.home, self._quiet)
        return self._link.call(op, given, timeout)

    def stream(self, op: str, params: Mapping[str, Any] | None = None) -> Generator[Any, None, Any]:
        """The items of an operation that sends some; its result is the generator's. Closing it cancels it."""
        return self._link.stream(op, params or {})

    def many(
        self, op: str, requests: Iterable[tuple[T, dict[str, Any]]], window: int = WINDOW
    ) -> Iterator[tuple[T, dict[str, Any] | EventCoreError]]:
        """Carry out one operation for each (tag, params), started in order, `window` of them at once.

        Yields:
            (tag, result or error), as they are done. `requests` is read as there is room.

        Raises:
            RemoteError: the running engine has gone; what was not yielded by then may or may not be done.
        """
        return self._link.many(op, requests, window)

    def settle(self, timeout: float) -> bool:
        """Wait until nothing is being handled, `timeout` seconds at most; whether that came about."""
        done = bool(self.call("settle", {"timeout": timeout}, timeout + 10)["idle"])
        if not done:
            self.drain = 0  # who waited long enough here will not wait again for the engine to close
        return done

    def close(self) -> None:
        """End an engine that was opened for this command."""
        self._link.close(self.drain)


@contextmanager
def connect(*, quiet: bool = False) -> Iterator[Session]:
    """A session on the home that the command line names.

    Args:
        quiet: the command only looks: an engine opened for it takes up no runs and leaves no trace in the history.

    Raises:
        HomeError: there is no home, or it cannot be opened.
    """
    session = Session(find_home(), quiet=quiet)
    try:
        yield session
    except BaseException:
        session.drain = 0
        raise
    finally:
        session.close()


def find_home() -> Home:
    """The home that `--home` or EVENTCORE_HOME names, else the nearest one at or above the current folder.

    Raises:
        HomeError: there is none.
    """
    named = click.get_current_context().meta.get(HOME)
    if named:
        return Home.at(named, os.environ)
    try:
        here = Path.cwd()
    except OSError as error:
        raise HomeError(f"the current folder is gone: {error.strerror}", hint="cd to another, or use --home") from None
    return Home.find(here, os.environ)


def _link(home: Home, quiet: bool) -> Link:
    """The running engine, or one of our own. Waits for a home that another command is about to close."""
    give_up = time.monotonic() + PATIENCE
    while True:
        path = control_client.socket_path(home.state)
        if control_client_answers(path):
            return Remote(path)
        from eventcore.cli.local import Local

        try:
            return Local(home, quiet=quiet)
        except HomeInUse:
            if time.monotonic() > give_up:
                raise
        time.sleep(_PAUSE)


def control_client_answers(path: Path) -> bool:
    """Whether somebody listens at a control socket."""
    from eventcore.cli.pipeline import open_socket

    try:
        open_socket(path).close()
    except EventCoreError:
        return False
    return True
