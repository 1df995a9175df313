"""`eventcore events`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from eventcore.cli import history
from eventcore.cli.base import Suggesting, examples, face

#: As `eventcore.kernel.upkeep.COUNT_BY`, which would load much at start-up; a test holds them equal.
_COUNT_BY = ("type", "source", "actor", "status")


@click.group(name="events", cls=Suggesting, epilog=examples("eventcore events list --type 'workflow_*' --since 1h"))
def command() -> None:
    """Look at what happened, and at what caused what."""


for _more in (history.explain, history.payload, history.prune, history.export, history.import_):
    command.add_command(_more)


class _Where(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks only
    """PATH=VALUE."""

    name = "where"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        path, sign, text = value.partition("=")
        if not sign or not path:
            self.fail(f"{value!r} is not PATH=VALUE like data.amount=5", param, ctx)
        try:
            return path, json.loads(text)
        except ValueError:
            return path, text


@command.command(
    "list",
    epilog=examples(
        "eventcore events list --type 'step_*' --since 1h",
        "eventcore events list --text invoice --where data.amount=5 --json",
        "eventcore events list --since 1d --count-by type --every 1h",
    ),
)
@click.option("--type", metavar="PATTERN", help="A type, or a pattern such as workflow_*.")
@click.option("--since", metavar="WHEN", help="Not before: 90s, 1h, 2d back from now, or an ISO time.")
@click.option("--until", metavar="WHEN", help="Not after; as for --since.")
@click.option("--text", metavar="WORDS", help="Words that all stand in type, subject, actor or data.")
@click.option(
    "--where", type=_Where(), multiple=True, metavar="PATH=VALUE", help="data.items[0].sku=A-7; repeat for more."
)
@click.option("--run", metavar="ID", help="Events of this run.")
@click.option("--source", metavar="SOURCE", help="Events from this source, such as /cli.")
@click.option("--actor", metavar="ACTOR", help="Events that this actor caused, such as user:ada.")
@click.option("--subject", metavar="SUBJECT", help="Events about this subject.")
@click.option("--correlation", metavar="ID", help="Everything that one outside act set in motion.")
@click.option("--after", type=int, metavar="POSITION", help="The oldest ones after this position.")
@click.option("--before", type=int, metavar="POSITION", help="The newest ones before this position.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--count-by", type=click.Choice(_COUNT_BY), help="Count them instead, by this.")
@click.option("--every", metavar="DURATION", help="With --count-by: count each 1h, 1d, ... apart.")
@click.option("--format", type=click.Choice(("events", "cloudevents")), default="events", show_default=True)
@face
def list_events(as_json: bool, count_by: str | None, every: str | None, format: str, **conditions: Any) -> None:
    """List recorded events that satisfy all conditions, or count them.

    The newest ones, oldest first; with --after, those that follow that position. A VALUE of --where is JSON; what is
    no JSON is text. With --format cloudevents each is printed as a CloudEvent 1.0 in JSON, one a line.
    """
    from eventcore.cli.describe import about
    from eventcore.cli.output import local_time, print_json, print_json_line, table
    from eventcore.cli.session import connect

    conditions["where"] = dict(conditions["where"]) or None
    if count_by:
        _count(count_by, every, as_json, conditions)
        return
    if every:
        raise click.UsageError("--every goes with --count-by")
    with connect(quiet=True) as session:
        found = session.call("events.list", {**conditions, "format": format})
    if as_json:
        print_json(found)
        return
    if format == "cloudevents":
        for one in found:
            print_json_line(one)
        return
    rows = [(str(one["position"]), local_time(one["time"]), one["type"], one["actor"], about(one)) for one in found]
    table(("at", "time", "type", "actor", "what"), rows, nothing="no event fits")


def _count(by: str, every: str | None, as_json: bool, conditions: dict[str, Any]) -> None:
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    del conditions["limit"]
    with connect(quiet=True) as session:
        found = session.call("events.count", {"by": by, "every": every, **conditions}, timeout=300)
    if as_json:
        print_json(found)
    else:
        history.print_counts(found, by, every)


@command.command("show", epilog=examples("eventcore events show 12", "eventcore events show 12 --json"))
@click.argument("event", metavar="EVENT")
@face
def show(event: str, as_json: bool) -> None:
    """Show an event, and the tree of what caused what.

    EVENT is an id, or a position as `events list` prints it.
    """
    from eventcore.cli.describe import id_of
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("events.show", {"id": id_of(session, event)})
    if as_json:
        print_json(found)
        return
    _print_event(found["event"])
    click.echo()
    _print_tree(found["tree"], found["event"]["id"])
    if found["truncated"]:
        click.echo("more than 10,000 events belong to it; the later ones are left out", err=True)


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
@click.option("--after", type=click.IntRange(0), metavar="POSITION", help="First all recorded after this position.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@face
def tail(pattern: str, past: int, after: int | None, count: int | None, as_json: bool) -> None:
    """Follow events as they are recorded, until Ctrl-C.

    PATTERN is a type or a pattern; default ** (all). Follows the engine that runs on the home; if none does, opens
    one, and what other commands do meanwhile goes through it. Ctrl-C ends it with exit code 0. The position of the
    last event, given to --after, goes on from there without a gap.
    """
    import sys
    from contextlib import closing

    from eventcore.cli.session import connect

    if past and after is not None:
        raise click.UsageError("give --past or --after, not both")
    wanted: dict[str, Any] = {"pattern": pattern, "past": past}
    if after is not None:
        wanted["after"] = after
    with connect() as session:
        if sys.stderr.isatty():
            click.echo(f"following {pattern} in {session.home.root}; Ctrl-C ends it", err=True)
        try:
            with closing(session.stream("events.tail", wanted)) as events:
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


@command.command(
    "replay",
    epilog=examples(
        "eventcore events replay billing --since 2h",
        "eventcore events replay greeter.on_order_created --since 1d --dry-run",
        "eventcore events replay billing --job backfill",
    ),
)
@click.argument("subscription", metavar="SUB")
@click.option("--since", metavar="WHEN", help="Not before: 90s, 1h, 2d back from now, or an ISO time.")
@click.option("--until", metavar="WHEN", help="Before; as for --since.")
@click.option(
    "--speed",
    type=click.Choice(["instant", "original"]),
    default="instant",
    show_default=True,
    help="One after the other, or with the pauses that lay between them.",
)
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--job", metavar="NAME", help="Go on where the job of this name was when it was stopped.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=3600.0, show_default=True, help="In seconds."
)
@face
def replay(
    subscription: str,
    since: str | None,
    until: str | None,
    speed: str,
    dry_run: bool,
    job: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Deliver past events once more to one subscription.

    SUB is the name of a subscription of a plugin (greeter.on_order_created), a hook file or the running engine. Its own
    place stays where it is. Ends with 1 if the subscription failed on an event.
    """
    from eventcore.cli.output import clean, print_json
    from eventcore.cli.session import connect

    asked = {"subscription": subscription, "since": since, "until": until, "speed": speed, "dry_run": dry_run}
    asked |= {"job": job}
    with connect() as session:
        done = session.call("events.replay", asked, timeout=timeout)
    if as_json:
        print_json(done)
    elif dry_run:
        click.echo(f"{done['matched']} events would be delivered to {clean(done['subscription'])}")
    else:
        click.echo(f"{done['delivered']} of {done['matched']} events were delivered to {clean(done['subscription'])}")
        for one in done["failures"]:
            click.echo(f"{one['position']} {one['type']}: {clean(one['error'])}", err=True)
    if done["failed"]:
        raise click.exceptions.Exit(1)
