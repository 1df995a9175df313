"""`eventcore deadletters`."""

from __future__ import annotations

import click

from eventcore.cli.base import Suggesting, examples, face


@click.group(name="deadletters", cls=Suggesting, epilog=examples("eventcore deadletters list"))
def command() -> None:
    """Look at events that a subscription gave up on, and deliver them again."""


@command.command(
    "list",
    epilog=examples("eventcore deadletters list", "eventcore deadletters list --subscription billing --json"),
)
@click.option("--subscription", metavar="NAME", help="Only those of this subscription.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@face
def list_letters(subscription: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, newest first."""
    from eventcore.cli.output import clean, local_time, print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("deadletters.list", {"subscription": subscription, "limit": limit})
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            local_time(one["time"])[5:],
            clean(one["subscription"]),
            one["type"] or "(gone)",
            str(one["attempts"]),
            clean(one["reason"]),
        )
        for one in found
    ]
    table(("id", "given up", "subscription", "event", "tries", "reason"), rows, nothing="there are no dead letters")


@command.command("show", epilog=examples("eventcore deadletters show 01980c5e-7b7e-7000-8000-000000000000"))
@click.argument("letter", metavar="ID")
@face
def show(letter: str, as_json: bool) -> None:
    """Show a dead letter with its event."""
    from eventcore.cli.output import clean, fields, local_time, pretty, print_json, title
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("deadletters.show", {"id": letter})
    if as_json:
        print_json(found)
        return
    event = found["event"]
    click.echo(title(found["type"] or "(not in the history any more)"))
    fields(
        [
            ("id", found["id"]),
            ("subscription", clean(found["subscription"])),
            ("given up", local_time(found["time"])),
            ("attempts", str(found["attempts"])),
            ("reason", clean(found["reason"])),
            ("event", event["id"] if event else None),
            ("position", str(found["position"])),
        ]
    )
    if event:
        click.echo(pretty(event["data"]))


@command.command("redrive", epilog=examples("eventcore deadletters redrive 01980c5e-7b7e-7000-8000-000000000000"))
@click.argument("letters", metavar="ID...", nargs=-1, required=True)
@face
def redrive(letters: tuple[str, ...], as_json: bool) -> None:
    """Deliver events again to the subscription that gave up on them.

    They start at their first attempt. If nothing consumes the subscription now, they are delivered when something does.
    """
    _each("deadletters.redrive", letters, "is delivered again to", as_json)


@command.command("drop", epilog=examples("eventcore deadletters drop 01980c5e-7b7e-7000-8000-000000000000"))
@click.argument("letters", metavar="ID...", nargs=-1, required=True)
@face
def drop(letters: tuple[str, ...], as_json: bool) -> None:
    """Remove dead letters for good; their events stay in the history."""
    _each("deadletters.drop", letters, "is dropped for", as_json)


def _each(operation: str, letters: tuple[str, ...], what: str, as_json: bool) -> None:
    from eventcore.cli.output import clean, print_json
    from eventcore.cli.session import connect

    with connect() as session:
        done = [session.call(operation, {"id": letter}) for letter in letters]
    if as_json:
        print_json(done)
        return
    for one in done:
        click.echo(f"{one['type'] or 'the event'} at {one['position']} {what} {clean(one['subscription'])}")
