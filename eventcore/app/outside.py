"""Makes what plugins reach the world through: the HTTP broker, programs, files; and where they run."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING

from eventcore.app.rooms import Base
from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.plugins.calls import Calls
from eventcore.plugins.host_api import CallApi
from eventcore.plugins.outside.files import Files
from eventcore.plugins.outside.programs import Programs
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.container.launcher import Containers
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.sandbox.tiers import Tiers
from eventcore.plugins.services import outside

if TYPE_CHECKING:
    from eventcore.plugins.outside.broker import Broker


def make_tiers(base: Base, bus: Bus, stack: AsyncExitStack) -> Tiers:
    """Where workers run; `stack` ends what is left of them."""
    settings = base.settings.containers
    chosen = base.settings.sandbox
    sandbox, containers = Sandbox(namespaces=chosen.namespaces, groups=chosen.control_groups), Containers(settings)
    stack.callback(sandbox.close)
    stack.push_async_callback(containers.close)

    async def notice(slug: str, reason: str) -> None:
        data = {"plugin": slug, "tier": "process", "reason": reason}
        system = CallContext(tenant=base.tenant, actor="system")
        await bus.announce("plugin_fallback", data, system, source="/plugins", subject=slug)

    return Tiers(sandbox, containers, fallback=settings.fallback, notice=notice)


def give_outside(base: Base, calls: Calls, files: Files, sandbox: Sandbox, stack: AsyncExitStack) -> None:
    """Add the services of the world outside to what plugin code may ask; `stack` closes their connections."""
    settings, scopes = base.settings, base.settings.plugins.scopes

    @cache
    def broker() -> Broker:
        # Imported here for start-up: an HTTP client is half of what opening an engine costs, and few plugins need it.
        from eventcore.plugins.outside.broker import Broker

        made = Broker(settings.http, scopes, base.secrets, base.clock, base.metrics, save=files.save)
        stack.push_async_callback(made.close)
        return made

    def spec(call: CallApi) -> WorkerSpec:
        return calls.spec(call.record, call.context.tenant)

    programs = Programs(settings.programs, scopes, spec, sandbox, base.metrics)
    calls.services.table |= outside.table(broker, programs, files)
