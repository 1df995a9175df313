"""One thing that one task waits for, on any event loop.

On asyncio it is a bare future. `anyio.Event` does the same at four times the cost: it looks up which loop runs, once
when it is made and again when it is waited for, and gives way once more when it is already set.
"""

from __future__ import annotations

import asyncio

import anyio


class Bell:
    """Rung once, heard once.

    Make it in a task of the loop that will wait for it; `ring` may be called outside any task.
    """

    __slots__ = ("_event", "_future")

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        self._future: asyncio.Future[None] | None = None
        try:
            self._future = asyncio.get_running_loop().create_future()
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
            if not self._future.done():
                self._future.set_result(None)
        elif self._event is not None:
            self._event.set()
