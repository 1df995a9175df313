"""The manifest as the rest of EventCore sees it, whatever dialect it was written in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, field_serializer

from eventcore.kernel.errors import Problem
from eventcore.plugins.permissions import PluginPermission

M = TypeVar("M", bound=BaseModel)

_set = object.__setattr__  # models are frozen

Dialect = Literal["J0", "J2", "Y", "T"]
PluginType = Literal[
    "core", "automation", "ai", "integration", "example", "custom", "extension", "ai-model", "workflow"
]  # fmt: skip
Stage = Literal["gate", "filter", "reply", "observe"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PluginDependency(_Part):
    """Another plugin that this one needs.

    Attributes:
        name: its slug.
        version: a version or a range as written (`1.0.0`, `>=2,<3`); empty means any.
        optional: whether the plugin runs without it.
    """

    name: str
    version: str = ""
    optional: bool = False


class Command(_Part):
    """A chat command; `name` begins with a slash."""

    name: str
    description: str = ""
    usage: str = ""


class Capability(_Part):
    """Something that the plugin can do, reached as `slug.name`; the types are words that workflows compare."""

    name: str
    description: str = ""
    input_type: str = ""
    output_type: str = ""


class DeclaredPermission(_Part):
    """One word of the manifest and what it stands for.

    Attributes:
        word: as written; for the object form with its key, `system_access: files`.
        permissions: what it maps to.
        optional: whether the operator may deny it and run the plugin all the same.
    """

    word: str
    permissions: tuple[PluginPermission, ...]
    optional: bool = False


class Limits(_Part):
    """What one worker may use; None: the settings decide.

    Attributes:
        memory_mb: mebibytes.
        cpu_percent: ceiling, 100 is one core.
        cpu_shares: weight against other plugins, 1024 is even.
        timeout_seconds: time for one call.
    """

    memory_mb: float | None = None
    cpu_percent: float | None = None
    cpu_shares: float | None = None
    timeout_seconds: float | None = None


class SandboxWish(_Part):
    """What the manifest says about its sandbox. It may tighten what the operator set, never loosen it.

    Attributes:
        required: the plugin must not run without a sandbox, whatever the operator trusts.
        unsandboxed: the plugin asks for tier `inline`; only the operator's trust fulfils that.
        tier: `process` or `container`, or None for the operator's default.
        image, docker_image: the container's image, from the `sandbox` object and from the key `docker_image`.
        network, volumes, security_opt, cap_drop, user, working_dir: as written.
        env_whitelist: the only environment variables to pass on, or None.
    """

    required: bool = False
    unsandboxed: bool = False
    tier: Literal["process", "container"] | None = None
    image: str = ""
    docker_image: str = ""
    network: str = ""
    volumes: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    env_whitelist: tuple[str, ...] | None = None


class Monitoring(_Part):
    """What is measured and logged of the plugin; failures are recorded all the same."""

    enable_metrics: bool = True
    enable_logging: bool = True
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"


class PluginManifest(BaseModel):
    """A plugin's description of itself, checked and normalised.

    Attributes:
        dialect: `J0`, `J2` (`plugin_manifest.json` without and with a name), `Y` (`plugin.yaml`), `T` (`plugin.toml`).
        path: the manifest's file, as it was named to `read_manifest`.
        name: as its author spells it; `slug` is what commands, events and metrics use.
        license_assumed: the licence was not stated, and the dialect's default stands in.
        intents: what the router answers to; the slug where the manifest names none.
        module, main: as written. `entry_file` is what they come to, relative to the plugin's folder.
        class_name: the plugin's class, or None for a plugin of functions.
        entry_point: the function that answers intents.
        required_roles: any one of them is enough; empty means any authenticated caller.
        workflow_slug: what a successful call starts, if `enable_external_workflow` is true as well.
        python_packages: requirement lines; a `requirements.txt` beside the manifest is the installer's to read.
        system_services, external_services: names that the settings must explain (`[services]`, `[apis]`).
        permissions, optional_permissions: what is needed, and what may be denied; `declared_permissions` has the words.
        network_hosts, external_apis, databases, file_access: what narrows a grant; empty means not narrowed.
        network_default: `resources.network_access`: the state before a grant.
        hooks: the chat hooks to call, or None for those found in the code.
        stages: hook name to stage, for handlers without a decorator.
        emits, removes_subscriptions: `events.emits`, `events.removed`.
        durable_events: `events.durable`: whose `on_<event>` functions miss nothing and are retried.
        fallback: an intent that answers when this plugin cannot.
        config_schema: JSON Schema (a flat `key: {type, required, default}` map is turned into one), or None for any.
        input_schema, output_schema: JSON Schemas of parameters and result, or None.
        compatibility: what the manifest says of versions and platforms, in one table.
        marketplace: the index's block, as written.
        extra: keys that nothing reads, as written; those of inner tables under their dotted path.
        warnings: what `validate` should mention.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    dialect: Dialect
    path: str
    name: str
    slug: str
    version: str = "0.0.0"
    description: str = ""
    author: str = ""
    email: str = ""
    license: str = ""
    license_assumed: bool = False
    repository: str = ""
    homepage: str = ""
    support_url: str = ""
    documentation_url: str = ""
    api_version: Literal["1.0", "1.1"]
    plugin_type: PluginType = "custom"
    category: str = ""
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    intents: tuple[str, ...]
    module: str = ""
    main: str = ""
    entry_file: str
    class_name: str | None = None
    entry_point: str = "run"
    required_roles: tuple[str, ...] = ()
    trusted_ui: bool = False
    enable_external_workflow: bool = False
    workflow_slug: str | None = None
    sandbox: SandboxWish = SandboxWish()
    limits: Limits = Limits()
    monitoring: Monitoring = Monitoring()
    python_packages: tuple[str, ...] = ()
    plugin_dependencies: tuple[PluginDependency, ...] = ()
    system_services: tuple[str, ...] = ()
    external_services: tuple[str, ...] = ()
    permissions: tuple[PluginPermission, ...] = ()
    optional_permissions: tuple[PluginPermission, ...] = ()
    declared_permissions: tuple[DeclaredPermission, ...] = ()
    network_hosts: tuple[str, ...] = ()
    external_apis: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    file_access: tuple[str, ...] = ()
    network_default: bool = False
    hooks: tuple[str, ...] | None = None
    commands: tuple[Command, ...] = ()
    stages: dict[str, Stage] = Field(default_factory=dict)
    emits: tuple[str, ...] = ()
    removes_subscriptions: tuple[str, ...] = ()
    durable_events: tuple[str, ...] = ()
    fallback: str | None = None
    capabilities: tuple[Capability, ...] = ()
    config_schema: dict[str, Any] | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    compatibility: dict[str, Any] = Field(default_factory=dict)
    marketplace: dict[str, Any] = Field(default_factory=dict)
    extra: dict[str, Any] = Field(default_factory=dict)
    warnings: SkipValidation[tuple[Problem, ...]] = ()

    @property
    def folder(self) -> Path:
        """The plugin's folder."""
        return Path(self.path).parent

    @property
    def answers(self) -> tuple[str, ...]:
        """Everything it can be called by: its intents, and `slug.name` for each capability."""
        return (*self.intents, *(f"{self.slug}.{one.name}" for one in self.capabilities))

    @property
    def license_text(self) -> str:
        """The licence as people should see it: `MIT (default)` where it was assumed."""
        return f"{self.license} (default)" if self.license_assumed else self.license

    @field_serializer("warnings")
    def _warnings_as_dicts(self, warnings: tuple[Problem, ...]) -> list[dict[str, Any]]:
        return [problem.as_dict() for problem in warnings]


_TABLES = tuple(name for name, field in PluginManifest.model_fields.items() if field.default_factory is dict)
_BLANK = PluginManifest(dialect="J2", path="", name="", slug="", api_version="1.0", intents=(), entry_file="")

#: A part's field, and the part with every field in its order.
_PARTS: dict[str, _Part] = {"limits": Limits(), "sandbox": SandboxWish(), "monitoring": Monitoring()}
_LISTS: dict[str, _Part] = {
    "plugin_dependencies": PluginDependency(name=""),
    "declared_permissions": DeclaredPermission(word="", permissions=()),
    "commands": Command(name=""),
    "capabilities": Capability(name=""),
}


def of_checked(fields: dict[str, Any]) -> PluginManifest:
    """The manifest of fields that the checks of the manifest's keys have let pass; parts are given as their fields.

    Nothing is validated here: to validate seventy fields once more takes longer than to read and parse the file.
    """
    for name in fields.keys() & _PARTS.keys():
        fields[name] = _like(_PARTS[name], fields[name])
    for name in fields.keys() & _LISTS.keys():
        fields[name] = tuple(_like(_LISTS[name], item) for item in fields[name])
    for name in _TABLES:  # a table of its own for each manifest, not the blank one's
        fields.setdefault(name, {})
    return _like(_BLANK, fields)


def _like(blank: M, fields: dict[str, Any]) -> M:
    """`blank.model_copy(update=fields)`, in a quarter of its time."""
    made = type(blank).__new__(type(blank))
    _set(made, "__dict__", {**blank.__dict__, **fields})
    _set(made, "__pydantic_fields_set__", set(fields))
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made
