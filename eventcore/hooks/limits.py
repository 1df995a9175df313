"""Time limits of handlers that run one after the other.

A cancel scope with a deadline costs about 6 us a handler, most of it for a timer that hardly ever fires. So one scope
is entered a call, each handler's first stretch is run by hand, and the timer is set only for one that has to wait for
something: a handler that does not wait could not have been cut off anyway. One whose code holds nothing that waits
(`Handler.at_once`) does not even come here.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any

import anyio


class TimedOut(Exception):
    """A handler ran over its limit, in seconds, and was cut off."""

    def __init__(self, limit: float) -> None:
        self.limit = limit


class Limits:
    """Runs awaitables one at a time, each with a limit of its own. Used by one task, and closed by it."""

    __slots__ = ("scope",)

    def __init__(self) -> None:
        self.scope: anyio.CancelScope | None = None

    def _begin(self) -> None:
        """Enter the scope. Before a handler's first step: scopes that it opens must lie inside of ours."""
        self.scope = anyio.CancelScope()
        self.scope.__enter__()

    async def run(self, begin: Callable[[], Awaitable[Any]], limit: float) -> Any:
        """What a handler answers.

        Args:
            begin: makes its coroutine.
            limit: seconds.

        Raises:
            TimedOut: it took longer. Whatever it raises itself is passed on, its own TimeoutError too.
        """
        if self.scope is None:
            self._begin()
        made: Any = begin()
        steps: Any = made if isinstance(made, CoroutineType) else made.__await__()
        try:
            waits_for = steps.send(None)
        except StopIteration as done:
            return done.value
        return await self._rest(steps, waits_for, limit)

    async def _rest(self, steps: Generator[Any, Any, Any], waits_for: Any, limit: float) -> Any:
        """The end of a handler that was begun by hand: `steps`, one step of which gave `waits_for`."""
        scope = self.scope
        assert scope is not None
        scope.deadline = anyio.current_time() + limit
        try:
            value = await _Rest(steps, waits_for)
        except Exception:
            self._renew(scope)
            raise
        except BaseException as error:
            self.scope = None
            if scope.__exit__(type(error), error, error.__traceback__):
                raise TimedOut(limit) from None
            raise
        self._renew(scope)
        return value

    def _renew(self, scope: anyio.CancelScope) -> None:
        scope.deadline = math.inf
        if scope.cancel_called:  # it ended in the very moment in which it was cut off; what follows must not be
            self.close()

    def close(self) -> None:
        """Leave the scope. May be called twice."""
        scope, self.scope = self.scope, None
        if scope is not None:
            scope.__exit__(None, None, None)


class _Rest:
    """The rest of an awaitable that was begun by hand: what it waits for now, then all that follows."""

    __slots__ = ("_steps", "_waits_for")

    def __init__(self, steps: Any, waits_for: Any) -> None:
        self._steps, self._waits_for = steps, waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        steps, waits_for = self._steps, self._waits_for
        while True:
            try:
                try:
                    answer = yield waits_for
                except BaseException as error:  # noqa: BLE001 - passed on to whom it is meant for
                    waits_for = steps.throw(error)
                else:
                    waits_for = steps.send(answer)
            except StopIteration as done:
                return done.value
