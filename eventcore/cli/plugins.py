"""`eventcore plugins`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from eventcore.cli import permissions, plugin_test, plugin_work, pluginfiles
from eventcore.cli.base import Suggesting, examples, face
from eventcore.cli.packages import install, uninstall
from eventcore.cli.plugin_config import config
from eventcore.cli.plugin_validate import validate


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
    from eventcore.cli.plugin_facts import facts
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("plugins.info", {"name": name})
    if as_json:
        print_json(found)
        return
    since = f" since {local_time(found['since'])}" if found["since"] else ""
    click.echo(f"{title(clean(found['name']))} {found['version'] or ''}  {status(found['state'])}{since}")
    fields((label, clean(value) if isinstance(value, str) else value) for label, value in facts(found))
    for problem in found["problems"]:
        place = problem["file"] if problem["line"] is None else f"{problem['file']}:{problem['line']}"
        click.echo(f"  {problem['severity']}: {clean(place)} {clean(problem['message'])}")


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


@command.command(
    "toggle", epilog=examples("eventcore plugins toggle old-plugin false", "eventcore plugins toggle old-plugin true")
)
@click.argument("name")
@click.argument("wanted", metavar="true|false", type=click.BOOL)
@face
def toggle(name: str, wanted: bool, as_json: bool) -> None:
    """Enable a plugin (true) or disable it (false)."""
    _switch("plugins.enable" if wanted else "plugins.disable", {"name": name}, as_json)


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


for _more in (
    validate,
    install,
    uninstall,
    config,
    permissions.command,
    *plugin_work.COMMANDS,
    plugin_test.test,
    pluginfiles.command,
):
    command.add_command(_more)
