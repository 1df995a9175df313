"""The settings of a home: what `eventcore.toml` may say, with every default.

The models are the one source: the template that `eventcore init` writes and the reference in the docs are made from
their fields. Reading the file is `eventcore.home.settings_file`. Settings are what an operator declares; what changes
while the engine runs (a plugin switched off, a grant withdrawn) is state in `.eventcore/` and never written back here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from eventcore.kernel.context import DEFAULT_TENANT
from eventcore.kernel.keeping import DatabaseSettings, MemorySettings
from eventcore.kernel.names import canonical_pattern, slug
from eventcore.kernel.outside import ContainerSettings, HttpSettings, PluginScope, ProgramSettings
from eventcore.kernel.section import Seconds, Section, Text, Words, as_value_error, unique
from eventcore.kernel.workflow_settings import ExternalEngineSettings as ExternalEngineSettings
from eventcore.kernel.workflow_settings import WorkflowSettings as WorkflowSettings

_STORE_SCHEMES = ("sqlite", "memory")


def _plugin_slug(name: str) -> str:
    return as_value_error(slug, name)


def _event_pattern(text: str) -> str:
    return as_value_error(canonical_pattern, text)


def _store_url(url: str) -> str:
    scheme, separator, _ = url.partition(":")
    if not separator or scheme not in _STORE_SCHEMES:
        # The URL itself is not repeated: it may hold a password.
        raise ValueError("should be memory: or begin with sqlite:///")
    return url


def _no_twins(table: Any) -> Any:
    """Refuse two spellings of one slug as keys: one of them would silently win."""
    if isinstance(table, dict):
        seen: dict[str, str] = {}
        for name in filter(lambda key: isinstance(key, str), table):
            other = seen.setdefault(_plugin_slug(name), name)
            if other != name:
                raise ValueError(f"{other!r} and {name!r} are the same plugin; keep one of them")
    return table


def _hook_name(name: str) -> str:
    if not re.fullmatch(r"on_[a-z0-9][a-z0-9_]{0,124}", name):
        raise ValueError("should be the name of a hook, such as on_message")
    return name


PluginSlug = Annotated[str, AfterValidator(_plugin_slug)]
Pattern = Annotated[str, AfterValidator(_event_pattern)]
HookName = Annotated[str, AfterValidator(_hook_name)]
PluginSlugs = Annotated[tuple[PluginSlug, ...], Field(strict=False), AfterValidator(unique)]


class EngineSettings(Section):
    """The engine as a whole."""

    tenant: str = Field(
        default=DEFAULT_TENANT,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$",
        description="Tenant of calls that name none. Text.",
        examples=["acme"],
    )
    drain_timeout: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="How long a stopping engine lets running work finish. Seconds.",
        examples=[10],
    )
    idempotency_window: float = Field(
        default=604_800.0,
        ge=60,
        le=31_536_000,
        description="How long idempotency keys are remembered (604800 is 7 days). Seconds.",
        examples=[86_400],
    )


class StoreSettings(Section):
    """Where everything is kept."""

    url: Annotated[Text, AfterValidator(_store_url)] | None = Field(
        default=None,
        description="URL of the store: sqlite:///path or memory:. Text; without it, SQLite in .eventcore/eventcore.db.",
        examples=["sqlite:///data/eventcore.db"],
    )


class PluginSettings(Section):
    """Which plugins run, and with what."""

    enabled: PluginSlugs = Field(
        default=(), description="Plugins to enable at first sight. List of slugs.", examples=[["hello-world"]]
    )
    search: Words = Field(
        default=(),
        description="Folders searched for plugins as well. List of paths, relative to the home.",
        examples=[["../shared-plugins"]],
    )
    timeout: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="Time limit of a plugin call whose manifest sets none. Seconds.",
        examples=[10],
    )
    start_timeout: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="How long importing a plugin and its `initialize` may take. Seconds.",
        examples=[120],
    )
    stop_timeout: float = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="How long the calls of a plugin that is stopped, and then its `cleanup`, may take. Seconds.",
        examples=[30],
    )
    health_interval: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="Time between two looks at plugins that have a `health_check`; 0 for never. Seconds.",
        examples=[15],
    )
    emit_rate: float = Field(
        default=1000.0,
        gt=0,
        le=1_000_000,
        description="Events that one plugin may emit in a second; twice as many at once.",
        examples=[100],
    )
    grants: Annotated[dict[PluginSlug, Words], BeforeValidator(_no_twins)] = Field(
        default_factory=dict,
        description="Permissions granted to a plugin at first sight. Lists of permission words by slug.",
        examples=[{"hello-world": ["network_access"]}],
    )
    scopes: Annotated[dict[PluginSlug, PluginScope], BeforeValidator(_no_twins)] = Field(
        default_factory=dict,
        description="How far a plugin's grants reach: hosts, ports, programs, folders. Tables by slug.",
        examples=[{"weather": {"hosts": ["api.example.com"]}}],
    )
    trusted: PluginSlugs = Field(
        default=(),
        description=(
            "Plugins that may run in the host's own process, without a sandbox, if their manifest asks for that; and "
            "whose ui.py is trusted, if their manifest says so. List of slugs."
        ),
        examples=[["hello-world"]],
    )
    settings: Annotated[dict[PluginSlug, dict[str, Any]], BeforeValidator(_no_twins)] = Field(
        default_factory=dict,
        description=(
            "Settings of a plugin, checked against its config_schema. Tables by slug; a value "
            '{secret = "NAME"} is looked up among the secrets.'
        ),
        examples=[{"hello-world": {"greeting": "Hi"}}],
    )


class SandboxSettings(Section):
    """What confines plugins, and what one worker may use where its manifest does not ask for less."""

    tier: Literal["process", "container"] = Field(
        default="process", description="Where plugins run whose manifest does not say. Text.", examples=["container"]
    )
    require: Literal["standard", "full"] = Field(
        default="standard",
        description=(
            "What a machine must offer: with `full` plugins are refused where namespaces are not to be had, with "
            "`standard` they run without them, and the level is `reduced`. Text."
        ),
        examples=["full"],
    )
    namespaces: bool = Field(
        default=True, description="Whether namespaces are used where they work. Boolean.", examples=[False]
    )
    control_groups: bool = Field(
        default=True,
        description="Whether control groups (version 2) are used where they are proven to hold. Boolean.",
        examples=[False],
    )
    isolation: Literal["worker", "call"] = Field(
        default="worker",
        description="`worker` keeps a warm process for a plugin's calls, `call` takes a fresh one for each. Text.",
        examples=["call"],
    )
    memory_mb: float = Field(
        default=1024.0, ge=16, le=1_048_576, description="Memory of one worker. Mebibytes.", examples=[256]
    )
    cpu_percent: float = Field(
        default=0.0,
        ge=0,
        le=6400,
        description="CPU time of one worker, in percent of one core; 0 for no limit.",
        examples=[50],
    )
    cpu_seconds: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="CPU time of one call of a plugin; 0 for no limit. EVENTCORE_CPU_LIMIT goes before it. Seconds.",
        examples=[10],
    )
    disk_mb: float = Field(
        default=64.0, ge=1, le=1_048_576, description="Size of a worker's private folder. Mebibytes.", examples=[16]
    )
    data_mb: float = Field(
        default=1024.0,
        ge=0,
        le=1_048_576,
        description="Size of each folder that a plugin was granted to change; 0 for no limit. Mebibytes.",
        examples=[100],
    )
    threads: int = Field(default=64, ge=4, le=4096, description="Threads of one worker.", examples=[16])


class HookSettings(Section):
    """Which hook files run."""

    auto: bool = Field(
        default=True,
        description="Whether every hook file of the home runs; if false, only those in `enabled`. Boolean.",
        examples=[False],
    )
    enabled: PluginSlugs = Field(
        default=(), description="Hook files to run besides: of the catalogue, or all if `auto` is false. List of slugs."
    )
    disabled: PluginSlugs = Field(
        default=(), description="Hook files that never run, whatever else says so. List of slugs."
    )
    policy: PluginSlugs = Field(
        default=(),
        description="Hook files of the policy tier: their gates come first, and one that fails denies. List of slugs.",
        examples=[["secret-leak-gate"]],
    )
    reload: bool = Field(
        default=False,
        description="Whether a hook file that changes is read again while the engine runs. Boolean.",
        examples=[True],
    )
    keep_denied_payloads: bool = Field(
        default=False,
        description="Whether the record of a denied call holds the payload itself, not only its hash. Boolean.",
        examples=[True],
    )
    timeouts: dict[HookName, Seconds] = Field(
        default_factory=dict,
        description="Time limit of one handler, in place of the hook's own. Seconds by hook.",
        examples=[{"on_message": 3.0}],
    )
    budgets: dict[HookName, Seconds] = Field(
        default_factory=dict,
        description="Time limit of all handlers of a call together, in place of the hook's own. Seconds by hook.",
        examples=[{"on_message": 10.0}],
    )
    settings: Annotated[dict[PluginSlug, dict[str, Any]], BeforeValidator(_no_twins)] = Field(
        default_factory=dict,
        description=(
            "Settings of a hook file, which it finds as `settings`. Tables by slug; a value "
            '{secret = "NAME"} is looked up among the secrets.'
        ),
        examples=[{"rate-limit-gate": {"per_minute": 20}}],
    )


class HistorySettings(Section):
    """How much of the past is kept. What a subscription, a dead letter or a live run needs is never removed."""

    keep: float = Field(
        default=7_776_000.0,
        ge=0,
        le=3_153_600_000,
        description="How long events are kept (7776000 is 90 days); 0 keeps them for ever. Seconds.",
        examples=[604_800],
    )
    max_size: int = Field(
        default=0,
        ge=0,
        description="The oldest events are removed while the store takes more than this; 0 for no limit. Bytes.",
        examples=[1_073_741_824],
    )
    keep_types: Annotated[tuple[Pattern, ...], Field(strict=False), AfterValidator(unique)] = Field(
        default=(),
        description="Events that are never removed by age or size. List of types and patterns.",
        examples=[["order_*"]],
    )


class SecretSettings(Section):
    """Where secrets are read from, besides the environment (`EVENTCORE_SECRET_<NAME>`)."""

    file: Text | None = Field(
        default=None,
        description="TOML or JSON file of secrets, with mode 0600. Path, relative to the home; without it, none.",
        examples=["secrets.toml"],
    )


class NamedTables(Section):
    """Tables of the operator's own names, each with whatever it needs."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]] = Field(init=False)

    @property
    def names(self) -> frozenset[str]:
        """The names there are."""
        return frozenset(self.model_extra or ())


class Settings(Section):
    """All of `eventcore.toml`. Every table and every key may be left out."""

    engine: EngineSettings = Field(default=EngineSettings(), description="The engine as a whole.")
    store: StoreSettings = Field(default=StoreSettings(), description="Where everything is kept.")
    plugins: PluginSettings = Field(default=PluginSettings(), description="Which plugins run, and with what.")
    sandbox: SandboxSettings = Field(default=SandboxSettings(), description="What confines plugins.")
    http: HttpSettings = Field(default=HttpSettings(), description="Requests that the host makes for plugins.")
    programs: ProgramSettings = Field(default=ProgramSettings(), description="Programs that plugins run.")
    containers: ContainerSettings = Field(default=ContainerSettings(), description="Plugins in containers.")
    hooks: HookSettings = Field(default=HookSettings(), description="Which hook files run.")
    workflows: WorkflowSettings = Field(default=WorkflowSettings(), description="Which workflows can be started.")
    databases: DatabaseSettings = Field(default=DatabaseSettings(), description="Databases that plugins reach.")
    memory: MemorySettings = Field(default=MemorySettings(), description="What is remembered, and how it is found.")
    history: HistorySettings = Field(default=HistorySettings(), description="How much of the past is kept.")
    services: NamedTables = Field(
        default=NamedTables(), description="Services that plugins may need (`system_services`), such as postgres."
    )
    apis: NamedTables = Field(
        default=NamedTables(), description="APIs that plugins may need (`dependencies.external_apis`), by name."
    )
    secrets: SecretSettings = Field(default=SecretSettings(), description="Where secrets are read from.")

    @classmethod
    def defaults(cls) -> Settings:
        """The settings of a home whose `eventcore.toml` is empty."""
        return cls()


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One key of `eventcore.toml`.

    Attributes:
        section: the table it stands in, such as `plugins`.
        key: its name in that table.
        default: the value it has when left out; None where there is none.
        description: what it means, with type and unit.
        example: another value it may have, or None where the default shows enough.
    """

    section: str
    key: str
    default: Any
    description: str
    example: Any = None


def reference() -> Iterator[SettingInfo]:
    """Every key there is, in the order of the file."""
    for section, field in Settings.model_fields.items():
        table = type(field.default)
        for key, info in table.model_fields.items():
            default = info.get_default(call_default_factory=True)
            example = info.examples[0] if info.examples else None
            yield SettingInfo(section, key, default, info.description or "", example)


def known_keys(path: Iterable[str | int]) -> tuple[str, ...]:
    """The keys that may stand in the table at `path`; nothing where any key may."""
    keys: Mapping[str, Any] = Settings.model_fields
    for part in path:
        field = keys.get(str(part))
        if field is None or not isinstance(field.default, Section):
            return ()
        keys = type(field.default).model_fields
    return tuple(keys)
