"""Wrappers: handlers of hooks of the mode `wrap`. Trusted code in this process only.

::

    async def on_price_asked(payload):
        began = time.monotonic()
        call = yield                        # the others answer now
        call.reply = {**call.reply, "seconds": time.monotonic() - began}

A wrapper is an async generator with exactly one `yield`. What comes before it runs in the order of the hook, what comes
after it in the opposite order. It cannot swallow an error of what it wraps: that is thrown in at the `yield`, so that
`try/finally` works, and goes on to the caller whatever the wrapper does. A task group or cancel scope must not be open
across the `yield`: the two halves run under time limits of their own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import anyio

from eventcore.hooks.registry import Handler
from eventcore.kernel.errors import InvalidInput

log = logging.getLogger("eventcore.hooks")


@dataclass(slots=True)
class Wrapped:
    """What a wrapper gets from its `yield`.

    Attributes:
        reply: the reply of what it wraps, a JSON object or None; may be set to another one.
        error: what it raised, or None.
    """

    reply: Any = None
    error: Exception | None = None


class Wrapper:
    """One wrapper in one call."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.entered = False
        self._generator: Any = None

    async def enter(self, payload: Any) -> None:
        """Run it up to its `yield`."""
        assert self.handler.wrapper is not None
        self._generator = self.handler.wrapper(payload)
        try:
            value = await anext(self._generator)
        except StopAsyncIteration:
            raise InvalidInput("a wrapper yields once; it ended without") from None
        if value is not None:
            await self._generator.aclose()
            raise InvalidInput(f"a wrapper yields nothing, not {type(value).__name__}")
        self.entered = True

    async def abandon(self) -> None:
        """The call was cancelled: run what the wrapper cleans up with, for a second at most."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            try:
                await self._generator.aclose()
            except Exception:
                log.exception("the wrapper %s failed while its call was cancelled", self.handler.name)

    async def leave(self, wrapped: Wrapped) -> None:
        """Run the rest of it."""
        try:
            if wrapped.error is None:
                await self._generator.asend(wrapped)
            else:
                await self._generator.athrow(wrapped.error)
        except StopAsyncIteration:
            return
        except Exception as error:
            if error is wrapped.error:
                return
            raise
        await self._generator.aclose()
        raise InvalidInput("a wrapper yields once; it yielded again")
