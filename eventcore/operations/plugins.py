"""Plugins: list, info, enable, disable, and calls of intents."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eventcore.engine import Engine
from eventcore.kernel.context import caller
from eventcore.kernel.errors import InvalidInput, SandboxUnavailable
from eventcore.kernel.outside import PluginScope
from eventcore.operations.plugin_use import use_of
from eventcore.operations.shapes import instant, plugin_row
from eventcore.plugins.dependencies import needed_by
from eventcore.plugins.introspection import differences
from eventcore.plugins.outside.reach import reach_in_words
from eventcore.plugins.python_packages import absent, wanted
from eventcore.plugins.registry import PluginRecord

STATES = ("installed", "enabled", "degraded", "disabled", "discovered", "failed")


async def list_plugins(
    engine: Engine,
    status: str = "all",
    type: str | None = None,
    category: str | None = None,
    tags: list[str] | None = None,
    intent: str | None = None,
) -> list[dict[str, Any]]:
    """Plugins that satisfy all conditions; broken ones are among them, with the reason."""
    wanted = {part.strip() for part in status.split(",")}
    if unknown := wanted - {*STATES, "all"}:
        raise InvalidInput(f"there is no plugin state {sorted(unknown)[0]!r}", hint=f"states: {', '.join(STATES)}, all")
    rows = [plugin_row(record) for record in engine.plugins.list()]
    return [
        row
        for row in rows
        if ("all" in wanted or row["state"] in wanted)
        and (type is None or row["type"] == type)
        and (category is None or row["category"] == category)
        and (intent is None or intent in row["intents"])
        and set(tags or ()) <= set(row["tags"])
    ]


async def info(engine: Engine, name: str) -> dict[str, Any]:
    """Everything known of one plugin: manifest, state, grants, and what loading it registered."""
    record = engine.plugins.get(name)
    return {
        **plugin_row(record),
        "since": instant(record.since),
        "problems": [problem.as_dict() for problem in (*record.problems, *differences(record))],
        "granted": sorted(str(permission) for permission in record.granted),
        "registered": record.registered,
        "content_hash": record.content_hash,
        "package": asdict(package) if (package := engine.plugins.packages.installed(record.slug)) else None,
        "packages": _packages(record),
        "worker": "running" if engine.plugins.lifecycle.running(record) else "none",
        "ui": engine.plugins.widgets.in_words(record),
        "settings": [one.as_dict() for one in engine.plugins.configuring.show(record)] if record.manifest else [],
        "calls": await use_of(engine, record.slug),
        "needed_by": needed_by(record.slug, engine.plugins.registry),
        "sandbox": await _sandbox(engine, record) if record.manifest else None,
        "reach": reach(engine, record) if record.manifest else None,
        "containers": await _containers(engine, record) if record.manifest else None,
        "manifest": record.manifest.model_dump(mode="json") if record.manifest else None,
    }


def _packages(record: PluginRecord) -> list[dict[str, Any]]:
    """The Python packages that it asks for, and whether each is here."""
    lines = wanted(record.manifest) if record.manifest else []
    lacking = absent(lines)
    return [{"requirement": line, "here": line not in lacking} for line in lines]


def reach(engine: Engine, record: PluginRecord) -> dict[str, str]:
    """What a plugin reaches through the host with the grants that it has, in words."""
    scope = engine.settings.plugins.scopes.get(record.slug, PluginScope())
    try:
        return reach_in_words(record.described(), record.granted, scope, engine.settings.http)
    except InvalidInput as error:
        return {"wrong": str(error)}


async def _containers(engine: Engine, record: PluginRecord) -> dict[str, Any] | None:
    """The image of a plugin that runs in containers, and what each of them uses now; None for others."""
    calls, containers = engine.plugins.calls, engine.plugins.containers
    try:
        wish = calls.rules.allowance(record).container
        if wish is None or containers is None:
            return None
        image = containers.image_of(calls.spec(record, engine.tenant), wish)
    except InvalidInput:
        return None  # its settings are wrong, which its state says
    return {"image": image, "built": wish.dockerfile, "running": await containers.stats(record.slug)}


async def _sandbox(engine: Engine, record: PluginRecord) -> dict[str, Any]:
    calls = engine.plugins.calls
    try:
        found = await calls.rules.enforcement(record, calls.time_limit(record))
    except (SandboxUnavailable, InvalidInput) as error:
        return {"level": "none", "limits": [], "reason": str(error)}
    if calls.limits.cpu:
        means = "the host, by the worker's CPU clock"
        row = {"limit": "cpu time", "value": f"{calls.limits.cpu:g} s a call", "by": means, "source": "settings"}
        found["limits"] = [*found["limits"], row]
    return found


async def enable(engine: Engine, name: str, grants: list[str] | None = None) -> dict[str, Any]:
    """Enable a plugin, with the grants given."""
    return plugin_row(await engine.plugins.enable(name, grants=grants or ()))


async def disable(engine: Engine, name: str) -> dict[str, Any]:
    """Disable a plugin."""
    return plugin_row(await engine.plugins.disable(name))


async def run(
    engine: Engine,
    intent: str,
    params: dict[str, Any] | None = None,
    user: str | None = None,
    roles: list[str] | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Call an intent. With `user` or `roles`, as that caller; else as the operator."""
    context = None
    if user is not None or roles is not None:
        context = caller(f"user:{user or 'anonymous'}", ["user"] if roles is None else roles, engine.tenant)
    context = context or engine.bus.context()
    done = await engine.plugins.calls.run(intent, params or {}, context, timeout=timeout, remember=True)
    return {
        "result": done.result,
        "plugin": done.provider,
        "instead_of": done.instead_of,
        "stdout": done.stdout,
        "stderr": done.stderr,
    }
