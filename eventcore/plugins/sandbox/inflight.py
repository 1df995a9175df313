"""Calls that a worker has in hand, and what ends those that run over their time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from eventcore.kernel.errors import PluginFailed
from eventcore.kernel.ports import HostApi
from eventcore.plugins.sandbox.bell import Bell


class InFlight:
    """A call in the worker.

    Attributes:
        id: its number in the channel.
        label: the function that it calls, for messages.
        host: what answers its requests; None once nobody wants its answer any more.
        turn: whether it holds the turn of the plain functions.
        timeout: seconds that it may take.
        due: when it has run over, in monotonic seconds.
        done: rung when it is over.
        open: requests of it that the host has in hand.
        unsent: whether its frame found nobody there any more, so that its code cannot have begun.
    """

    __slots__ = ("done", "due", "failure", "host", "id", "label", "open", "reply", "timeout", "turn", "unsent")

    def __init__(self, number: int, label: str, host: HostApi | None, turn: bool, timeout: float) -> None:
        self.id = number
        self.label = label
        self.host = host
        self.turn = turn
        self.timeout = timeout
        self.due = math.inf
        self.done = Bell()
        self.open = 0
        self.unsent = False
        self.reply: dict[str, Any] | None = None
        self.failure: PluginFailed | None = None

    def renew(self) -> None:
        """Its time begins now."""
        self.due = time.monotonic() + self.timeout

    async def renewing(self, host: HostApi, method: str, params: dict[str, Any]) -> Any:
        """Answer `in_progress`: if the host does not refuse, the worker's own limit begins anew as well."""
        result = await host(method, params)
        self.renew()
        return result


class Watchdog:
    """Tells of calls that run over, with one task for all calls of a worker.

    A cancel scope for each call would cost as much as the call's way through the channel. A call notes when it is due;
    this sleeps until the first one may be, and is woken only by a call that is due before that.

    Args:
        calls: gives those at hand.
        overdue: told of each that has run over.
    """

    def __init__(self, calls: Callable[[], Iterable[InFlight]], overdue: Callable[[InFlight], None]) -> None:
        self._calls, self._overdue = calls, overdue
        self._next = math.inf
        self._woken: anyio.Event | None = None

    def watch(self, call: InFlight) -> None:
        """Its time begins now."""
        call.renew()
        if call.due < self._next:
            self._next = call.due
            if self._woken is not None:
                self._woken.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._woken = anyio.Event()
            now = time.monotonic()
            for call in list(self._calls()):
                if call.due <= now:
                    self._overdue(call)
            self._next = min((call.due for call in self._calls() if call.due > now), default=math.inf)
            with anyio.move_on_after(None if self._next == math.inf else self._next - now):
                await self._woken.wait()
