"""`eventcore restore`."""

from __future__ import annotations

from pathlib import Path

import click

from eventcore.cli.base import examples, face


@click.command(name="restore", epilog=examples("eventcore restore /var/backups/events-monday.db --home new-home"))
@click.argument("path", metavar="PATH", type=click.Path(dir_okay=False))
@face
def command(path: str, as_json: bool) -> None:
    """Bring a backup into an empty home.

    PATH is what eventcore backup made. The home must have no events and no running engine. A backup of a newer
    EventCore is refused; an older one is brought up to date when the home is opened. Runs that were in flight go on
    then.
    """
    from eventcore.app.restoring import restore_home
    from eventcore.cli.output import print_json
    from eventcore.cli.session import find_home

    target = restore_home(find_home(), Path(path))
    if as_json:
        print_json({"database": str(target)})
    else:
        click.echo(f"restored {path} to {target}")
