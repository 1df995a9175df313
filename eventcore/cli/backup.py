"""`eventcore backup`."""

from __future__ import annotations

import os

import click

from eventcore.cli.base import examples, face


@click.command(name="backup", epilog=examples("eventcore backup /var/backups/events-monday.db"))
@click.argument("path", metavar="PATH", type=click.Path(dir_okay=False))
@face
def command(path: str, as_json: bool) -> None:
    """Copy everything recorded to a new file, while work goes on.

    PATH must not exist. The copy is the database as it is at one moment: events, runs, memory and the state of plugins.
    Settings, hooks/, plugins/ and workflows/ are files of yours and not in it.
    """
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        done = session.call("backup", {"path": os.path.abspath(path)}, timeout=3600)
    if as_json:
        print_json(done)
    else:
        click.echo(f"backup of everything up to position {done['position']} in {done['path']}, {done['bytes']:,} bytes")
