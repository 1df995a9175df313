"""Makes each room of an engine from what was chosen for it; with `wiring`, the place that names concrete adapters."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from eventcore.app.options import Options, sqlite_path
from eventcore.bus.archive import Archive
from eventcore.bus.bus import Bus
from eventcore.home.layout import Home
from eventcore.home.secrets import ChainSecrets, EnvSecrets, FileSecrets
from eventcore.hooks.caller import Hooks
from eventcore.hooks.files import HookFiles
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.ports import Clock, HostApi, Ids, Metrics, Secrets, Store
from eventcore.kernel.settings import HookSettings, Settings
from eventcore.plugins.allowance import SandboxRules
from eventcore.plugins.calls import Calls
from eventcore.plugins.debugging import Debugging
from eventcore.plugins.face import Plugins
from eventcore.plugins.health import Health
from eventcore.plugins.hooking import Hooking
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.lifecycle import Lifecycle
from eventcore.plugins.logbook import Logbook
from eventcore.plugins.registry import PluginRegistry
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.sandbox.supervisor import Supervisor
from eventcore.plugins.services import kept_logs, standard
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore
from eventcore.workflows.face import Workflows
from eventcore.workflows.gate import Gate
from eventcore.workflows.launch import Launcher
from eventcore.workflows.listening import Listeners
from eventcore.workflows.otherwork import OtherWork
from eventcore.workflows.registry import Registry
from eventcore.workflows.runner import Runner
from eventcore.workflows.schedules import Scheduler
from eventcore.workflows.scribe import Scribe


@dataclass(slots=True)
class Base:
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
    #: What this engine's plugins write to the log.
    logbook: Logbook = field(init=False)

    def __post_init__(self) -> None:
        self.logbook = Logbook(self.home.state / "logs" if self.home else None)

    @property
    def clock(self) -> Clock:
        return self.options.clock


def make_store(options: Options, settings: Settings, home: Home | None, metrics: Metrics) -> Store:
    chosen = options.store if options.store is not None else settings.store.url
    if isinstance(chosen, Store):
        return chosen
    if chosen is None and home is not None:
        return SqliteStore(home.database, faults=options.faults, metrics=metrics)
    if chosen is None or chosen.startswith("memory:"):
        return MemoryStore(options.faults)
    return SqliteStore(sqlite_path(chosen, home.root if home else None), faults=options.faults, metrics=metrics)


def make_secrets(options: Options, settings: Settings, home: Home | None) -> Secrets:
    if options.secrets is not None:
        return options.secrets
    if home is not None and settings.secrets.file:
        return ChainSecrets(EnvSecrets(), FileSecrets(home.root / settings.secrets.file))
    return EnvSecrets()


def make_bus(base: Base) -> Bus:
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


def make_calls(base: Base, bus: Bus, supervisor: Supervisor, launcher: Launcher) -> Calls:
    clock, ids, metrics = base.clock, base.ids, base.metrics
    return Calls(
        registry=PluginRegistry(),
        supervisor=supervisor,
        services=_services(base, bus, launcher),
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


def _services(base: Base, bus: Bus, launcher: Launcher) -> HostServices:
    table = standard()
    table |= kept_logs.table(base.logbook, table["log"])
    return HostServices(
        bus=bus,
        store=base.store,
        clock=base.clock,
        ids=base.ids,
        metrics=base.metrics,
        starter=launcher,
        table=table,
    )


def make_workflows(
    base: Base, bus: Bus, calls: Calls, hooks: Hooks, definitions: Registry, scribe: Scribe, launcher: Launcher
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


def make_plugins(base: Base, bus: Bus, hooks: Hooks, calls: Calls, supervisor: Supervisor, runner: Runner) -> Plugins:
    supervisor.host_of = partial(_own_host, calls)
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
    hooking = Hooking(
        registry=calls.registry, store=base.store, bus=bus, clock=base.clock, ids=base.ids, tenant=base.tenant
    )
    lifecycle.connections.hooked, hooking.reconnect = hooking.of, lifecycle.connections.resubscribe
    return Plugins(
        registry=calls.registry,
        calls=calls,
        lifecycle=lifecycle,
        context=bus.context,
        changed=runner.intents_changed,
        debugging=Debugging(calls, supervisor),
        hooking=hooking,
        health=Health(calls, supervisor),
        logbook=base.logbook,
        on_demand=base.home is None,
    )


def make_archive(base: Base) -> Archive:
    kept = base.settings.history.model_dump() | {"keep_runs": base.settings.workflows.keep_runs}
    return Archive(store=base.store, clock=base.clock, metrics=base.metrics, **kept)


def _own_host(calls: Calls, spec: WorkerSpec) -> HostApi | None:
    """What a plugin may ask outside of any call, as in `initialize`: it may look and log, and change nothing."""
    record = calls.registry.records.get(spec.slug)
    context = CallContext(tenant=spec.tenant, actor="system", roles=frozenset())
    return calls.services.for_call(record, context, effects=False) if record is not None else None


def make_hooks(base: Base, bus: Bus) -> tuple[Hooks, HookFiles]:
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
    given = partial(hook_settings, chosen, base.secrets)
    return hooks, HookFiles(hooks, bus, scope, settings=given, home=str(home.root) if home else None)


def hook_settings(chosen: HookSettings, secrets: Secrets, slug_: str) -> dict[str, Any]:
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
