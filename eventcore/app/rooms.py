"""Makes each room of an engine from what was chosen for it; with `wiring`, the place that names concrete adapters."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from eventcore import __version__
from eventcore.app.carried import CarriedWorkflows
from eventcore.app.chat_commands import WorkflowCommands
from eventcore.app.options import Options, sqlite_path
from eventcore.app.other_engines import make_engines, make_tokens
from eventcore.bus.archive import Archive
from eventcore.bus.bus import Bus
from eventcore.home.layout import Home
from eventcore.home.secrets import ChainSecrets, EnvSecrets, FileSecrets
from eventcore.hooks.caller import Hooks
from eventcore.hooks.files import HookFiles
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import HomeError, InvalidInput
from eventcore.kernel.masking import MaskingSecrets
from eventcore.kernel.ports import Clock, HostApi, Ids, Metrics, Secrets, Store
from eventcore.kernel.settings import HookSettings, Settings
from eventcore.plugins.allowance import SandboxRules
from eventcore.plugins.calls import Calls
from eventcore.plugins.configuration import Configuration
from eventcore.plugins.configuring import Configuring
from eventcore.plugins.debugging import Debugging
from eventcore.plugins.dependencies import Requirements
from eventcore.plugins.face import Plugins
from eventcore.plugins.health import Health
from eventcore.plugins.hooking import Hooking
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.lifecycle import Lifecycle
from eventcore.plugins.logbook import Logbook
from eventcore.plugins.metering import Metered
from eventcore.plugins.packages.installing import Packages
from eventcore.plugins.packages.transit import Transit
from eventcore.plugins.quarantine import Quarantine
from eventcore.plugins.registry import PluginRegistry
from eventcore.plugins.sandbox.spec import WorkerLimits, WorkerSpec
from eventcore.plugins.sandbox.supervisor import Supervisor
from eventcore.plugins.services import logs, standard
from eventcore.plugins.wellbeing import Wellbeing
from eventcore.storage.memory import MemoryStore
from eventcore.storage.sqlite import SqliteStore
from eventcore.workflows.external.answers import Answers
from eventcore.workflows.external.resume import ResumeTokens
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
    secrets: MaskingSecrets
    ids: Ids
    tenant: str
    #: Names this engine where it claims runs and durable subscriptions.
    owner: str
    #: What this engine's plugins write to the log.
    logbook: Logbook = field(init=False)

    def __post_init__(self) -> None:
        self.logbook = Logbook(self.home.state / "logs" if self.home else None)

    registry: PluginRegistry = field(default_factory=PluginRegistry)

    @property
    def metered(self) -> Metrics:
        """The metrics for rooms that measure plugins."""
        return Metered(self.metrics, self.registry)

    @property
    def environ(self) -> Mapping[str, str]:
        return os.environ if self.options.environ is None else self.options.environ

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


def make_secrets(options: Options, settings: Settings, home: Home | None) -> MaskingSecrets:
    if options.secrets is not None:
        return MaskingSecrets(options.secrets)
    if home is not None and settings.secrets.file:
        return MaskingSecrets(ChainSecrets(EnvSecrets(), FileSecrets(home.root / settings.secrets.file)))
    return MaskingSecrets(EnvSecrets())


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
    clock, ids, metrics = base.clock, base.ids, base.metered
    return Calls(
        registry=base.registry,
        supervisor=supervisor,
        services=_services(base, bus, launcher),
        bus=bus,
        clock=clock,
        ids=ids,
        metrics=metrics,
        starter=launcher,
        timeout=base.settings.plugins.timeout,
        limits=WorkerLimits(load=base.settings.plugins.start_timeout, cpu=_cpu_seconds(base)),
        configuration=Configuration(base.settings.plugins.settings, base.secrets, base.environ),
        secrets=base.secrets,
        rules=_sandbox_rules(base, supervisor),
    )


def _sandbox_rules(base: Base, supervisor: Supervisor) -> SandboxRules:
    settings, data = base.settings, base.home.state / "data" if base.home else None
    chosen = settings.plugins
    return SandboxRules(
        settings.sandbox, data, supervisor.machine, chosen.scopes, settings.programs.path, chosen.trusted
    )


def _cpu_seconds(base: Base) -> float:
    """The CPU seconds of one call: what the environment says, else the settings.

    Raises:
        HomeError: the environment does not say a number.
    """
    for name in ("EVENTCORE_CPU_LIMIT", "KARI_CPU_LIMIT"):
        if text := base.environ.get(name):
            try:
                seconds = float(text)
            except ValueError:
                seconds = -1
            if not 0 <= seconds <= 86_400:
                raise HomeError(f"{name} is {text[:40]!r}; it is a number of CPU seconds from 0 to 86400")
            return seconds
    return base.settings.sandbox.cpu_seconds


def _services(base: Base, bus: Bus, launcher: Launcher) -> HostServices:
    return HostServices(
        bus=bus,
        store=base.store,
        clock=base.clock,
        ids=base.ids,
        metrics=base.metered,
        starter=launcher,
        table={**standard(), **logs.table(base.logbook)},
    )


def make_workflows(
    base: Base, bus: Bus, calls: Calls, hooks: Hooks, definitions: Registry, scribe: Scribe, launcher: Launcher
) -> tuple[Workflows, Runner, Gate]:
    chosen, listeners = base.settings.workflows, Listeners()
    tokens = make_tokens(chosen, base.home, base.clock)
    definitions.elsewhere = engines = make_engines(chosen, base.secrets, base.clock, base.options.randomness, tokens)
    others = OtherWork(definitions, launcher, hooks, base.secrets, engines)
    bus.contributors.append(listeners)
    hooks.registry.others = WorkflowCommands(definitions)
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
        build=bus.build,
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
    workflows.answers = _answers(base, tokens, definitions, bus, others, runner)
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


def make_plugins(
    base: Base, bus: Bus, hooks: Hooks, calls: Calls, supervisor: Supervisor, runner: Runner, definitions: Registry
) -> Plugins:
    said = base.settings
    requirements = Requirements(calls.registry, __version__, said.services.names, said.apis.names)
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
        metrics=base.metered,
        tenant=base.tenant,
        grants=base.settings.plugins.grants,
        requirements=requirements,
        stop_timeout=said.plugins.stop_timeout,
        changed=runner.intents_changed,
        companions=[CarriedWorkflows(definitions, base.settings.workflows.disabled)],
    )
    quarantine = Quarantine(
        calls.registry,
        bus,
        base.clock,
        base.tenant,
        stopped=lifecycle.stopped,
        noted=lifecycle.noted,
        watchers=lifecycle.watchers,
    )
    supervisor.quarantined = quarantine.enter
    supervisor.strikes_of, supervisor.struck = quarantine.strikes_of, quarantine.struck
    hooking = Hooking(
        registry=calls.registry, store=base.store, bus=bus, clock=base.clock, ids=base.ids, tenant=base.tenant
    )
    lifecycle.connections.hooked, hooking.reconnect = hooking.of, lifecycle.connections.resubscribe
    health = Health(calls, supervisor)
    return Plugins(
        registry=calls.registry,
        calls=calls,
        lifecycle=lifecycle,
        configuring=Configuring(calls=calls, commit=bus.commit, clock=base.clock, ids=base.ids, tenant=base.tenant),
        packages=_packages(base, bus, calls, lifecycle, requirements),
        context=bus.context,
        changed=runner.intents_changed,
        debugging=Debugging(calls, supervisor),
        hooking=hooking,
        health=health,
        wellbeing=_wellbeing(base, bus, lifecycle, health),
        logbook=base.logbook,
        on_demand=base.home is None,
    )


def _wellbeing(base: Base, bus: Bus, lifecycle: Lifecycle, health: Health) -> Wellbeing:
    return Wellbeing(
        registry=base.registry,
        lifecycle=lifecycle,
        health=health,
        bus=bus,
        clock=base.clock,
        metrics=base.metered,
        interval=base.settings.plugins.health_interval,
        tenant=base.tenant,
    )


def _packages(base: Base, bus: Bus, calls: Calls, lifecycle: Lifecycle, requirements: Requirements) -> Packages:
    home = base.home
    return Packages(
        transit=Transit(home.plugins, home.state / "data") if home is not None else None,
        registry=calls.registry,
        lifecycle=lifecycle,
        bus=bus,
        commit=bus.commit,
        clock=base.clock,
        ids=base.ids,
        faults=base.options.faults,
        tenant=base.tenant,
        requirements=requirements,
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
        metrics=base.metered,
        timeouts=chosen.timeouts,
        budgets=chosen.budgets,
        keep_denied=chosen.keep_denied_payloads,
    )
    for spec in base.options.hooks:
        hooks.declare(spec)
    scope = base.owner.replace("-", "")[-12:]
    given = partial(hook_settings, chosen, base.secrets)
    return hooks, HookFiles(hooks, bus, scope, settings=given, home=str(home.root) if home else None)


def _answers(
    base: Base, tokens: ResumeTokens, definitions: Registry, bus: Bus, others: OtherWork, runner: Runner
) -> Answers:
    def masked(value: Any, names: Collection[str]) -> Any:
        """What another engine answers, without the secrets of these names and those that were handed out."""
        return base.secrets.data(others.without(value, names))

    return Answers(
        tokens,
        registry=definitions,
        store=base.store,
        commit=bus.commit,
        clock=base.clock,
        masked=masked,
        expect=runner.expect,
    )


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
