"""Calling handlers, sync or async, and telling which they are once instead of at every call."""

from __future__ import annotations

import functools
import inspect
import opcode
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread

AsyncHandler = Callable[..., Awaitable[Any]]

_MAX_MESSAGE = 2000
_SEND = opcode.opmap["SEND"]


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling gives an awaitable: also for partials and for objects with an async `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the point is its async-ness, not whether it is there
    )


def never_waits(function: Callable[..., Any]) -> bool:
    """Whether it is an async function without a single `await`, `async for` or `async with` of its own.

    Such a coroutine runs from its beginning to its end in one step: nothing can cut it off, so it needs no time limit.
    All that waits compiles to the instruction SEND. False where it cannot be told.
    """
    code = getattr(function, "__code__", None)
    return inspect.iscoroutinefunction(function) and code is not None and _SEND not in code.co_code[::2]


def as_async(function: Callable[..., Any]) -> AsyncHandler:
    """`function` itself if it is async; else a version that runs it in a thread.

    A thread cannot be stopped. When a time limit cancels the call, the thread is left to end by itself and its result
    is dropped: a limit on in-process sync code bounds the waiting, not the work.
    """
    if is_async(function):
        return function

    @functools.wraps(function)
    async def in_thread(*args: Any) -> Any:
        return await anyio.to_thread.run_sync(functools.partial(function, *args), abandon_on_cancel=True)

    return in_thread


def name_of(function: Callable[..., Any]) -> str:
    """A name people recognise: the function's own, whatever wraps it."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


def describe(error: BaseException) -> str:
    """`TypeError: message`, or the class alone; at most 2,000 characters, and always text that can be recorded."""
    text = readable(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def readable(value: object) -> str:
    """The text of somebody else's object, so that it can always be recorded: at most 2,000 characters, valid UTF-8."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a class of somebody's own, and this is asked where its failure is isolated
        text = "(its text cannot be read)"
    return text[:_MAX_MESSAGE].encode(errors="replace").decode()
