"""What `eventcore events` does with the history as a whole: explain, prune, export, import, count."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

import click

from eventcore.cli.base import FAILED, examples, face

#: Lines of an import that go together: so many, and at most so many bytes.
_CHUNK, _CHUNK_BYTES = 200, 1024 * 1024
_PRUNE_SECONDS = 3600


@click.command("explain", epilog=examples("eventcore events explain 12", "eventcore events explain 12 --json"))
@click.argument("event", metavar="EVENT")
@face
def explain(event: str, as_json: bool) -> None:
    """Show why an event started something, or nothing.

    Names every workflow trigger that listens to its type with what its condition says, every subscription that it is
    for, failed deliveries and dead letters. EVENT is an id or a position. What is not recorded (deliveries that went
    well, filters of the past) is worked out with the triggers and subscriptions of now.
    """
    from eventcore.cli.describe import id_of
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("events.explain", {"id": id_of(session, event)})
    if as_json:
        print_json(found)
        return
    _print_explained(found)


def _print_explained(found: Mapping[str, Any]) -> None:
    from eventcore.cli.output import clean, title

    event = found["event"]
    click.echo(f"{title(event['type'])} at {event['position']}, id {clean(event['id'])}")
    if found["imported"]:
        click.echo("imported: history of another home is never delivered and starts nothing")
        return
    _section("triggers", "no workflow listens to this type", map(_trigger_line, found["triggers"]))
    nobody = "nobody subscribes to this type now"
    _section("subscriptions", nobody, map(_subscription_line, found["subscriptions"]))
    if found["failures"]:
        _section("failed deliveries", "", (f"{one['subscription']}: {one['error']}" for one in found["failures"]))
    if found["dead_letters"]:
        letters = (f"{one['subscription']}: {one['reason']} ({one['id']})" for one in found["dead_letters"])
        _section("dead letters", "", letters)


def _section(name: str, nothing: str, lines: Any) -> None:
    from eventcore.cli.output import clean, dim

    click.echo(dim(name))
    for line in [*lines] or [nothing]:
        click.echo(f"  {clean(line)}")


def _trigger_line(one: Mapping[str, Any]) -> str:
    words = f"{one['slug']} ({one['trigger']}, on {one['pattern']})"
    if one["run"]:
        return f"{words}: started run {one['run']}"
    if one["error"]:
        return f"{words}: failed: {one['error']}"
    if not one["holds"]:
        return f"{words}: did not start: if {one['condition']} is {json.dumps(one['value'])}"
    return f"{words}: would start now, but did not then"


def _subscription_line(one: Mapping[str, Any]) -> str:
    said = (
        one["error"] or (one["state"] or "delivered at most once") if one["wants"] or one["error"] else "filtered out"
    )
    return f"{one['name']} (on {one['pattern']}): {said}"


@click.command("payload", epilog=examples("eventcore events payload 12", "eventcore events payload 12 > big.json"))
@click.argument("event", metavar="EVENT")
@face
def payload(event: str, as_json: bool) -> None:
    """Print what an event carries, as JSON, also where that is too large for the log.

    A payload above 256 KiB, of a type declared with blobs, is stored beside the log: `events show` has its hash and
    size in its place. EVENT is an id or a position.
    """
    from eventcore.cli.describe import id_of
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        print_json(session.call("events.payload", {"id": id_of(session, event)}))


@click.command(
    "prune",
    epilog=examples(
        "eventcore events prune --older-than 30d --type 'step_*'", "eventcore events prune --older-than 90d --dry-run"
    ),
)
@click.option("--older-than", required=True, metavar="AGE", help="How old at least: 30d, 12h.")
@click.option("--type", metavar="PATTERN", help="Only this type, or types that match this pattern.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@face
def prune(older_than: str, type: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove old events from the history.

    What a subscription has not had yet, what is a dead letter, and what belongs to a run that is not over stays. Step
    events leave the history; the journal of their run keeps them. The file does not shrink; its space is used again.
    """
    from eventcore.cli.output import plural, print_json
    from eventcore.cli.session import connect

    wanted = {"older_than": older_than, "type": type, "dry_run": dry_run}
    with connect(quiet=True) as session:
        done = session.call("events.prune", wanted, timeout=_PRUNE_SECONDS)
    if as_json:
        print_json(done)
        return
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{plural(done['events'], 'event')} and {plural(done['steps'], 'step event')} {verb}")


@click.command(
    "export",
    epilog=examples("eventcore events export --since 1d > day.ndjson", "eventcore events export --type 'order_*'"),
)
@click.option("--type", metavar="PATTERN", help="A type, or a pattern such as workflow_*.")
@click.option("--since", metavar="WHEN", help="Not before: 90s, 1h, 2d back from now, or an ISO time.")
@click.option("--until", metavar="WHEN", help="Not after; as for --since.")
@click.option("--after", type=int, metavar="POSITION", help="Only those after this position.")
@face
def export(as_json: bool, **conditions: Any) -> None:
    """Print events as CloudEvents 1.0, one JSON object a line, oldest first.

    --json changes nothing about that, but errors are then JSON too.
    """
    from contextlib import closing

    from eventcore.cli.session import connect

    given = {name: value for name, value in conditions.items() if value is not None}
    with connect(quiet=True) as session, closing(session.stream("events.export", given)) as bodies:
        for body in bodies:
            click.echo(json.dumps(body, ensure_ascii=False))


@click.command(
    "import", epilog=examples("eventcore events import day.ndjson", "eventcore events import - < day.ndjson")
)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@face
def import_(file: str, as_json: bool) -> None:
    """Add CloudEvents to the history, one JSON object a line; - is stdin.

    They are history only: nothing is delivered and no workflow starts. They keep their ids and times and get the
    extension `imported`. Events that are there already are skipped. Lines that are no CloudEvent are reported, the
    others go on, and the exit code is 1.
    """
    from eventcore.cli.output import clean, plural, print_json
    from eventcore.cli.session import connect

    total: dict[str, Any] = {"imported": 0, "duplicates": 0, "errors": []}
    try:
        source = click.open_file(file, "rb")
    except OSError as why:
        raise click.BadParameter(f"cannot read {file}: {why.strerror}", param_hint="FILE") from None
    with source, connect(quiet=True) as session:
        for chunk in _chunks(source, total["errors"]):
            done = session.call("events.import", {"events": chunk}, timeout=300)
            total = {name: total[name] + done[name] for name in total}
    total["errors"].sort(key=lambda error: error["line"])
    if as_json:
        print_json(total)
    else:
        for error in total["errors"]:
            click.echo(f"line {error['line']}: {clean(error['message'])}", err=True)
        already = f", {total['duplicates']:,} were there already" if total["duplicates"] else ""
        click.echo(f"{plural(total['imported'], 'event')} imported{already}")
    if total["errors"]:
        raise click.exceptions.Exit(FAILED)


def _chunks(file: IO[bytes], errors: list[dict[str, Any]]) -> Iterator[list[list[Any]]]:
    """[line, CloudEvent] pairs, some at a time; lines that are no JSON go to `errors`."""
    from eventcore.cli.emit import MAX_LINE, numbered

    chunk: list[list[Any]] = []
    size = 0
    for number, line in numbered(file):
        if line is None:
            errors.append({"line": number, "code": "invalid_payload", "message": f"longer than {MAX_LINE:,} bytes"})
            continue
        if not line.strip():
            continue
        try:
            chunk.append([number, json.loads(line)])
        except (ValueError, RecursionError) as error:
            errors.append({"line": number, "code": "invalid_payload", "message": f"not JSON: {error}"})
            continue
        size += len(line)
        if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def print_counts(found: list[dict[str, Any]], by: str, every: str | None) -> None:
    """The table of `events list --count-by`."""
    from eventcore.cli.output import local_time, table

    rows = []
    for one in found:
        row = [one[by] if one[by] is not None else "(none)", f"{one['count']:,}"]
        rows.append([local_time(one["since"]), *row, f"{one['per_second']:g}"] if every else row)
    headers = ("from", by, "count", "per second") if every else (by, "count")
    table(headers, rows, nothing="no event fits")
