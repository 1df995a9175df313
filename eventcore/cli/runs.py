"""`eventcore runs`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from eventcore.cli.base import FAILED, Suggesting, examples, face, format_option

#: Removing takes as long as it takes; a chunk at a time.
_PRUNE_SECONDS = 3600
_PART = re.compile(r"\[\d+\]|/?[^\[/]+")


@click.group(name="runs", cls=Suggesting, epilog=examples("eventcore runs list --status failed"))
def command() -> None:
    """Look at runs of workflows and their steps."""


@command.command(
    "list", epilog=examples("eventcore runs list --slug triage_message", "eventcore runs list --status failed --json")
)
@click.option("--slug", metavar="SLUG", help="Runs of this workflow.")
@click.option("--status", multiple=True, metavar="STATUS", help="Runs in this status; repeat for more.")
@click.option("--before", metavar="ID", help="Runs older than this one: the last of the page before.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--scheduled", is_flag=True, help="What is planned by the clock instead, as `schedules list`.")
@face
def list_runs(
    slug: str | None, status: tuple[str, ...], before: str | None, limit: int, scheduled: bool, as_json: bool
) -> None:
    """List runs, newest first."""
    if scheduled:
        from eventcore.cli.schedules import print_schedules

        print_schedules(as_json)
        return
    from eventcore.cli.output import duration, local_time, print_json, table
    from eventcore.cli.session import connect

    asked = {"slug": slug, "status": list(status) or None, "before": before, "limit": limit}
    with connect(quiet=True) as session:
        found = session.call("runs.list", asked)
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["status"], local_time(one["created"])[5:], duration(one["seconds"]), one["slug"])
        for one in found
    ]
    table(("run", "status", "began", "took", "workflow"), rows, nothing="there is no such run", colour=1)


@command.command("show", epilog=examples("eventcore runs show 01980c5e-7b7e-7000-8000-000000000000"))
@click.argument("run", metavar="ID")
@face
def show(run: str, as_json: bool) -> None:
    """Show a run with each attempt of each step: input, output, how long."""
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("runs.show", {"id": run})
    if as_json:
        print_json(found)
    else:
        print_run(found)


@command.command("graph", epilog=examples("eventcore runs graph 01980c5e-7b7e-7000-8000-000000000000"))
@click.argument("run", metavar="ID")
@format_option
@face
def graph(run: str, format: str, as_json: bool) -> None:
    """Draw a run: its definition, with how far each step has come."""
    from eventcore.cli.graphs import print_graph
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("runs.graph", {"id": run, "format": format})
    print_graph(found, as_json)


@command.command("diff", epilog=examples("eventcore runs diff 01980c5e-7b7e-7000-8000-000000000000"))
@click.argument("run", metavar="ID")
@face
def diff(run: str, as_json: bool) -> None:
    """Compare the definition that a run keeps with the one that its workflow has now.

    Nothing changes by looking. `means` tells what a fork of the run onto the new definition would do with each step.
    """
    from eventcore.cli.graphs import print_diff
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("runs.diff", {"id": run})
    print_json(found) if as_json else print_diff(found)


@command.command("watch", epilog=examples("eventcore runs watch 01980c5e-7b7e-7000-8000-000000000000"))
@click.argument("run", metavar="ID")
@click.option("--timeout", type=click.FloatRange(0), default=86400.0, show_default=True, metavar="SECONDS")
@face
def watch(run: str, timeout: float, as_json: bool) -> None:
    """Follow a run to its end. Ends with 1 if it is not completed then. With --json one line for each step event."""
    from eventcore.cli.graphs import follow
    from eventcore.cli.session import connect

    with connect() as session:
        session.drain = 0
        over = follow(session.stream("runs.watch", {"id": run, "timeout": timeout}), as_json)
    if over["status"] != "completed":
        raise click.exceptions.Exit(FAILED)


@command.command(
    "prune", epilog=examples("eventcore runs prune --older-than 30d", "eventcore runs prune --older-than 90d --dry-run")
)
@click.option("--older-than", required=True, metavar="AGE", help="How long ago they ended at least: 30d, 12h.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@face
def prune(older_than: str, dry_run: bool, as_json: bool) -> None:
    """Remove finished runs with their journals.

    Runs that are not over stay, and so does a child of one, and what a subscription has not had yet or a dead letter
    names. Their events go with the history's own retention.
    """
    from eventcore.cli.output import plural, print_json
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        done = session.call("runs.prune", {"older_than": older_than, "dry_run": dry_run}, timeout=_PRUNE_SECONDS)
    if as_json:
        print_json(done)
        return
    entries = plural(done["entries"], "journal entry", "journal entries")
    click.echo(f"{plural(done['runs'], 'run')} {'would be removed' if dry_run else f'removed, with {entries}'}")


def print_run(run: Mapping[str, Any]) -> None:
    """A run for people; with its steps, if they are in it."""
    from eventcore.cli.output import clean, compact, dim, duration, fields, fit, local_time, status, title

    click.echo(f"{title(run['slug'])}  {status(run['status'])}  {duration(run['seconds'])}")
    fields(
        [
            ("run", run["id"]),
            ("began", local_time(run["created"])),
            ("actor", clean(run["actor"])),
            ("parent", run.get("parent")),
            ("caused by", run["causation_id"]),
            ("inputs", fit(compact(run["inputs"]), 11)),
            ("output", fit(compact(run["output"]), 11) if run["output"] is not None else ""),
            ("error", click.style(_error(run["error"]), fg="red") if run["error"] else ""),
        ]
    )
    last = {step["step"]: step["attempt"] for step in run.get("steps", ())}
    for step in _as_a_tree(run.get("steps", ())):
        # Nothing was recorded of its end: the engine was closed or killed, and a later attempt took over.
        cut_off = step["status"] == "running" and step["attempt"] < last[step["step"]]
        state = "interrupted" if cut_off else step["status"]
        attempt = f"attempt {step['attempt']}" if step["attempt"] != 1 else ""
        doing = _doing(step)
        words = (
            title(clean(step["step"])),
            doing,
            status(state),
            attempt,
            duration(step.get("seconds")),
        )
        click.echo("\n" + "  ".join(word for word in words if word))
        for name in ("input", "output"):
            if step.get(name) is not None:
                click.echo(f"  {dim(name.ljust(6))}  {fit(compact(step[name]), 10)}")
        if step.get("run"):
            click.echo(f"  {dim('child ')}  {step['run']}")
        for name, told in _awaited(step) if step["attempt"] == last[step["step"]] else ():
            click.echo(f"  {dim(name.ljust(6))}  {told}")
        if step.get("error"):
            click.echo(f"  {dim('error ')}  {click.style(_error(step['error']), fg='red')}")
    for deed in run.get("deeds", ()):
        why = f": {clean(deed['reason'])}" if deed.get("reason") else ""
        by = f" by {clean(deed['by'])}" if deed.get("by") else ""
        click.echo(f"\n{dim(local_time(deed['time']))}  {deed['type'].removeprefix('workflow_')}{by}{why}")


def _doing(step: Mapping[str, Any]) -> str:
    """What a step does, and what it waits for."""
    from eventcore.cli.output import clean, duration

    match step.get("kind", ""):
        case "plugin":
            return clean(str(step["plugin"]))
        case "sleep":
            return f"sleep {duration(step['sleep'])}"
        case "wait_for":
            return f"waits for {clean(str(step['wait_for']))}"
        case "approve":
            return f"asks {clean(str(step['approve']))}"
        case "foreach":
            return f"{step['items']} items"
        case kind:
            return f"{kind} {clean(str(step.get(kind, '')))}".strip()


def _as_a_tree(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is inside a group or a `foreach` comes right after it, items by their number; else what began first. What
    undoes steps comes last, in its own order."""
    first: dict[str, int] = {}

    def place(path: str) -> tuple[tuple[int, int], ...]:
        parts = _PART.findall(path)
        ends = itertools.accumulate(parts)
        return tuple(
            (1, int(part[1:-1])) if part.startswith("[") else (0, first.setdefault(end, len(first)))
            for part, end in zip(parts, ends, strict=True)
        )

    forward = [step for step in steps if not step["step"].endswith("~undo")]
    undoing = [step for step in steps if step["step"].endswith("~undo")]
    return sorted(forward, key=lambda step: (place(step["step"]), step["attempt"])) + undoing


def _awaited(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Until when a step waits, and for whom or what."""
    from eventcore.cli.output import clean, compact, fit, local_time

    if step["status"] == "retrying":
        yield "again", local_time(step["next"])
    if step["status"] != "waiting":
        return
    if step.get("kind") == "approve":
        yield "who", clean(", ".join(step.get("roles") or ["operator"]))
    if step.get("match"):
        yield "match", fit(compact(step["match"]), 10)
    if step.get("until"):
        yield "until", local_time(step["until"])


def _error(error: Any) -> str:
    from eventcore.cli.output import clean, compact

    if isinstance(error, dict) and error.get("message"):
        left = error.get("compensation_failed")
        return clean(str(error["message"]) + (f"; could not be undone: {', '.join(left)}" if left else ""))
    return compact(error)
