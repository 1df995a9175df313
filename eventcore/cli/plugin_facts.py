"""The lines of `eventcore plugins info`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eventcore.cli.output import compact, duration, local_time

Facts = Iterator[tuple[str, Any]]


def facts(found: Mapping[str, Any]) -> Facts:
    """Label and value of each line; empty values are for the caller to leave out."""
    manifest = found["manifest"] or {}
    yield "reason", found["reason"]
    yield "description", found["description"]
    yield from _origin(found, manifest)
    yield from _reach(found, manifest)
    yield from _permissions(found, manifest)
    yield from _limits(found)
    yield from _settings(found)
    yield from _use(found["calls"])
    yield "other keys", compact(manifest["extra"]) if manifest.get("extra") else ""
    yield "from", f"{found['origin']}: {found['path']}"
    if package := found["package"]:
        yield "installed", f"from {package['source']}, sha256 {package['digest']}"


def _origin(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> Facts:
    email = manifest.get("email")
    yield "author", f"{manifest.get('author') or ''}{f' <{email}>' if email else ''}"
    yield "license", f"{manifest.get('license') or ''}{' (default)' if manifest.get('license_assumed') else ''}"
    for key in ("repository", "homepage", "support_url", "documentation_url"):
        yield key.replace("_", " "), manifest.get(key)
    yield "type", found["type"]
    yield "category", ", ".join(dict.fromkeys([found["category"] or "", *manifest.get("categories", ())])).strip(", ")
    yield "tags", ", ".join(found["tags"])
    yield "plugin API", manifest.get("api_version")
    yield "made for", ", ".join(f"{key} {value}" for key, value in (manifest.get("compatibility") or {}).items())
    yield "price", (manifest.get("marketplace") or {}).get("price")


def _reach(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> Facts:
    yield "intents", ", ".join(found["intents"])
    for one in manifest.get("capabilities") or ():
        types = f" ({one['input_type'] or 'any'} -> {one['output_type'] or 'any'})"
        yield "capability", f"{found['slug']}.{one['name']}{types} {one['description']}".rstrip()
    info = (found["registered"] or {}).get("info")
    if isinstance(info, dict) and info.get("capabilities"):
        said = info["capabilities"]
        plain = isinstance(said, list) and all(isinstance(one, str) for one in said)
        yield "capabilities", ", ".join(said) if plain else compact(said)
    yield "fallback", manifest.get("fallback")
    yield "needs roles", ", ".join(manifest.get("required_roles") or ())
    yield "hooks", ", ".join(manifest.get("hooks") or ())
    yield "commands", ", ".join(one["name"] for one in manifest.get("commands") or ())
    yield "events", ", ".join(manifest.get("emits") or ())
    if manifest.get("enable_external_workflow") and manifest.get("workflow_slug"):
        yield "starts", f"the workflow {manifest['workflow_slug']} with its result"
    needs = [f"{one['name']} {one['version']}".rstrip() for one in manifest.get("plugin_dependencies") or ()]
    yield "needs plugins", ", ".join(needs)
    yield "needed by", ", ".join(found["needed_by"])
    yield "services", ", ".join([*manifest.get("system_services", ()), *manifest.get("external_services", ())])
    yield (
        "packages",
        ", ".join(f"{one['requirement']}{'' if one['here'] else ' (not here)'}" for one in found["packages"]),
    )
    yield "UI", found["ui"]


def _permissions(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> Facts:
    """Each word of the manifest beside what it became."""
    granted = set(found["granted"])
    for one in manifest.get("declared_permissions") or ():
        became = ", ".join(f"{name}{' (granted)' if name in granted else ''}" for name in one["permissions"])
        yield "may use" if one["optional"] else "needs", f"{one['word']} = {became}"
    yield "granted", ", ".join(found["granted"])


def _limits(found: Mapping[str, Any]) -> Facts:
    sandbox = found["sandbox"] or {}
    yield "sandbox", sandbox.get("level")
    for one in sandbox.get("limits", ()):
        yield f"  {one['limit']}", f"{one['value']} ({one['by']}; said by {one['source']})"
    yield "worker", found["worker"]
    for label, value in (found["reach"] or {}).items():
        yield f"  {label}", value
    containers = found["containers"] or {}
    yield "image", f"{containers['image']}{' (built from its Dockerfile)' * containers['built']}" if containers else ""
    for one in containers.get("running", ()):
        used = f"CPU {one['cpu_percent']:g} %, memory {one['memory_mb']:g} MB"
        yield f"  {one['container']}", f"{used}, {one['bytes_in']:g} bytes in, {one['bytes_out']:g} out"


def _settings(found: Mapping[str, Any]) -> Facts:
    for one in found["settings"]:
        shown = "not set" if one["source"] == "not set" else f"{compact(one['value'])} ({one['source']})"
        yield f"setting {one['key']}", shown


def _use(calls: Mapping[str, Any]) -> Facts:
    if not calls["count"]:
        return
    times = ""
    if calls["mean_seconds"] is not None:
        times = f", mean {duration(calls['mean_seconds'])}, 95 % within {duration(calls['p95_seconds'])}"
    yield "calls", f"{calls['count']:,}, {calls['failures']:,} failed{times}"
    yield "last call", local_time(calls["last"])
