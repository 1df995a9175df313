"""Opens an engine: the one file that names concrete adapters."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from eventcore.app.options import Options, sqlite_path
from eventcore.bus.archive import Archive
from eventcore.bus.bus import Bus
from eventcore.bus.history import History
from eventcore.engine import Engine
from eventcore.home.catalogue import catalogue_root
from eventcore.home.control import ControlServer
from eventcore.home.discovery import find_files, find_plugins
from eventcore.home.layout import Home
from eventcore.home.lock import OwnerLock
from eventcore.home.secrets import ChainSecrets, EnvSecrets, FileSecrets
from eventcore.home.settings_file import read_settings
from eventcore.hooks.caller import Hooks
from eventcore.hooks.files import HookFiles
from eventcore.kernel.errors import EventCoreError, InvalidInput
from eventcore.kernel.faults import NoFaults, plan_from_text
from eventcore.kernel.ids import UUID7
from eventcore.kernel.names import slug
from eventcore.kernel.ports import Clock, Ids, Metrics, Secrets, Store
from eventcore.kernel.settings import HookSettings, Settings, WorkflowSettings
from eventcore.observe.metrics import PrometheusMetrics
from eventcore.operations import dispatcher
from eventcore.plugins.allowance import SandboxRules
from eventcore.plugins.calls import Calls
from eventcore.plugins.face import Plugins
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.lifecycle import Lifecycle
from eventcore.plugins.registry import PluginRegistry
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.supervisor import Supervisor
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore
from eventcore.workflows.face import Workflows
from eventcore.workflows.gate import Gate
from eventcore.workflows.launch import Launcher
from eventcore.workflows.listening import Listeners
from eventcore.workflows.otherwork import OtherWork
from eventcore.workflows.registry import Registry
from eventcore.workflows.runner import LEASE, Runner
from eventcore.workflows.schedules import Scheduler
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
    store = _store(options, settings, home, metrics)
    await store.start(stack)
    alone = _owns_its_store(options, settings, lock)
    ids = UUID7(options.clock, options.randomness)
    secrets, tenant = _secrets(options, settings, home), options.tenant or settings.engine.tenant
    base = _Base(options, settings, home, store, metrics, secrets, ids, tenant, owner=ids.new())
    engine = await _assemble(base, stack, alone)
    await _fill(engine, home)
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


def _store(options: Options, settings: Settings, home: Home | None, metrics: Metrics) -> Store:
    chosen = options.store if options.store is not None else settings.store.url
    if isinstance(chosen, Store):
        return chosen
    if chosen is None and home is not None:
        return SqliteStore(home.database, faults=options.faults, metrics=metrics)
    if chosen is None or chosen.startswith("memory:"):
        return MemoryStore(options.faults)
    return SqliteStore(sqlite_path(chosen, home.root if home else None), faults=options.faults, metrics=metrics)


def _owns_its_store(options: Options, settings: Settings, lock: OwnerLock | None) -> bool:
    """Whether the home's lock proves that no other engine uses the store: only if the store is the home's own file."""
    return lock is not None and options.store is None and settings.store.url is None


def _secrets(options: Options, settings: Settings, home: Home | None) -> Secrets:
    if options.secrets is not None:
        return options.secrets
    if home is not None and settings.secrets.file:
        return ChainSecrets(EnvSecrets(), FileSecrets(home.root / settings.secrets.file))
    return EnvSecrets()


@dataclass(slots=True)
class _Base:
    """What every room is made with."""

    options: Options
    settings: Settings
    home: Home | None
    store: Store
    metrics: Metrics
    secrets: Secrets
    ids: Ids
    tenant: str
    #: Names this engine where it claims runs and durable subscriptions.
    owner: str

    @property
    def clock(self) -> Clock:
        return self.options.clock


async def _assemble(base: _Base, stack: AsyncExitStack, alone: bool) -> Engine:
    """The engine's parts, made in the order in which they need each other, and started."""
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    bus = _bus(base)
    hooks, hook_files = _hooks(base, bus)
    sandbox = Sandbox(namespaces=base.settings.sandbox.namespaces)
    stack.callback(sandbox.close)
    supervisor = Supervisor(clock=base.clock, launcher=sandbox)
    await supervisor.start(stack)
    definitions, scribe = Registry(), Scribe(base.ids)
    window = base.settings.engine.idempotency_window
    launcher = Launcher(definitions, scribe, base.ids, base.clock, owner=base.owner, lease=LEASE, key_window=window)
    bus.contributors.append(launcher)
    calls = _calls(base, bus, supervisor, launcher)
    bus.responder = calls.respond
    workflows, runner, gate = _workflows(base, bus, calls, hooks, definitions, scribe, launcher)
    plugins = _plugins(base, bus, hooks, calls, supervisor, runner)
    archive = Archive(store=base.store, clock=base.clock, metrics=base.metrics, **base.settings.history.model_dump())
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
    engine.bus.durables.start(driving, alone=alone)
    driving.start_soon(engine.archive.run, name="eventcore history")
    if engine.settings.hooks.reload:
        driving.start_soon(engine.hook_files.watch, engine.clock, name="eventcore hook files")


def _bus(base: _Base) -> Bus:
    return Bus(
        store=base.store,
        clock=base.clock,
        ids=base.ids,
        metrics=base.metrics,
        faults=base.options.faults,
        tenant=base.tenant,
        emit_rate=base.settings.plugins.emit_rate,
        key_window=base.settings.engine.idempotency_window,
        owner=base.owner,
    )


def _calls(base: _Base, bus: Bus, supervisor: Supervisor, launcher: Launcher) -> Calls:
    clock, ids, metrics = base.clock, base.ids, base.metrics
    return Calls(
        registry=PluginRegistry(),
        supervisor=supervisor,
        services=HostServices(bus=bus, store=base.store, clock=clock, ids=ids, metrics=metrics, starter=launcher),
        bus=bus,
        clock=clock,
        ids=ids,
        metrics=metrics,
        starter=launcher,
        timeout=base.settings.plugins.timeout,
        settings=base.settings.plugins.settings,
        secrets=base.secrets,
        rules=SandboxRules(base.settings.sandbox, base.home.state / "data" if base.home else None, supervisor.machine),
    )


def _workflows(
    base: _Base, bus: Bus, calls: Calls, hooks: Hooks, definitions: Registry, scribe: Scribe, launcher: Launcher
) -> tuple[Workflows, Runner, Gate]:
    listeners, others = Listeners(), OtherWork(definitions, launcher, hooks, base.secrets)
    bus.contributors.append(listeners)
    gate = Gate(base.store, bus.commit, base.clock, definitions, launcher)
    workflows = Workflows(
        registry=definitions,
        launcher=launcher,
        store=base.store,
        commit=bus.commit,
        clock=base.clock,
        invoker=calls,
        context=bus.context,
        reach=base.options.faults.reach,
        staging=bus.staging,
        announce=bus.announce,
    )
    runner = Runner(
        owner=base.owner,
        store=base.store,
        commit=bus.commit,
        clock=base.clock,
        randomness=base.options.randomness,
        metrics=base.metrics,
        faults=base.options.faults,
        invoker=calls,
        registry=definitions,
        scribe=scribe,
        launcher=launcher,
        others=others.table(),
        listeners=listeners,
        queued=gate.add,
        on_end=gate.ended(workflows.ended),
    )
    gate.cancel = runner.ask
    workflows.runner = workflows.verbs.runner = runner
    workflows.schedules = Scheduler(
        store=base.store,
        commit=bus.commit,
        clock=base.clock,
        ids=base.ids,
        registry=definitions,
        launcher=launcher,
        tenant=base.tenant,
        ask=runner.ask,
    )
    return workflows, runner, gate


def _plugins(base: _Base, bus: Bus, hooks: Hooks, calls: Calls, supervisor: Supervisor, runner: Runner) -> Plugins:
    lifecycle = Lifecycle(
        registry=calls.registry,
        supervisor=supervisor,
        calls=calls,
        services=calls.services,
        hooks=hooks,
        bus=bus,
        store=base.store,
        clock=base.clock,
        ids=base.ids,
        metrics=base.metrics,
        tenant=base.tenant,
        grants=base.settings.plugins.grants,
        changed=runner.intents_changed,
    )
    return Plugins(
        registry=calls.registry,
        calls=calls,
        lifecycle=lifecycle,
        context=bus.context,
        changed=runner.intents_changed,
        on_demand=base.home is None,
    )


def _hooks(base: _Base, bus: Bus) -> tuple[Hooks, HookFiles]:
    chosen, home = base.settings.hooks, base.home
    hooks = Hooks(
        bus=bus,
        clock=base.clock,
        metrics=base.metrics,
        timeouts=chosen.timeouts,
        budgets=chosen.budgets,
        keep_denied=chosen.keep_denied_payloads,
    )
    for spec in base.options.hooks:
        hooks.declare(spec)
    scope = base.owner.replace("-", "")[-12:]
    given = partial(_hook_settings, chosen, base.secrets)
    return hooks, HookFiles(hooks, bus, scope, settings=given, home=str(home.root) if home else None)


async def _release(store: Store, owner: str) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(5):
        try:
            await store.release(owner)
        except EventCoreError as error:
            log.warning("claims could not be given up: %s", error)


# -- content ----------------------------------------------------------------------------------------------------------


async def _fill(engine: Engine, home: Home | None) -> None:
    """Read what the home and the catalogue hold, and bring it into the state it was left in."""
    catalogue = catalogue_root()
    settings = engine.settings
    _discover_plugins(engine, home, catalogue)
    _define_workflows(engine, home, catalogue, settings.workflows)
    await engine.plugins.lifecycle.restore(settings.plugins.enabled)
    _load_hooks(engine, home, catalogue, settings.hooks)


def _discover_plugins(engine: Engine, home: Home | None, catalogue: Path) -> None:
    roots: list[tuple[str, Path]] = []
    if home is not None:
        roots.append(("home", home.plugins))
        roots += [(folder, home.root / folder) for folder in engine.settings.plugins.search]
    roots.append(("catalogue", catalogue / "plugins"))
    for origin, root in roots:
        for found in find_plugins([root]):
            engine.plugins.registry.discover(found.folder, found.file, found.category, origin, found.problem)


def _define_workflows(engine: Engine, home: Home | None, catalogue: Path, chosen: WorkflowSettings) -> None:
    for slug_, path, _ in _items(home.workflows if home else None, catalogue / "workflows", (".yaml", ".yml"), chosen):
        try:
            engine.workflows.define(path)
        except EventCoreError as error:
            problem = "; ".join(str(error).splitlines())
            engine.problems.append(problem)
            log.error("workflow %s is not usable: %s", slug_, problem)


def _load_hooks(engine: Engine, home: Home | None, catalogue: Path, chosen: HookSettings) -> None:
    for slug_, path, _ in _items(home.hooks if home else None, catalogue / "hooks", (".py",), chosen):
        loaded = engine.hook_files.load(slug_, path, policy=slug_ in chosen.policy)
        if loaded.error:
            engine.problems.append(f"{path}: {loaded.error}")
            log.error("hook file %s is not usable: %s", path, loaded.error)
        for warning in loaded.warnings:
            log.warning("%s", warning)


def _hook_settings(chosen: HookSettings, secrets: Secrets, slug_: str) -> dict[str, Any]:
    """What `[hooks.settings.<slug>]` says, with secrets looked up."""
    result = dict(chosen.settings.get(slug_, {}))
    for key, value in result.items():
        if isinstance(value, dict) and value.keys() == {"secret"}:
            result[key] = secrets.get(str(value["secret"]))
            if result[key] is None:
                raise InvalidInput(
                    f"hooks.settings.{slug_}.{key} names the secret {value['secret']!r}, which is not set",
                    hint="set EVENTCORE_SECRET_<NAME>, or put it into the file of [secrets]",
                )
    return result


def _items(
    own: Path | None, shipped: Path, suffixes: tuple[str, ...], chosen: HookSettings | WorkflowSettings
) -> list[tuple[str, Path, str]]:
    """(slug, file, origin) of what is on: the home's own (all, or the enabled ones) before the catalogue's enabled."""
    result: dict[str, tuple[str, Path, str]] = {}
    for origin, root in (("home", own), ("catalogue", shipped)):
        for path in find_files(root, suffixes) if root is not None and root.is_dir() else ():
            name = path.parent.name if path.name == "__init__.py" else path.stem
            names = {name, slug(name)}
            wanted = bool(names & {*chosen.enabled}) or (origin == "home" and chosen.auto)
            if wanted and not names & {*chosen.disabled} and name not in result:
                result[name] = (slug(name), path, origin)
    return list(result.values())


# -- the control socket -----------------------------------------------------------------------------------------------


async def _serve(engine: Engine, home: Home, lock: OwnerLock | None, stack: AsyncExitStack) -> None:
    handler: Callable[..., Awaitable[Any]] = dispatcher(engine)
    server = ControlServer(home.socket, handler, lock=lock)
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    await tasks.start(server.run)
