"""`eventcore plugins file`."""

from __future__ import annotations

import base64
from pathlib import Path

import click

from eventcore.cli.base import examples, face


@click.command(
    "file",
    epilog=examples(
        "eventcore plugins file reports june.csv", "eventcore plugins file reports june.csv --out june.csv"
    ),
)
@click.argument("name")
@click.argument("path")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it to this file.")
@face
def command(name: str, path: str, out: Path | None, as_json: bool) -> None:
    """Print a file that a plugin made, or write it to a file.

    PATH is a place in the plugin's folders, as it stands in the reference that `ctx.file` made. The host reads beneath
    those folders only: no link leads out of them.
    """
    from eventcore.cli.output import clean, plural, print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("plugins.file", {"name": name, "path": path})
    raw = base64.b64decode(found["content"])
    if out is not None:
        out.write_bytes(raw)
        del found["content"]
    if as_json:
        print_json(found)
    elif out is not None:
        click.echo(f"{clean(str(out))}: {plural(len(raw), 'byte')} of {clean(found['plugin'])}")
    else:
        click.echo(raw, nl=False)
