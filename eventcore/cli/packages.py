"""`eventcore plugins install` and `eventcore plugins uninstall`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eventcore.cli.base import FAILED, examples, face

if TYPE_CHECKING:
    from eventcore.cli.session import Session

#: Unpacking, hashing and moving 64 MiB on a slow disk takes a while.
_TIMEOUT = 300


@click.command(
    "install",
    epilog=examples(
        "eventcore plugins install ./my-plugin-1.0.0.tar.gz",
        "eventcore plugins install ../my-plugin --yes",
        "eventcore plugins install",
    ),
)
@click.argument("target", required=False)
@click.option("--grant", "grants", multiple=True, metavar="PERMISSION", help="Grant a permission; repeat for more.")
@click.option("--yes", is_flag=True, help="Do not ask: grant what the plugin cannot do without, and install it.")
@face
def install(target: str | None, grants: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Install a plugin from a folder, a .tar.gz or a .zip.

    Its permissions are shown, and asked for; without a terminal that takes --yes. Without TARGET, everything that
    plugins/manifest.json lists and that is not there is installed again, with the content that it lists.
    """
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect() as session:
        if target is not None:
            done = [_install(session, {"target": _absolute(target)}, grants, yes, as_json)]
        else:
            done = _restore(session, yes, as_json)
    if as_json:
        print_json(done[0] if target is not None else done)
    if any("error" in one for one in done):
        raise click.exceptions.Exit(FAILED)


def _absolute(target: str) -> str:
    """A path that means the same to an engine that runs elsewhere; addresses are left as they are."""
    return target if "://" in target else str(Path(target).expanduser().absolute())


def _install(
    session: Session, wanted: dict[str, Any], grants: tuple[str, ...], yes: bool, as_json: bool
) -> dict[str, Any]:
    from eventcore.cli.output import clean, status

    found: dict[str, Any] = session.call("plugins.inspect", {"target": wanted["target"]}, timeout=_TIMEOUT)
    if not as_json:
        _present(found)
    chosen = _ask(found, list(grants), yes)
    asked = {"target": wanted["target"], "grants": chosen, "sha256": wanted.get("sha256", found["sha256"])}
    row: dict[str, Any] = session.call("plugins.install", asked, timeout=_TIMEOUT)
    if not as_json:
        click.echo(f"{clean(row['slug'])} {clean(row['version'])} is {status(row['state'])}")
        if found["instructions"]:
            click.echo(clean(str(found["instructions"]), lines=True))
        click.echo(f"  eventcore plugins enable {row['slug']}")
    return row


def _restore(session: Session, yes: bool, as_json: bool) -> list[dict[str, Any]]:
    """Install what is listed and not there; one that fails does not keep the others from it."""
    from eventcore.cli.output import clean
    from eventcore.kernel.errors import EventCoreError

    done: list[dict[str, Any]] = []
    for one in session.call("plugins.absent", {}):
        try:
            done.append(_install(session, one, (), yes, as_json))
        except EventCoreError as error:
            done.append({"slug": one["name"], "error": error.as_dict()})
            click.echo(f"{clean(one['name'])}: {clean(str(error))}", err=True)
    if not done and not as_json:
        click.echo("everything that plugins/manifest.json lists is there")
    return done


def _present(found: dict[str, Any]) -> None:
    from eventcore.cli.output import clean, fields, title

    click.echo(f"{title(clean(found['name']))} {clean(found['version'])}")
    pairs = {
        "description": found["description"],
        "author": found["author"],
        "license": found["license"],
        "sha256": found["sha256"],
        "needs": ", ".join(found["permissions"]),
        "may use": ", ".join(found["optional_permissions"]),
        "plugins": ", ".join(f"{one['name']} {one['version']}".rstrip() for one in found["needs"]),
        "packages": ", ".join(
            f"{one}{' (not here)' if one in found['absent_packages'] else ''}" for one in found["python_packages"]
        ),
        "made for": ", ".join(f"{key} {value}" for key, value in found["foreign_versions"].items()),
    }
    fields((name, clean(str(value))) for name, value in pairs.items() if value)
    for problem in found["warnings"]:
        click.echo(f"  warning: {clean(problem['key'])}: {clean(problem['message'])}")


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _ask(found: dict[str, Any], grants: list[str], yes: bool) -> list[str]:
    """The permissions that the plugin gets."""
    open_ones = [one for one in found["permissions"] if one not in grants]
    if yes:
        return [*grants, *open_ones]
    if not _can_ask():
        raise click.UsageError("there is no terminal to ask on; --yes installs it and grants what it cannot do without")
    wished = [one for one in found["optional_permissions"] if one not in grants]
    questions = {
        one: f"{found['plugin']} {need} {one}, which lets it {found['means'][one]}. Grant it?"
        for need, asked in (("needs", open_ones), ("would like", wished))
        for one in asked
    }
    grants += [one for one, question in questions.items() if click.confirm(question, err=True)]
    if not click.confirm(f"install {found['plugin']}?", default=True, err=True):
        raise click.Abort
    return grants


@click.command(
    "uninstall",
    epilog=examples("eventcore plugins uninstall my-plugin", "eventcore plugins uninstall my-plugin --purge --yes"),
)
@click.argument("name")
@click.option("--purge", is_flag=True, help="Remove its data, settings, memories, plans and databases as well.")
@click.option("--yes", is_flag=True, help="Do not ask, also if another plugin needs it.")
@face
def uninstall(name: str, purge: bool, yes: bool, as_json: bool) -> None:
    """Remove an installed plugin: stop it, take its code and registration away.

    Its data, settings and memories are kept for the next install, unless you say --purge. What lies in plugins/
    without having been installed is yours, and not removed. Asks if another plugin needs it.
    """
    from eventcore.cli.output import clean, print_json
    from eventcore.cli.session import connect

    with connect() as session:
        others = session.call("plugins.info", {"name": name})["needed_by"]
        if others and not yes:
            words = f"{clean(', '.join(others))} cannot do without {clean(name)}"
            if not _can_ask():
                raise click.UsageError(f"{words}; --yes removes it all the same")
            click.confirm(f"{words}; remove it all the same?", abort=True, err=True)
        row = session.call("plugins.uninstall", {"name": name, "purge": purge, "force": True}, timeout=_TIMEOUT)
    if as_json:
        print_json(row)
        return
    kept = ", ".join(f"{count:,} {kind}" for kind, count in row["forgotten"].items() if count)
    click.echo(f"{clean(row['slug'])} is uninstalled{', with all that it kept' if purge else ''}")
    if kept:
        click.echo(f"  removed: {kept}")
    if not purge:
        click.echo("  its data and settings are kept; --purge would have removed them")
