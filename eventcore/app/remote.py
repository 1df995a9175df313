"""A script that opens a home which a running engine owns talks to that engine, through its control socket.

The rooms here have the methods of the real ones as far as they can be carried over a socket. What needs the engine's
own process (handlers, in-process intents, payload models, signals) raises `RemoteError` and says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from anyio.abc import TaskGroup

from eventcore.app.remote_bus import RemoteBus
from eventcore.app.remote_room import SLACK, Room, event_of, not_here, plain
from eventcore.home.control import ControlClient
from eventcore.kernel.errors import RunFailed
from eventcore.kernel.event import Event

_PAGE = 500


class Remote:
    """The rooms of an engine in another process."""

    def __init__(self, client: ControlClient, tasks: TaskGroup) -> None:
        self.client = client
        self.bus = RemoteBus(client, tasks)
        self.hooks = RemoteHooks(client)
        self.plugins = RemotePlugins(client)
        self.workflows = RemoteWorkflows(client)
        self.history = RemoteHistory(client)

    def __getattr__(self, name: str) -> Any:
        raise not_here(f"core.{name}")


class RemoteHooks(Room):
    """`core.hooks` of a running engine: `call`, which returns the outcome as a dict."""

    async def call(self, hook: str, payload: Any) -> dict[str, Any]:
        """As `Hooks.call`."""
        return dict(await self._client.call("hooks.call", {"hook": hook, "payload": payload}))


class RemotePlugins(Room):
    """`core.plugins` of a running engine: `run`, `enable`, `disable`."""

    async def run(
        self,
        intent: str,
        params: Mapping[str, Any] | None = None,
        *,
        roles: Iterable[str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """As `Plugins.run`."""
        request: dict[str, Any] = {"intent": intent, "params": dict(params or {}), "user": user, "timeout": timeout}
        request["roles"] = None if roles is None else list(roles)
        answer = await self._client.call("intents.run", request, timeout=(timeout or 300.0) + SLACK)
        return answer["result"]

    async def enable(self, name: str, *, grants: Iterable[str] = ()) -> dict[str, Any]:
        """As `Plugins.enable`; returns the plugin's row."""
        return dict(await self._client.call("plugins.enable", {"name": name, "grants": list(grants)}))

    async def disable(self, name: str) -> dict[str, Any]:
        """As `Plugins.disable`; returns the plugin's row."""
        return dict(await self._client.call("plugins.disable", {"name": name}))


class RemoteWorkflows(Room):
    """`core.workflows` of a running engine: `start` and `run`."""

    async def start(
        self, slug: str, inputs: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> RemoteRun:
        """As `Workflows.start`."""
        request = {"slug": slug, "inputs": dict(inputs or {}), "idempotency_key": idempotency_key}
        started = await self._client.call("workflows.start", request)
        return RemoteRun(self._client, started["run"], started["slug"])

    async def run(self, run_id: str) -> RemoteRun:
        """As `Workflows.run`."""
        row = await self._client.call("runs.show", {"id": run_id})
        return RemoteRun(self._client, row["id"], row["slug"])


class RemoteRun:
    """A run of a running engine."""

    def __init__(self, client: ControlClient, run_id: str, slug: str) -> None:
        self._client, self.id, self.slug = client, run_id, slug

    async def status(self) -> str:
        """As `RunHandle.status`."""
        return str((await self._client.call("runs.show", {"id": self.id}))["status"])

    async def result(self, timeout: float = 60.0) -> Any:
        """As `RunHandle.result`."""
        request = {"id": self.id, "timeout": timeout}
        row = await self._client.call("runs.wait", request, timeout=timeout + SLACK)
        if row["status"] == "completed":
            return row["output"]
        if row["status"] in ("queued", "running", "waiting", "paused"):
            raise TimeoutError(f"run {self.id} of {self.slug} is not over after {timeout:g} s")
        raise RunFailed.of(self.slug, self.id, row["status"], row["error"] or {})


class RemoteHistory(Room):
    """`core.history` of a running engine: `query` and `get`."""

    async def query(self, *, limit: int | None = None, **axes: Any) -> AsyncIterator[Event]:
        """As `History.query`."""
        request = {name: plain(value) for name, value in axes.items()}
        newest = bool(request.pop("newest_first", False))
        left = limit
        while left is None or left > 0:
            page = min(_PAGE, left or _PAGE)
            items = await self._client.call("events.list", {**request, "newest": newest, "limit": page})
            for item in reversed(items) if newest else items:
                yield event_of(item)
            if len(items) < page:
                return
            left = None if left is None else left - len(items)
            request |= {"before": items[0]["position"]} if newest else {"after": items[-1]["position"]}

    async def get(self, event_id: str) -> Event:
        """As `History.get`."""
        return event_of((await self._client.call("events.show", {"id": event_id}))["event"])
