"""`eventcore plugins`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from eventcore.cli import permissions
from eventcore.cli.base import FAILED, Suggesting, examples, face


@click.group(name="plugins", cls=Suggesting, epilog=examples("eventcore plugins enable hello-world"))
def command() -> None:
    """List, check, enable and disable plugins."""


@command.command(
    "list",
    epilog=examples("eventcore plugins list --status enabled", "eventcore plugins list --type integration --json"),
)
@click.option(
    "--status", default="all", metavar="STATES", help="enabled, degraded, disabled, discovered, failed or all; a,b too."
)
@click.option("--type", metavar="TYPE", help="Plugins of this type, such as core or integration.")
@click.option("--category", metavar="CATEGORY", help="Plugins of this category.")
@click.option("--tags", metavar="A,B", help="Plugins that have all of these tags.")
@click.option("--intent", metavar="INTENT", help="Plugins that answer this intent.")
@face
def list_plugins(status: str, tags: str | None, as_json: bool, **conditions: Any) -> None:
    """List plugins, broken ones with the reason."""
    from eventcore.cli.output import print_json, table
    from eventcore.cli.session import connect

    wanted = [tag.strip() for tag in tags.split(",") if tag.strip()] if tags else None
    with connect(quiet=True) as session:
        found = session.call("plugins.list", {"status": status, "tags": wanted, **conditions})
    if as_json:
        print_json(found)
        return
    rows = [
        (one["name"], one["version"] or "", one["state"], one["category"] or "", ", ".join(one["intents"]), _what(one))
        for one in found
    ]
    headers = ("plugin", "version", "state", "category", "intents", "description")
    table(headers, rows, nothing="no plugin fits", colour=2)


def _what(row: Mapping[str, Any]) -> str:
    return f"{row['state']}: {row['reason']}" if row["reason"] else str(row["description"])


@command.command("info", epilog=examples("eventcore plugins info hello-world"))
@click.argument("name")
@face
def info(name: str, as_json: bool) -> None:
    """Show what is known of a plugin: manifest, state, permissions.

    NAME is its name, its slug or one of its intents.
    """
    from eventcore.cli.output import clean, fields, local_time, print_json, status, title
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("plugins.info", {"name": name})
    if as_json:
        print_json(found)
        return
    manifest = found["manifest"] or {}
    since = f" since {local_time(found['since'])}" if found["since"] else ""
    click.echo(f"{title(clean(found['name']))} {found['version'] or ''}  {status(found['state'])}{since}")
    fields((label, clean(value) if isinstance(value, str) else value) for label, value in _facts(found, manifest))
    for problem in found["problems"]:
        place = problem["file"] if problem["line"] is None else f"{problem['file']}:{problem['line']}"
        click.echo(f"  {problem['severity']}: {clean(place)} {clean(problem['message'])}")


def _facts(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    from eventcore.cli.output import compact

    yield "reason", found["reason"]
    yield "description", found["description"]
    yield "author", manifest.get("author")
    yield "license", f"{manifest.get('license') or ''}{' (default)' if manifest.get('license_assumed') else ''}"
    yield "type", found["type"]
    yield "category", found["category"]
    yield "tags", ", ".join(found["tags"])
    yield "intents", ", ".join(found["intents"])
    yield "needs roles", ", ".join(manifest.get("required_roles") or ())
    yield "needs", ", ".join(manifest.get("permissions") or ())
    yield "may use", ", ".join(manifest.get("optional_permissions") or ())
    yield "granted", ", ".join(found["granted"])
    yield "hooks", ", ".join(manifest.get("hooks") or ())
    yield "commands", ", ".join(one["name"] for one in manifest.get("commands") or ())
    if manifest.get("enable_external_workflow") and manifest.get("workflow_slug"):
        yield "starts", f"the workflow {manifest['workflow_slug']} with its result"
    yield "limits", _limits(manifest.get("limits") or {})
    yield "sandbox", (found.get("sandbox") or {}).get("level")
    for one in (found.get("sandbox") or {}).get("limits", ()):
        yield f"  {one['limit']}", f"{one['value']} ({one['by']})"
    yield "other keys", compact(manifest["extra"]) if manifest.get("extra") else ""
    yield "from", f"{found['origin']}: {found['path']}"


def _limits(limits: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items() if value not in (None, [], {}, ""))


@command.command(
    "validate", epilog=examples("eventcore plugins validate plugins/my-plugin", "eventcore plugins validate")
)
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@face
def validate(path: Path | None, as_json: bool) -> None:
    """Check manifests and the files they name, without running anything.

    PATH is a plugin, its manifest, or a folder of plugins, and needs no home; default the plugin in the current folder,
    else all of the home. Ends with 1 if one has errors.
    """
    from eventcore.cli.checking import print_reports
    from eventcore.cli.session import find_home
    from eventcore.home.discovery import MANIFESTS

    if path is None:
        here = Path()
        path = here if any((here / name).is_file() for name in MANIFESTS) else find_home().plugins
    if not print_reports(list(_checked(path)), "plugin", path, as_json):
        raise click.exceptions.Exit(FAILED)


def _checked(path: Path) -> Iterator[dict[str, Any]]:
    from eventcore.home.discovery import find_plugins

    if path.is_file():
        yield _report(path, None)
        return
    slugs: dict[str, str] = {}
    for found in find_plugins([path]):
        if found.problem is not None:
            yield {"path": str(found.path), "name": found.path.name, "problems": [found.problem.as_dict()]}
            continue
        report = _report(found.manifest, found.category)
        slug = (report.get("manifest") or {}).get("slug")
        if slug and (other := slugs.setdefault(slug, report["path"])) != report["path"]:
            message = f"{other} has the same name, {slug}; rename one of them"
            report["problems"].append(
                {"file": report["path"], "line": None, "key": "name", "message": message, "severity": "error"}
            )
        yield report


def _report(file: Path, category: str | None) -> dict[str, Any]:
    from eventcore.kernel.errors import InvalidManifest
    from eventcore.plugins.entry_scan import scan_entry
    from eventcore.plugins.manifest import check_folder, read_manifest

    report: dict[str, Any] = {"path": str(file), "name": file.absolute().parent.name, "problems": []}
    try:
        manifest = read_manifest(file, category=category)
    except InvalidManifest as error:
        report["problems"] = [problem.as_dict() for problem in error.problems]
        return report
    problems = [*manifest.warnings, *check_folder(manifest), *scan_entry(manifest)]
    report["problems"] = [problem.as_dict() for problem in problems]
    return {**report, "name": manifest.name, "manifest": manifest.model_dump(mode="json", exclude={"warnings"})}


@command.command(
    "enable",
    epilog=examples("eventcore plugins enable hello-world", "eventcore plugins enable greeter --grant chat_access"),
)
@click.argument("name")
@click.option("--grant", "grants", multiple=True, metavar="PERMISSION", help="Grant a permission; repeat for more.")
@face
def enable(name: str, grants: tuple[str, ...], as_json: bool) -> None:
    """Enable a plugin, and grant it what it needs.

    At a terminal it asks for what the manifest wants and was not granted yet. Elsewhere, without the grants that the
    plugin needs, it is refused, and the error names them.
    """
    _switch("plugins.enable", {"name": name, "grants": grants}, as_json)


@command.command("disable", epilog=examples("eventcore plugins disable hello-world"))
@click.argument("name")
@face
def disable(name: str, as_json: bool) -> None:
    """Disable a plugin: nothing calls it any more."""
    _switch("plugins.disable", {"name": name}, as_json)


def _switch(op: str, params: dict[str, Any], as_json: bool) -> None:
    from eventcore.cli.output import clean, print_json, status
    from eventcore.cli.session import connect

    with connect() as session:
        if "grants" in params:
            params["grants"] = permissions.ask_for_grants(session, params["name"], params["grants"], as_json)
        row = session.call(op, params, timeout=120)
    if as_json:
        print_json(row)
        return
    click.echo(f"{clean(row['slug'])} is {status(row['state'])}")
    if row["state"] == "enabled" and row["intents"]:
        click.echo(f"  it answers {clean(', '.join(row['intents']))}")


command.add_command(permissions.command)
