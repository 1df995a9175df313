"""Every key that a manifest may hold. All dialects share it; only what a list of `dependencies` means differs."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.documents import Path
from eventcore.kernel.names import workflow_slug
from eventcore.plugins.manifest import blocks
from eventcore.plugins.manifest.reader import (
    Check,
    Reader,
    Vocabulary,
    block,
    flag,
    ignore,
    limit,
    matching,
    named,
    one_of,
    prose,
    schema,
    text,
    texts,
)

PLUGIN_TYPES = ("core", "automation", "ai", "integration", "example", "custom", "extension", "ai-model", "workflow")

#: Semantic Versioning 2.0.0, the expression that its specification suggests, without the named groups.
_SEMVER = (
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-((0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?"
)
_LINK = r"https?://[^\s<>\"']+"
_CATEGORY = r"[a-z0-9][a-z0-9_-]{0,63}"
_NAME = r"[^\W\d]\w{0,127}"
_FILE = r"(?!.*\.\.)[\w.-]+(/[\w.-]+)*\.py"


def _sandbox(reader: Reader, path: Path, value: Any) -> None:
    """A boolean (seed 000's flavour) or an object (seed 003's)."""
    if isinstance(value, bool):
        reader.sandbox["unsandboxed"] = not value
    elif isinstance(value, dict):
        reader.walk(value, _SANDBOX, path)
    else:
        reader.error(path, "must be true, false or a table of sandbox settings")


def _into_sandbox(check: Check) -> Check:
    """A check whose result belongs to the sandbox, not to the manifest as a whole."""

    def run(reader: Reader, path: Path, value: Any) -> None:
        kept, reader.fields = reader.fields, reader.sandbox
        check(reader, path, value)
        reader.sandbox, reader.fields = reader.fields, kept

    return run


def _into_monitoring(check: Check) -> Check:
    def run(reader: Reader, path: Path, value: Any) -> None:
        kept, reader.fields = reader.fields, reader.monitoring
        check(reader, path, value)
        reader.monitoring, reader.fields = reader.fields, kept

    return run


def _tier(reader: Reader, path: Path, value: Any) -> None:
    one_of("tier", "docker", "container", "process")(reader, path, value)
    if reader.fields.get("tier") == "docker":
        reader.fields["tier"] = "container"


def _cap_drop(reader: Reader, path: Path, value: Any) -> None:
    texts("cap_drop")(reader, path, value)
    if reader.fields.get("cap_drop") == ():
        reader.warn(path, "an empty list loosens nothing; all capabilities are dropped all the same")


def _network(reader: Reader, path: Path, value: Any) -> None:
    text("network")(reader, path, value)
    if reader.fields.get("network") not in (None, "restricted", "none"):
        reader.warn(path, "loosens nothing; ask for the permission network_access instead")


_SANDBOX: Vocabulary = {
    **{
        key: _into_sandbox(check)
        for key, check in {
            "type": _tier,
            "image": text("image"),
            "network": _network,
            "volumes": texts("volumes"),
            "security_opt": texts("security_opt"),
            "cap_drop": _cap_drop,
            "user": text("user"),
            "working_dir": text("working_dir"),
            "env_whitelist": texts("env_whitelist"),
        }.items()
    },
    "memory": blocks.memory,
    "cpu_shares": limit("cpu_shares"),
}


def _compatibility(reader: Reader, path: Path, value: Any) -> None:
    if reader.table(path, value):
        reader.fields["compatibility"] = {**reader.fields.get("compatibility", {}), **value}


def _compatible(key: str) -> Check:
    def check(reader: Reader, path: Path, value: Any) -> None:
        if reader.text(path, value):
            _compatibility(reader, path, {key: value})

    return check


def _marketplace(reader: Reader, path: Path, value: Any) -> None:
    """The index's block: kept whole; what the rest of the host reads is taken out as well."""
    if reader.table(path, value):
        reader.fields["marketplace"] = value
        reader.walk(value, _MARKETPLACE, path)


_MARKETPLACE: Vocabulary = {
    "name": ignore,
    "description": ignore,
    "price": ignore,
    "license": text("license"),
    "support_url": matching("support_url", _LINK, "an http or https address"),
    "documentation_url": matching("documentation_url", _LINK, "an http or https address"),
    "screenshots": lambda reader, path, value: void(reader.texts(path, value)),
    "categories": texts("categories"),
    "keywords": texts("keywords"),
    "compatibility": _compatibility,
    "installation": block(
        {
            "dependencies": blocks.packages,
            "system_requirements": lambda reader, path, value: void(reader.texts(path, value)),
            "setup_instructions": lambda reader, path, value: void(reader.text(path, value)),
        }
    ),
}


def void(result: object) -> None:
    """Drop a result: the check was the point, the value is kept in its block."""


_LIMITS: Vocabulary = {
    "max_memory_mb": limit("memory_mb"),
    "memory_mb": limit("memory_mb"),
    "max_cpu_percent": limit("cpu_percent"),
    "cpu_percent": limit("cpu_percent"),
    "cpu_shares": limit("cpu_shares"),
    "max_execution_time_seconds": limit("timeout_seconds"),
    "timeout_seconds": limit("timeout_seconds"),
    "network_access": flag("network_default"),
    "file_access": blocks.file_access,
}

_COMMON: dict[str, Check] = {
    "name": named("name", str),
    "version": matching("version", _SEMVER, "a semantic version such as 1.0.0"),
    "description": prose("description"),
    "author": blocks.author,
    "email": matching("email", r"[^@\s<>]+@[^@\s<>]+", "an e-mail address"),
    "license": text("license"),
    "repository": matching("repository", _LINK, "an http or https address"),
    "homepage": matching("homepage", _LINK, "an http or https address"),
    "plugin_api_version": blocks.api_version,
    "plugin_type": one_of("plugin_type", *PLUGIN_TYPES),
    "type": one_of("plugin_type", *PLUGIN_TYPES),
    "intent": blocks.intents,
    "intents": blocks.intents,
    "module": matching("module", r"([\w-]+\.)*[^\W\d]\w*(?<!\.py)", "a dotted module path such as handler"),
    "main": matching("main", _FILE, "a Python file in the plugin's folder such as main.py"),
    "class": matching("class_name", _NAME, "the name of a class"),
    "entry_point": matching("entry_point", _NAME, "the name of a function"),
    "required_roles": texts("required_roles"),
    "trusted_ui": flag("trusted_ui"),
    "enable_external_workflow": flag("enable_external_workflow"),
    "workflow_slug": named("workflow_slug", workflow_slug),
    "sandbox": _sandbox,
    "sandbox_required": _into_sandbox(flag("required")),
    "docker_image": _into_sandbox(text("docker_image")),
    "plugin_dependencies": blocks.plugins,
    "permissions": blocks.permissions,
    "required_permissions": blocks.required_permissions,
    "optional_permissions": blocks.optional_permissions,
    "resource_limits": block(_LIMITS),
    "resources": block(_LIMITS),
    "monitoring": block(
        {
            "enable_metrics": _into_monitoring(flag("enable_metrics")),
            "enable_logging": _into_monitoring(flag("enable_logging")),
            "log_level": _into_monitoring(one_of("log_level", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        }
    ),
    "compatibility": _compatibility,
    "min_lao_version": _compatible("min_lao_version"),
    "min_eventcore_version": _compatible("min_eventcore_version"),
    "max_eventcore_version": _compatible("max_eventcore_version"),
    "tags": texts("tags"),
    "keywords": texts("keywords"),
    "category": matching("category", _CATEGORY, "a slug of lower case letters, digits, _ and -"),
    "categories": texts("categories"),
    "hooks": blocks.hooks,
    "stages": blocks.stages,
    "commands": blocks.commands,
    "config_schema": blocks.config_schema,
    "capabilities": blocks.capabilities,
    "input_schema": schema("input_schema"),
    "output_schema": schema("output_schema"),
    "events": block(
        {"emits": blocks.emits, "durable": blocks.durable_events, "removed": texts("removes_subscriptions")}
    ),
    "fallback": text("fallback"),
    "marketplace": _marketplace,
}

VOCABULARY: dict[str, Vocabulary] = {
    "json": {**_COMMON, "dependencies": blocks.dependencies("plugins")},
    "yaml": {**_COMMON, "dependencies": blocks.dependencies("packages")},
    "toml": {**_COMMON, "dependencies": blocks.dependencies("plugins")},
}
