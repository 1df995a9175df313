"""The table of operations, and how a request finds its function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from eventcore.bus.current import serving
from eventcore.engine import Engine
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.names import did_you_mean
from eventcore.operations import (
    approvals,
    chat,
    configuring,
    deadletters,
    events,
    history,
    hooks,
    looks,
    memories,
    memory,
    packages,
    permissions,
    plugin_calls,
    plugin_hooks,
    plugin_looks,
    pluginfiles,
    plugins,
    replays,
    runs,
    schedules,
    status,
    subscriptions,
    workflows,
)

Send = Callable[[Any], Awaitable[None]]
Operation = Callable[..., Awaitable[Any]]

#: Name -> function. A function whose second parameter is `send` streams items before it returns.
OPERATIONS: dict[str, Operation] = {
    "status": status.status,
    "settle": status.settle,
    "chat.say": chat.say,
    "deadletters.list": deadletters.list_letters,
    "deadletters.show": deadletters.show,
    "deadletters.redrive": deadletters.redrive,
    "deadletters.drop": deadletters.drop,
    "subscriptions.list": subscriptions.list_places,
    "subscriptions.drop": subscriptions.drop,
    "backup": history.backup,
    "events.emit": events.emit,
    "events.emit_cloudevent": events.emit_cloudevent,
    "events.emit_line": events.emit_line,
    "events.emit_many": events.emit_many,
    "events.find": events.find,
    "events.request": events.request,
    "events.count": history.count,
    "events.explain": history.explain,
    "events.payload": events.payload,
    "events.prune": history.prune,
    "events.export": history.export,
    "events.import": history.import_events,
    "events.list": events.list_events,
    "events.show": events.show,
    "events.tail": events.tail,
    "events.replay": replays.replay,
    "events.summary": events.summary,
    "hooks.call": chat.call,
    "hooks.list": hooks.list_hooks,
    "hooks.explain": hooks.explain,
    "hooks.reload": hooks.reload,
    "intents.run": plugins.run,
    "memory.read": memories.read,
    "memory.write": memories.write,
    "memory.search": memory.search,
    "memory.list": memory.list_memories,
    "memory.purge": memory.purge,
    "plugins.list": plugins.list_plugins,
    "plugins.info": plugins.info,
    "plugins.enable": plugins.enable,
    "plugins.disable": plugins.disable,
    "plugins.permissions": permissions.permissions,
    "plugins.inspect": packages.inspect,
    "plugins.install": packages.install,
    "plugins.uninstall": packages.uninstall,
    "plugins.absent": packages.absent,
    "plugins.config": configuring.show,
    "plugins.configure": configuring.change,
    "plugins.call": plugin_calls.call,
    "plugins.intents": plugin_calls.intents,
    "plugins.rescan": plugin_calls.rescan,
    "plugins.debug": plugin_looks.debug,
    "plugins.hook": plugin_hooks.hook,
    "plugins.hooks": plugin_hooks.hooks,
    "plugins.unhook": plugin_hooks.unhook,
    "plugins.health": plugin_looks.health,
    "plugins.logs": plugin_looks.logs,
    "plugins.metrics": plugin_looks.metrics,
    "plugins.scrape": plugin_looks.scrape,
    "plugins.file": pluginfiles.read,
    "workflows.list": workflows.list_workflows,
    "workflows.show": workflows.show,
    "workflows.start": workflows.start,
    "workflows.schema": looks.schema,
    "workflows.graph": looks.workflow_graph,
    "runs.list": runs.list_runs,
    "runs.show": runs.show,
    "runs.wait": runs.wait,
    "runs.watch": looks.watch,
    "runs.graph": looks.run_graph,
    "runs.diff": looks.run_diff,
    "runs.prune": runs.prune,
    "runs.signal": runs.signal,
    "runs.answer": runs.answer,
    "runs.pause": runs.pause,
    "runs.resume": runs.resume,
    "runs.cancel": runs.cancel,
    "runs.terminate": runs.terminate,
    "runs.retry": runs.retry,
    "runs.fork": runs.fork,
    "approvals.list": approvals.list_approvals,
    "approvals.approve": approvals.approve,
    "approvals.deny": approvals.deny,
    "schedules.list": schedules.list_schedules,
    "schedules.cancel": schedules.cancel,
    "schedules.pause": schedules.pause,
    "schedules.run": schedules.run,
}


def streams(operation: Operation) -> bool:
    """Whether an operation sends items before it returns."""
    return "send" in inspect.signature(operation).parameters


async def perform(
    engine: Engine, name: str, params: dict[str, Any], send: Send, context: CallContext | None = None
) -> Any:
    """Carry out one operation on behalf of `context` (default: the operator).

    Raises:
        NotFound: there is no such operation.
        InvalidInput: a parameter is missing or not known.
    """
    operation = OPERATIONS.get(name)
    if operation is None:
        raise NotFound(f"there is no operation {name!r}{did_you_mean(name, OPERATIONS)}")
    extra = {"send": send} if streams(operation) else {}
    try:
        inspect.signature(operation).bind(engine, **params, **extra)
    except TypeError as error:
        raise InvalidInput(f"{name}: {error}") from None
    with serving(engine.bus, context or CallContext(tenant=engine.tenant)):
        return await operation(engine, **params, **extra)


def dispatcher(engine: Engine) -> Callable[[str, dict[str, Any], Send], Awaitable[Any]]:
    """The control socket's handler. Who may connect is the operator (the peer's uid was checked)."""

    async def handle(name: str, params: dict[str, Any], send: Send) -> Any:
        # Tenant, actor and roles that a message claims are ignored: the socket's file mode says who speaks.
        params.pop("context", None)
        return await perform(engine, name, params, send)

    return handle
