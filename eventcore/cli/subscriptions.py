"""`eventcore subscriptions`."""

from __future__ import annotations

import click

from eventcore.cli.base import Suggesting, examples, face


@click.group(name="subscriptions", cls=Suggesting, epilog=examples("eventcore subscriptions list"))
def command() -> None:
    """Look at the places of durable subscriptions, and drop those of no use."""


@command.command("list", epilog=examples("eventcore subscriptions list", "eventcore subscriptions list --json"))
@face
def list_subscriptions(as_json: bool) -> None:
    """List durable subscriptions with their places.

    One that is `unused` is known to no plugin or program that runs now. What it has not passed stays in the history.
    """
    from eventcore.cli.output import clean, print_json, table
    from eventcore.cli.session import connect

    with connect() as session:
        found = session.call("subscriptions.list")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            clean(one["name"]),
            clean(one["pattern"] or "-"),
            str(one["position"]),
            str(one["behind"]),
            str(one["open"]),
            one["state"],
        )
        for one in found
    ]
    names = ("name", "pattern", "position", "behind", "open", "state")
    table(names, rows, nothing="there are no durable subscriptions")


@command.command("drop", epilog=examples("eventcore subscriptions drop shop/on_order_created"))
@click.argument("name", metavar="NAME")
@face
def drop(name: str, as_json: bool) -> None:
    """Give up the place of a durable subscription that nobody consumes.

    Events that only it has not passed may then be removed by retention. Its dead letters stay.
    """
    from eventcore.cli.output import clean, print_json
    from eventcore.cli.session import connect

    with connect() as session:
        done = session.call("subscriptions.drop", {"name": name})
    if as_json:
        print_json(done)
        return
    click.echo(f"{clean(name)} is dropped")
