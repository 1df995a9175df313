"""Makes what the host keeps and does for plugins: memory, plans for later, databases, its API."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from eventcore.app.rooms import Base
from eventcore.bus.bus import Bus
from eventcore.engine import Engine
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput
from eventcore.operations.api import ApiPaths
from eventcore.plugins.databases import Databases
from eventcore.plugins.face import Plugins
from eventcore.plugins.forgetting import Forgetting
from eventcore.plugins.memory.embeddings import Embeddings
from eventcore.plugins.memory.memories import Memories
from eventcore.plugins.plans import Plans
from eventcore.plugins.services import api, databases, memory, scheduler
from eventcore.plugins.widgets import Widgets, advanced_mode


def give_services(base: Base, bus: Bus, plugins: Plugins, stack: AsyncExitStack) -> None:
    """Add the services that keep something to what plugin code may ask."""
    home, calls = base.home, plugins.calls
    table = calls.services.table
    kept = Databases(base.settings.databases, home.root if home else None, home.state / "databases" if home else None)
    stack.callback(kept.close)
    table |= databases.table(kept)
    memories = calls.memories = _memories(base, bus, stack)
    table |= memory.table(memories)

    async def run(intent: str, params: dict[str, Any], context: CallContext, key: str) -> Any:
        return await calls.run(intent, params, context, key=key)

    plans = Plans(store=base.store, bus=bus, clock=base.clock, registry=calls.registry, limit=calls.time_limit, run=run)
    table |= scheduler.table(plans)
    plugins.plans = plans
    plugins.forgetting = Forgetting(memories, plans, kept, plugins.hooking)
    plugins.packages.forget = plugins.forgetting.forget
    plugins.lifecycle.watchers.append(plans.plugins_changed)
    bus.version_of = plugins.registry.version_of
    plugins.widgets = Widgets(base.settings.plugins.trusted, advanced_mode(base.environ))


def _memories(base: Base, bus: Bus, stack: AsyncExitStack) -> Memories:
    settings, embeddings = base.settings.memory, None
    if settings.embeddings is not None:
        key = _secret(base, settings.api_key)
        embeddings = Embeddings(settings.embeddings, settings.model, key, settings.timeout, base.metrics)
        stack.push_async_callback(embeddings.close)
    return Memories(
        store=base.store,
        bus=bus,
        clock=base.clock,
        ids=base.ids,
        metrics=base.metrics,
        settings=settings,
        embeddings=embeddings,
    )


def _secret(base: Base, name: str | None) -> str | None:
    if name is not None and base.secrets.get(name) is None:
        raise InvalidInput(
            f"memory.api_key names the secret {name!r}, which is not set",
            hint="set EVENTCORE_SECRET_<NAME>, or put it into the file of [secrets]",
        )
    return None if name is None else base.secrets.get(name)


def give_api(engine: Engine) -> None:
    """Let plugins use the host's API: the operations, by the paths of the REST API."""
    engine.plugins.calls.services.table |= api.table(ApiPaths(engine))
