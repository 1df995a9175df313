"""Opens an engine: makes its rooms in the order in which they need each other, and starts them."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio

from eventcore.app.content import fill
from eventcore.app.options import Options
from eventcore.app.outside import give_outside, make_tiers
from eventcore.app.rooms import (
    Base,
    make_archive,
    make_bus,
    make_calls,
    make_hooks,
    make_plugins,
    make_secrets,
    make_store,
    make_workflows,
)
from eventcore.app.serving import give_api, give_services
from eventcore.bus.history import History
from eventcore.engine import Engine
from eventcore.home.control import ControlServer
from eventcore.home.layout import Home
from eventcore.home.lock import OwnerLock
from eventcore.home.settings_file import read_settings
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.faults import NoFaults, plan_from_text
from eventcore.kernel.ids import UUID7
from eventcore.kernel.ports import Metrics, Store
from eventcore.kernel.settings import Settings
from eventcore.observe.metrics import PrometheusMetrics
from eventcore.operations import dispatcher
from eventcore.plugins.sandbox.supervisor import Supervisor
from eventcore.workflows.launch import Launcher
from eventcore.workflows.registry import Registry
from eventcore.workflows.runner import LEASE
from eventcore.workflows.scribe import Scribe

log = logging.getLogger("eventcore")

ENV_FAULT = "EVENTCORE_FAULT"


async def open_engine(options: Options, stack: AsyncExitStack) -> Engine:
    """Open everything, pushing what closes it onto `stack`, which the caller owns.

    Raises:
        HomeError, HomeInUse, InvalidSettings, StoreError: it cannot be opened; nothing is left behind once the stack is
            closed.
    """
    environ = dict(os.environ) if options.environ is None else options.environ
    if isinstance(options.faults, NoFaults) and environ.get(ENV_FAULT):
        options.faults = plan_from_text(environ[ENV_FAULT])
    home = Home.at(options.home, environ) if options.home is not None else None
    settings = options.settings or (read_settings(home.settings) if home else Settings.defaults())
    lock = _own(home, options, stack)
    metrics: Metrics = options.metrics or PrometheusMetrics()
    store = make_store(options, settings, home, metrics)
    await store.start(stack)
    alone = _owns_its_store(options, settings, lock)
    ids = UUID7(options.clock, options.randomness)
    secrets, tenant = make_secrets(options, settings, home), options.tenant or settings.engine.tenant
    base = Base(options, settings, home, store, metrics, secrets, ids, tenant, owner=ids.new())
    engine = await _assemble(base, stack, alone)
    await fill(engine, home, quiet=options.quiet)
    if options.quiet:
        return engine
    await engine.runner.recover(alone=alone)
    if home is not None:
        await _serve(engine, home, lock, stack)
    return engine


def _own(home: Home | None, options: Options, stack: AsyncExitStack) -> OwnerLock | None:
    if home is None:
        return None
    home.ensure_state()
    return stack.enter_context(OwnerLock(home.lock, options.clock))


def _owns_its_store(options: Options, settings: Settings, lock: OwnerLock | None) -> bool:
    """Whether the home's lock proves that no other engine uses the store: only if the store is the home's own file."""
    return lock is not None and options.store is None and settings.store.url is None


async def _assemble(base: Base, stack: AsyncExitStack, alone: bool) -> Engine:
    """The engine's parts, made in the order in which they need each other, and started."""
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    bus = make_bus(base)
    hooks, hook_files = make_hooks(base, bus)
    tiers = make_tiers(base, bus, stack)
    supervisor = Supervisor(clock=base.clock, launcher=tiers)
    await supervisor.start(stack)
    definitions, scribe = Registry(bus.types.check), Scribe(base.ids, bus.types.version)
    window = base.settings.engine.idempotency_window
    launcher = Launcher(definitions, scribe, base.ids, base.clock, owner=base.owner, lease=LEASE, key_window=window)
    bus.contributors.append(launcher)
    calls = make_calls(base, bus, supervisor, launcher)
    bus.responder = calls.respond
    workflows, runner, gate = make_workflows(base, bus, calls, hooks, definitions, scribe, launcher)
    plugins = make_plugins(base, bus, hooks, calls, supervisor, runner, definitions)
    give_services(base, bus, plugins, stack)
    give_outside(base, calls, plugins.files, tiers.sandbox, stack)
    plugins.containers = tiers.containers
    archive = make_archive(base)
    await bus.start(stack, tasks)
    # Gives up the claims before the store closes, so that the next engine need not wait for the leases to end.
    stack.push_async_callback(_release, base.store, base.owner)
    engine = Engine(
        home=str(base.home.root) if base.home else None,
        tenant=base.tenant,
        settings=base.settings,
        store=base.store,
        clock=base.clock,
        metrics=base.metrics,
        secrets=base.secrets,
        bus=bus,
        history=History(base.store, base.clock, bus.context, bus.types.newest),
        archive=archive,
        hooks=hooks,
        hook_files=hook_files,
        plugins=plugins,
        workflows=workflows,
        runner=runner,
        gate=gate,
        problems=[],
    )
    give_api(engine)
    if not base.options.quiet:
        await _drive(engine, stack, alone)
    return engine


async def _drive(engine: Engine, stack: AsyncExitStack, alone: bool) -> None:
    """Begin to act: runs, durable subscriptions, upkeep of the history, hook files that change."""
    # A task group of its own, the first to end: steps in flight are cut off while all that they use still works.
    # Were the workers closed first, the runner would take that for the steps' own failure and record it.
    driving = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(driving.cancel_scope.cancel)
    await engine.runner.start(stack, driving)
    await engine.gate.start(stack, driving)
    if engine.workflows.schedules is not None:
        await engine.workflows.schedules.start(stack, driving)
    if engine.plugins.plans is not None:
        engine.plugins.plans.start(driving)
    engine.plugins.memories.start(driving)
    engine.plugins.wellbeing.start(driving)
    engine.bus.durables.start(driving, alone=alone)
    driving.start_soon(engine.archive.run, name="eventcore history")
    if engine.settings.hooks.reload:
        driving.start_soon(engine.hook_files.watch, engine.clock, name="eventcore hook files")


async def _release(store: Store, owner: str) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(5):
        try:
            await store.release(owner)
        except EventCoreError as error:
            log.warning("claims could not be given up: %s", error)


# -- the control socket -----------------------------------------------------------------------------------------------


async def _serve(engine: Engine, home: Home, lock: OwnerLock | None, stack: AsyncExitStack) -> None:
    handler: Callable[..., Awaitable[Any]] = dispatcher(engine)
    server = ControlServer(home.socket, handler, lock=lock)
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    await tasks.start(server.run)
