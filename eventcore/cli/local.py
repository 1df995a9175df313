"""An engine opened in this process, for a command that found none running.

It runs on a loop in a thread of its own, so that the command can read a terminal, and be interrupted, meanwhile.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

import anyio
import click
from anyio.from_thread import BlockingPortal, start_blocking_portal

from eventcore.app import EventCore
from eventcore.cli.output import clean
from eventcore.home.layout import Home
from eventcore.kernel.errors import EventCoreError, HomeInUse
from eventcore.operations import perform

T = TypeVar("T")

_STREAM_BUFFER = 64


class Local:
    """The engine of one command; serves other commands through its control socket, unless it is quiet.

    Raises:
        HomeInUse: another process owns the home; try its socket.
        HomeError, InvalidSettings, StoreError: it cannot be opened.
    """

    def __init__(self, home: Home, *, quiet: bool) -> None:
        _show_warnings()
        with ExitStack() as stack:
            self._portal: BlockingPortal = stack.enter_context(start_blocking_portal("asyncio"))
            core = EventCore(home.root, quiet=quiet)
            self._core: EventCore = stack.enter_context(self._portal.wrap_async_context_manager(core))
            if self._core.remote:
                raise HomeInUse(f"another process owns {home.root}")
            self._stack = stack.pop_all()

    def call(self, op: str, params: Mapping[str, Any], timeout: float) -> Any:
        return self._run(perform, self._core.engine, op, dict(params), _drop)

    def stream(self, op: str, params: Mapping[str, Any]) -> Generator[Any, None, Any]:
        sender, receiver = anyio.create_memory_object_stream[Any](_STREAM_BUFFER)

        async def pump() -> Any:
            async with sender:
                return await perform(self._core.engine, op, dict(params), sender.send)

        work = self._portal.start_task_soon(pump)
        try:
            while True:
                try:
                    yield self._run(receiver.receive)
                except anyio.EndOfStream:
                    return work.result()
        finally:
            work.cancel()
            self._portal.call(receiver.aclose)

    def many(
        self, op: str, requests: Iterable[tuple[T, dict[str, Any]]], window: int
    ) -> Iterator[tuple[T, dict[str, Any] | EventCoreError]]:
        pending: deque[tuple[T, Future[Any]]] = deque()
        for tag, params in requests:
            pending.append((tag, self._portal.start_task_soon(perform, self._core.engine, op, params, _drop)))
            while pending and (len(pending) >= window or pending[0][1].done()):
                yield _outcome(*pending.popleft())
        while pending:
            yield _outcome(*pending.popleft())

    def close(self, drain: float | None) -> None:
        if drain is not None:
            engine = self._core.engine
            limit = engine.settings.engine.model_copy(update={"drain_timeout": drain})
            engine.settings = engine.settings.model_copy(update={"engine": limit})
        self._stack.close()

    def _run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        work = self._portal.start_task_soon(function, *args)
        try:
            return work.result()
        except BaseException:
            work.cancel()  # Ctrl-C came while we waited
            raise


async def _drop(item: Any) -> None:
    """Items of an operation whose result alone is asked for."""


def _outcome(tag: T, work: Future[Any]) -> tuple[T, dict[str, Any] | EventCoreError]:
    try:
        return tag, work.result()
    except EventCoreError as error:
        return tag, error


class _Brief(logging.Handler):
    """One line on stderr, without a traceback: the history holds the details."""

    def emit(self, record: logging.LogRecord) -> None:
        colour = "red" if record.levelno >= logging.ERROR else "yellow"
        label = click.style(f"{record.levelname.lower()}:", fg=colour)
        click.echo(f"{label} {clean(record.getMessage())}", err=True, color=sys.stderr.isatty())


def _show_warnings() -> None:
    logger = logging.getLogger("eventcore")
    if not logger.handlers:
        logger.addHandler(_Brief(logging.WARNING))
        logger.propagate = False
