"""`eventcore plugins permissions`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from eventcore.cli.base import examples, face

if TYPE_CHECKING:
    from eventcore.cli.session import Session


@click.command(
    name="permissions",
    epilog=examples(
        "eventcore plugins permissions greeter",
        "eventcore plugins permissions greeter --grant memory_read",
        "eventcore plugins permissions greeter --revoke chat_access",
    ),
)
@click.argument("name")
@click.option("--grant", "grant", multiple=True, metavar="PERMISSION", help="Grant a permission; repeat for more.")
@click.option(
    "--revoke",
    "--deny",
    "revoke",
    multiple=True,
    metavar="PERMISSION",
    help="Take a permission away, or deny it before it was granted; repeat for more.",
)
@face
def command(name: str, grant: tuple[str, ...], revoke: tuple[str, ...], as_json: bool) -> None:
    """Show what a plugin asks for and what it was granted, and change that.

    A change takes effect at once and survives restarts. A plugin that loses what it needs is disabled.
    """
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    asked = {"name": name, "grant": list(grant) or None, "revoke": list(revoke) or None}
    with connect(quiet=not (grant or revoke)) as session:
        found = session.call("plugins.permissions", asked)
    print_json(found) if as_json else _print(found)


def _print(found: Mapping[str, Any]) -> None:
    from eventcore.cli.output import clean, status, table, title

    click.echo(f"{title(clean(found['plugin']))}  {status(found['state'])}")
    if found["reason"]:
        click.echo(f"  {clean(found['reason'])}")
    rows = [
        (
            one["permission"],
            "required" if one["required"] else "optional",
            one["status"],
            one["enforced_by"],
            one["means"],
        )
        for one in found["permissions"]
    ]
    headers = ("permission", "asked for as", "status", "enforced by", "lets it")
    table(headers, rows, nothing="it asks for no permission")


def ask_for_grants(session: Session, name: str, given: Sequence[str], as_json: bool) -> list[str]:
    """The grants that were given, and those that somebody at a terminal says yes to: what the plugin asks for, and was
    neither granted nor denied yet. Elsewhere nothing is asked."""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return list(given)
    found = session.call("plugins.permissions", {"name": name})
    answers = list(given)
    for one in found["permissions"]:
        if one["status"] == "not granted" and one["permission"] not in given:
            need = "needs" if one["required"] else "would like"
            question = f"{found['plugin']} {need} {one['permission']}, which lets it {one['means']}. Grant it?"
            if click.confirm(question, default=False):
                answers.append(one["permission"])
    return answers
