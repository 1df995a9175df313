"""`eventcore memory`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from eventcore.cli.base import USAGE, Suggesting, examples, face


@click.group(name="memory", cls=Suggesting, epilog=examples("eventcore memory search weather"))
def command() -> None:
    """Search what is remembered, list it, forget it."""


@command.command(
    "search",
    epilog=examples("eventcore memory search weather", "eventcore memory search 'late train' --plugin journal --json"),
)
@click.argument("text", nargs=-1, required=True)
@click.option("--plugin", metavar="SLUG", help="Only what this plugin remembered.")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="At most so many.")
@face
def search(text: Sequence[str], plugin: str | None, limit: int, as_json: bool) -> None:
    """Find memories that hold all words of TEXT; with an embeddings service, the nearest in meaning first."""
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("memory.search", {"text": " ".join(text), "plugin": plugin, "limit": limit}, timeout=120)
    print_json(found) if as_json else _print(found)


@command.command("list", epilog=examples("eventcore memory list", "eventcore memory list --plugin journal"))
@click.option("--plugin", metavar="SLUG", help="Only what this plugin remembered.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@face
def list_memories(plugin: str | None, limit: int, as_json: bool) -> None:
    """List the newest memories, and how many each plugin has."""
    from eventcore.cli.output import clean, dim, plural, print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("memory.list", {"plugin": plugin, "limit": limit})
    if as_json:
        print_json(found)
        return
    _print(found["memories"])
    owners = [f"{clean(one['plugin'])} {one['memories']:,}" for one in found["plugins"]]
    if owners:
        total = sum(one["memories"] for one in found["plugins"])
        click.echo(dim(f"{plural(total, 'memory', 'memories')}: {', '.join(owners)}"))


@command.command(
    "purge", epilog=examples("eventcore memory purge --older-than 90d", "eventcore memory purge --plugin journal")
)
@click.option("--text", default="", metavar="WORDS", help="Only those that hold all of these words.")
@click.option("--plugin", metavar="SLUG", help="Only what this plugin remembered.")
@click.option("--older-than", metavar="AGE", help="Only those that are older: 30d, 12h.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@face
def purge(text: str, plugin: str | None, older_than: str | None, everything: bool, as_json: bool) -> None:
    """Forget memories for good. All conditions hold at once; without any, --all is needed."""
    from eventcore.cli.output import plural, print_json
    from eventcore.cli.session import connect

    if not (text.strip() or plugin or older_than or everything):
        click.echo("say what to forget: --text, --plugin, --older-than or --all", err=True)
        raise click.exceptions.Exit(USAGE)
    asked = {"text": text, "plugin": plugin, "older_than": older_than, "everything": everything}
    with connect() as session:
        done = session.call("memory.purge", asked, timeout=600)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{plural(done['forgotten'], 'memory', 'memories')} forgotten")


def _print(rows: Sequence[dict[str, Any]]) -> None:
    from eventcore.cli.output import clean, compact, fit, local_time, table

    cells = [
        (
            local_time(row["time"])[5:],
            row["plugin"],
            fit(clean(row["query"]), 60),
            fit(compact(row["result"]), 60),
            "" if row.get("likeness") is None else f"{row['likeness']:.2f}",
        )
        for row in rows
    ]
    table(("when", "plugin", "query", "result", "likeness"), cells, nothing="nothing of that is remembered")
