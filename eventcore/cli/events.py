"""`eventcore events`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from eventcore.cli.base import Suggesting, examples, face

if TYPE_CHECKING:
    from eventcore.cli.session import Session


@click.group(name="events", cls=Suggesting, epilog=examples("eventcore events list --type 'workflow_*' --since 1h"))
def command() -> None:
    """Look at what happened, and at what caused what."""


@command.command(
    "list",
    epilog=examples(
        "eventcore events list --type 'step_*' --since 1h",
        "eventcore events list --text invoice --limit 10 --json",
    ),
)
@click.option("--type", metavar="PATTERN", help="A type, or a pattern such as workflow_*.")
@click.option("--since", metavar="WHEN", help="Not before: 90s, 1h, 2d back from now, or an ISO time.")
@click.option("--until", metavar="WHEN", help="Not after; as for --since.")
@click.option("--text", metavar="WORDS", help="Words that all stand in type, subject, actor or data.")
@click.option("--run", metavar="ID", help="Events of this run.")
@click.option("--source", metavar="SOURCE", help="Events from this source, such as /cli.")
@click.option("--actor", metavar="ACTOR", help="Events that this actor caused, such as user:ada.")
@click.option("--subject", metavar="SUBJECT", help="Events about this subject.")
@click.option("--correlation", metavar="ID", help="Everything that one outside act set in motion.")
@click.option("--after", type=int, metavar="POSITION", help="The oldest ones after this position.")
@click.option("--before", type=int, metavar="POSITION", help="The newest ones before this position.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@face
def list_events(as_json: bool, **conditions: Any) -> None:
    """List recorded events that satisfy all conditions.

    The newest ones, oldest first; with --after, those that follow that position.
    """
    from eventcore.cli.describe import about
    from eventcore.cli.output import local_time, print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("events.list", conditions)
    if as_json:
        print_json(found)
        return
    rows = [(str(one["position"]), local_time(one["time"]), one["type"], one["actor"], about(one)) for one in found]
    table(("at", "time", "type", "actor", "what"), rows, nothing="no event fits")


@command.command("show", epilog=examples("eventcore events show 12", "eventcore events show 12 --json"))
@click.argument("event", metavar="EVENT")
@face
def show(event: str, as_json: bool) -> None:
    """Show an event, and the tree of what caused what.

    EVENT is an id, or a position as `events list` prints it.
    """
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("events.show", {"id": _id_of(session, event)})
    if as_json:
        print_json(found)
        return
    _print_event(found["event"])
    click.echo()
    _print_tree(found["tree"], found["event"]["id"])
    if found["truncated"]:
        click.echo("more than 10,000 events belong to it; the later ones are left out", err=True)


def _id_of(session: Session, event: str) -> str:
    if event.isdecimal():
        # A position, most likely; a foreign id may look like one too, and then the position is not there.
        page = session.call("events.list", {"after": int(event) - 1, "limit": 1})
        if page and page[0]["position"] == int(event):
            return str(page[0]["id"])
    return event


def _print_event(event: Mapping[str, Any]) -> None:
    from eventcore.cli.output import clean, fields, local_time, pretty, title

    click.echo(title(event["type"]))
    names = ("id", "position", "source", "subject", "actor", "key", "run", "correlation_id", "causation_id")
    fields([("time", local_time(event["time"])), *((name, clean(str(event.get(name) or ""))) for name in names)])
    click.echo(pretty(event["data"]))


def _print_tree(roots: list[dict[str, Any]], asked: str) -> None:
    width = max((len(str(event["position"])) for event in _all(roots)), default=1)
    for root in roots:
        _print_node(root, None, asked, width, "", "")


def _all(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for node in nodes for one in (node, *_all(node["effects"]))]


def _print_node(
    event: Mapping[str, Any], cause: Mapping[str, Any] | None, asked: str, width: int, branch: str, below: str
) -> None:
    from eventcore.cli.describe import about, colour_of
    from eventcore.cli.output import dim, fit

    left = f"{event['position']:>{width}} {branch}"
    words = fit(about(event, cause), len(left) + len(event["type"]) + 2)
    name = click.style(event["type"], fg=colour_of(event), bold=event["id"] == asked)
    click.echo(f"{dim(left)}{name}  {words}".rstrip())
    effects = event["effects"]
    for number, effect in enumerate(effects, 1):
        last = number == len(effects)
        _print_node(effect, event, asked, width, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))


@command.command(
    "tail",
    epilog=examples(
        "eventcore events tail", "eventcore events tail 'plugin_*' --past 20", "eventcore events tail --json | jq .type"
    ),
)
@click.argument("pattern", default="**")
@click.option("--past", type=click.IntRange(0, 10_000), default=0, metavar="N", help="First the newest N recorded.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@face
def tail(pattern: str, past: int, count: int | None, as_json: bool) -> None:
    """Follow events as they are recorded, until Ctrl-C.

    PATTERN is a type or a pattern; default ** (all). Follows the engine that runs on the home; if none does, opens
    one, and what other commands do meanwhile goes through it. Ctrl-C ends it with exit code 0.
    """
    import sys
    from contextlib import closing

    from eventcore.cli.session import connect

    with connect() as session:
        if sys.stderr.isatty():
            click.echo(f"following {pattern} in {session.home.root}; Ctrl-C ends it", err=True)
        try:
            with closing(session.stream("events.tail", {"pattern": pattern, "past": past})) as events:
                for number, event in enumerate(events, 1):
                    _print_line(event, as_json)
                    if number == count:
                        break
        except KeyboardInterrupt:
            session.drain = 0


def _print_line(event: Mapping[str, Any], as_json: bool) -> None:
    import sys

    from eventcore.cli.describe import about, colour_of
    from eventcore.cli.output import dim, fit, local_time, print_json_line

    if as_json:
        print_json_line(event)
        return
    left = f"{event['position']:>6}  {local_time(event['time'])[11:]}  "
    name = click.style(event["type"], fg=colour_of(event))
    click.echo(f"{dim(left)}{name}  {fit(about(event), len(left) + len(event['type']) + 2)}".rstrip())
    sys.stdout.flush()
