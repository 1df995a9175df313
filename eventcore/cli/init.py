"""`eventcore init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from eventcore.cli.base import examples, json_option


@click.command(name="init", epilog=examples("eventcore init", "eventcore init my-home"))
@click.argument("path", default=".", type=click.Path(file_okay=False))
@json_option
def command(path: str, as_json: bool) -> None:
    """Make a home: settings, hooks/, plugins/ and workflows/.

    PATH is the folder; default the current one. What exists is left as it is.
    """
    from eventcore.cli.output import dim, print_json, title
    from eventcore.home.layout import Home

    home, made = Home.init(path, os.environ)
    if as_json:
        print_json({"home": str(home.root), "made": [str(item) for item in made]})
        return
    if not made:
        click.echo(f"{home.root} is a home already; nothing was changed")
        return
    click.echo(f"{title('made a home')} in {home.root}")
    for item in made:
        if item != home.root:
            click.echo(f"  {item.relative_to(home.root)}{'/' if item.is_dir() else ''}")
    click.echo("next:")
    steps = [
        ("eventcore plugins enable hello-world", "turn on the smallest plugin"),
        ('eventcore run hello_world --params \'{"name": "Ada"}\'', "call it"),
        ("eventcore chat", "talk to the home"),
    ]
    if home.root != Path.cwd():
        steps.insert(0, (f"cd {path}", ""))
    for line, why in steps:
        click.echo(f"  {line}" + (dim(f"   # {why}") if why else ""))
