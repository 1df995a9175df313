"""`ctx`: what plugin code may ask of its host while it handles a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from eventcore.sdk.api import ApiContext
from eventcore.sdk.binding import Answer, Binding, Pending, bind, bound, current
from eventcore.sdk.chat import ChatContext
from eventcore.sdk.database import Database
from eventcore.sdk.outside import Finished, HttpContext, hand_over, run
from eventcore.sdk.scheduler import SchedulerContext

__all__ = ["Answer", "Binding", "Context", "Pending", "bind", "bound", "ctx"]


class MemoryContext:
    """`ctx.memory`: results remembered for this tenant."""

    def read(self, query: str, limit: int = 5) -> Answer[list[dict[str, Any]]]:
        """Memories whose query or result holds every word of `query`, newest first, at most `limit`."""
        return current().ask("memory.read", {"query": query, "limit": limit})

    def write(self, query: str, result: Any) -> Answer[None]:
        """Remember a JSON `result` under `query`."""
        return current().ask("memory.write", {"query": query, "result": result})


class WorkflowsContext:
    """`ctx.workflows`; needs `enable_external_workflow` in the manifest."""

    def start(self, slug: str, inputs: Mapping[str, Any] | None = None) -> Answer[dict[str, Any]]:
        """Start a run of the workflow `slug`; the answer names the run."""
        return current().ask("workflows.start", {"slug": slug, "inputs": dict(inputs or {})})


class Context:
    """The proxy behind `ctx`. It holds nothing itself; every use looks up the call that the running code belongs to.

    Every method raises `PluginError` outside a call and `PermissionDenied` where the host refuses. A handler may also
    take it as a parameter: `def run(params, ctx)`.
    """

    memory = MemoryContext()
    workflows = WorkflowsContext()
    chat = ChatContext()
    scheduler = SchedulerContext()
    api = ApiContext()
    http = HttpContext()

    def emit(
        self,
        type: str,
        data: Any = None,
        *,
        key: str | None = None,
        now: bool = False,
    ) -> Answer[Any]:
        """Emit an event.

        Args:
            type: one that the manifest lists in `events.emits`, or a name under the plugin's own prefix.
            data: JSON, at most 256 KiB.
            key: events of one key are handled in order.
            now: commit at once. Without it, a durable delivery or a workflow step stages the event and commits it
                together with its own success; an error drops it.
        """
        return current().ask("emit", {"type": type, "data": data, "key": key, "now": now})

    def request(self, intent: str, params: Mapping[str, Any] | None = None, timeout: float = 10) -> Answer[Any]:
        """Ask another plugin, by intent or slug, and wait at most `timeout` seconds for its result.

        Raises `NoResponder` at once if there is none.
        """
        return current().ask("request", {"intent": intent, "params": dict(params or {}), "timeout": timeout})

    def schedule(
        self,
        name: str,
        at: datetime | str | float | None = None,
        *,
        after: float | timedelta | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        emit: str | None = None,
        call: str | None = None,
        data: Any = None,
    ) -> Answer[dict[str, Any]]:
        """Plan an event or a call for later, once or again and again: short for `ctx.scheduler.plan`."""
        return self.scheduler.plan(name, at, after=after, cron=cron, timezone=timezone, emit=emit, call=call, data=data)

    def db(self, name: str = "main") -> Database:
        """A database by name: one that the operator lists under `[databases]`, else one of the plugin's own."""
        return Database(name)

    def run(
        self,
        command: Sequence[str],
        *,
        input: bytes | str = b"",
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Answer[Finished]:
        """Run a program that the operator lists for the plugin, and wait for its end. Needs `system_access`.

        It runs in a sandbox of its own, with the plugin's folders and ports and in its folder of data. A code other
        than 0 is an answer like any other.

        Args:
            command: the program and its arguments, such as `["git", "status"]`; no shell looks at them.
            input: what it finds on its standard input.
            timeout: seconds, at most what the host allows; then it is killed, with all that it started.
            env: variables in addition to PATH, HOME, TMPDIR and LANG.
        """
        return run(command, input=input, timeout=timeout, env=env)

    def file(self, path: str) -> Answer[dict[str, Any]]:
        """A reference to a file in the plugin's folders, to put into a result: the host reads it from there when
        somebody asks for it. Needs `filesystem_read` or `filesystem_write`."""
        return hand_over(path)

    def in_progress(self) -> Answer[None]:
        """Still at it: the time limit of this delivery begins anew. For durable subscriptions (`events.durable`)."""
        return current().ask("in_progress", {})

    def log(self, level: str, message: str) -> Answer[None]:
        """Write a line to the host's log: `debug`, `info`, `warning`, `error` or `critical`. Need not be awaited."""
        current().tell(level, message)
        return Answer(None)

    def ask(self, method: str, **params: Any) -> Answer[Any]:
        """Ask for a host service by its name on the channel; the other methods are short for this."""
        return current().ask(method, params)

    @property
    def tenant(self) -> str:
        """Whose data this call is about."""
        return current().tenant

    @property
    def actor(self) -> str:
        """Who caused this call, as `kind:name`."""
        return current().actor

    @property
    def permissions(self) -> frozenset[str]:
        """The permissions that are granted now."""
        return current().permissions

    @property
    def replay(self) -> bool:
        """Whether this is the past once more, which somebody asked for (`eventcore events replay`)."""
        return current().replay

    @property
    def attempt(self) -> int:
        """Which attempt at this event it is, in a durable subscription; 1 everywhere else."""
        return current().attempt

    @property
    def config(self) -> Mapping[str, Any]:
        """The plugin's settings."""
        return current().config

    def __repr__(self) -> str:
        return "<eventcore.sdk.ctx>"


ctx = Context()
