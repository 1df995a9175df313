"""Makes what the host keeps and does for plugins: plans for later, databases, its API."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from eventcore.app.rooms import Base
from eventcore.bus.bus import Bus
from eventcore.engine import Engine
from eventcore.kernel.context import CallContext
from eventcore.operations.api import HostApi
from eventcore.plugins.calls import Calls
from eventcore.plugins.databases import Databases
from eventcore.plugins.plans import Plans
from eventcore.plugins.services import api, databases, scheduler


def give_services(base: Base, bus: Bus, calls: Calls, stack: AsyncExitStack) -> Plans:
    """Add the services that keep something to what plugin code may ask; return the plans, not yet started."""
    home, table = base.home, calls.services.table
    kept = Databases(base.settings.databases, home.root if home else None, home.state / "databases" if home else None)
    stack.callback(kept.close)
    table |= databases.table(kept)

    async def run(intent: str, params: dict[str, Any], context: CallContext, key: str) -> Any:
        return await calls.run(intent, params, context, key=key)

    plans = Plans(store=base.store, bus=bus, clock=base.clock, registry=calls.registry, limit=calls.time_limit, run=run)
    table |= scheduler.table(plans)
    return plans


def give_api(engine: Engine) -> None:
    """Let plugins use the host's API: the operations, by the paths of the REST API."""
    engine.plugins.calls.services.table |= api.table(HostApi(engine))
