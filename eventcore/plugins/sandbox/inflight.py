"""A call that a worker has in hand."""

from __future__ import annotations

from typing import Any

import anyio

from eventcore.kernel.errors import PluginFailed
from eventcore.kernel.ports import HostApi


class InFlight:
    """A call in the worker."""

    __slots__ = ("done", "failure", "host", "id", "label", "limit", "open", "reply", "timeout", "turn", "unsent")

    def __init__(self, number: int, label: str, host: HostApi | None, turn: bool, timeout: float) -> None:
        self.id = number
        self.timeout = timeout
        self.limit = anyio.CancelScope()
        self.label = label
        self.host = host
        self.turn = turn
        self.done = anyio.Event()
        self.open = 0
        #: Its frame found nobody there any more, so its code cannot have begun.
        self.unsent = False
        self.reply: dict[str, Any] | None = None
        self.failure: PluginFailed | None = None

    def renew(self) -> None:
        """Its time begins now."""
        self.limit.deadline = anyio.current_time() + self.timeout

    async def renewing(self, host: HostApi, method: str, params: dict[str, Any]) -> Any:
        """Answer `in_progress`: if the host does not refuse, the worker's own limit begins anew as well."""
        result = await host(method, params)
        self.renew()
        return result
