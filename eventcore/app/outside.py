"""Makes what plugins reach the world through: the HTTP broker, programs, files."""

from __future__ import annotations

from contextlib import AsyncExitStack

from eventcore.app.rooms import Base
from eventcore.plugins.calls import Calls
from eventcore.plugins.host_api import CallApi
from eventcore.plugins.outside.broker import Broker
from eventcore.plugins.outside.files import Files
from eventcore.plugins.outside.programs import Programs
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.services import outside


def give_outside(base: Base, calls: Calls, files: Files, sandbox: Sandbox, stack: AsyncExitStack) -> None:
    """Add the services of the world outside to what plugin code may ask; `stack` closes their connections."""
    settings, scopes = base.settings, base.settings.plugins.scopes
    broker = Broker(settings.http, scopes, base.secrets, base.clock, base.metrics, save=files.save)
    stack.push_async_callback(broker.close)

    def spec(call: CallApi) -> WorkerSpec:
        return calls.spec(call.record, call.context.tenant)

    programs = Programs(settings.programs, scopes, spec, sandbox, base.metrics)
    calls.services.table |= outside.table(broker, programs, files)
