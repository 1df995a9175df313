"""One thing that one task waits for, on any event loop.

On asyncio it is a future of its own kind. `anyio.Event` does the same at four times the cost: it looks up which loop
runs, once when it is made and again when it is waited for, and gives way once more when it is already set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

import anyio


class _Heard(asyncio.Future[None]):
    """A future with one waiter, which goes on within `ring` if the loop is in none of its tasks.

    A plain future makes it go on in the loop's next turn, which looks for what is readable once more: for a warm call
    that is a system call, and a tenth of what it costs the host.
    """

    _waiter: tuple[Callable[[Any], object], Context | None] | None = None

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        self._waiter = (fn, context)

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        removed, self._waiter = self._waiter is not None, None
        return int(removed)

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self._soon()
        return True

    def ring(self) -> None:
        if self.done():
            return
        self.set_result(None)
        if asyncio.current_task(self.get_loop()) is not None:  # a task cannot be entered from within another
            self._soon()
        elif self._waiter is not None:
            fn, context = self._waiter
            if context is None:
                fn(self)
            else:
                context.run(fn, self)

    def _soon(self) -> None:
        if self._waiter is not None:
            fn, context = self._waiter
            self.get_loop().call_soon(fn, self, context=context)


class Bell:
    """Rung once, heard once.

    Make it in a task of the loop that will wait for it. `ring` may be called outside any task, and then returns when
    who waits has gone on as far as it can.
    """

    __slots__ = ("_event", "_future")

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        self._future: _Heard | None = None
        try:
            self._future = _Heard(loop=asyncio.get_running_loop())
        except RuntimeError:  # another loop than asyncio's
            self._event = anyio.Event()

    async def wait(self) -> None:
        """Return when it was rung. Only one task may wait, and only once."""
        if self._future is not None:
            await self._future
        elif self._event is not None:
            await self._event.wait()

    def ring(self) -> None:
        """Wake who waits; to nobody's harm, if that one was cancelled or has been woken."""
        if self._future is not None:
            self._future.ring()
        elif self._event is not None:
            self._event.set()
