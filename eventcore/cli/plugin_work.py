"""`eventcore plugins run|debug|health|metrics|logs`: plugins at work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from eventcore.cli.base import FAILED, JsonText, examples, face
from eventcore.cli.run import command as _run

run = click.Command(
    name="run",
    callback=_run.callback,
    params=_run.params,
    help=_run.help,
    epilog=examples('eventcore plugins run hello-world --params \'{"name": "Ada"}\''),
)


@click.command(
    "debug",
    epilog=examples(
        'eventcore plugins debug calculate --params \'{"expression": "2*21"}\' --verbose',
        "eventcore plugins debug hello-world --break handler.py:8 --trace",
    ),
)
@click.argument("name")
@click.option("--params", type=JsonText("object"), metavar="JSON", help="What the plugin is called with; default {}.")
@click.option(
    "--break", "breakpoints", multiple=True, metavar="FILE:LINE", help="Show local variables; repeat for more."
)
@click.option("--trace", is_flag=True, help="Show the lines that ran.")
@click.option("--verbose", is_flag=True, help="Show the parameters and the rendered prompt in full.")
@click.option("--user", metavar="NAME", help="Call as this user, with the role `user` unless --role says otherwise.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role of the caller; repeat for more.")
@face
def debug(
    name: str,
    params: Any,
    breakpoints: tuple[str, ...],
    trace: bool,
    verbose: bool,
    user: str | None,
    roles: tuple[str, ...],
    as_json: bool,
) -> None:
    """Call a plugin under the debugger, and show what its code did.

    The call runs in a sandboxed worker of its own, with the checks and limits of a real one. What it would have
    committed is counted and dropped. NAME is an intent or a plugin's name.
    """
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    asked = {"name": name, "params": params, "breakpoints": list(breakpoints), "trace": trace, "user": user}
    with connect() as session:
        report = session.call("plugins.debug", {**asked, "roles": list(roles) or None}, timeout=24 * 3600.0)
    if as_json:
        print_json(report)
    else:
        _print_report(report, verbose)
    if report["error"] is not None:
        raise click.exceptions.Exit(FAILED)


def _print_report(report: Mapping[str, Any], verbose: bool) -> None:
    from eventcore.cli.output import clean, compact, dim, fields, fit, pretty, title

    shown = pretty if verbose else lambda value: fit(compact(value), 12)
    fields(_summary(report, shown, verbose))
    for heading, text in (("prompt", report["prompt"]), ("stdout", report["stdout"]), ("stderr", report["stderr"])):
        if text and (verbose or heading != "prompt"):
            click.echo(f"{title(heading)}\n{clean(text, lines=True).rstrip()}")
    for hit in report["breakpoints"]:
        place = clean(f"{hit['file']}:{hit['line']}")
        click.echo(f"{title(place)} in {clean(hit['function'])}")
        for name, value in hit["locals"].items():
            click.echo(f"  {clean(name)} = {clean(value)}")
    if report["trace"]:
        click.echo(title("lines"))
        for line in report["trace"]:
            click.echo(f"  {clean(line['file'])}:{line['line']} {dim(clean(line['function']))}")
    if report["dropped"]:
        click.echo(dim(f"{report['dropped']:,} more lines and stops were too many to keep"), err=True)
    if report["error"] is not None and report["error"]["trace"]:
        click.echo(clean(report["error"]["trace"], lines=True).rstrip(), err=True)


#: What a call commits -> one of them.
_ONE = {"events": "event", "memories": "memory", "runs": "run"}


def _summary(report: Mapping[str, Any], shown: Any, verbose: bool) -> Iterator[tuple[str, Any]]:
    from eventcore.cli.output import clean, duration

    yield "plugin", clean(report["plugin"])
    yield "params", shown(report["params"])
    if report["prompt"] is not None and not verbose:
        yield "prompt", f"{len(report['prompt']):,} characters; --verbose shows them"
    for check in report["checks"]:
        yield (
            "checked",
            f"{check['permission']}: {'granted' if check['granted'] else 'DENIED'}, to {clean(check['what'])}",
        )
    if report["error"] is None:
        yield "result", shown(report["result"])
    else:
        yield "raised", clean(f"{report['error']['kind']}: {report['error']['message']}")
    dropped = {what: count for what, count in report["effects"].items() if count}
    yield "dropped", ", ".join(f"{count} {_ONE[what] if count == 1 else what}" for what, count in dropped.items())
    yield (
        "time",
        f"{duration(report['seconds'])} with the worker's start; the limit is {duration(report['time_limit'])}",
    )


@click.command("health", epilog=examples("eventcore plugins health", "eventcore plugins health greeter --json"))
@click.argument("name", required=False)
@face
def health(name: str | None, as_json: bool) -> None:
    """Ask plugins how they are; ends with 1 if any is not healthy.

    Without NAME: every plugin that is in use or should be.
    """
    from eventcore.cli.output import clean, print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        reports = session.call("plugins.health", {"name": name}, timeout=300)
    if as_json:
        print_json(reports)
    else:
        rows = [
            (one["plugin"], one["version"], one["status"], clean(one["reason"] or _details(one))) for one in reports
        ]
        table(("plugin", "version", "health", "why"), rows, nothing="no plugin is in use", colour=2)
    if any(one["status"] == "unhealthy" for one in reports):
        raise click.exceptions.Exit(FAILED)


def _details(report: Mapping[str, Any]) -> str:
    from eventcore.cli.output import compact

    return " ".join(f"{key}={compact(value)}" for key, value in report["details"].items())


@click.command("metrics", epilog=examples("eventcore plugins metrics --since 1d", "eventcore plugins metrics greeter"))
@click.argument("name", required=False)
@click.option("--since", metavar="WHEN", help="Not before: 90s, 1h, 2d back from now, or an ISO time.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "prometheus"]),
    default="table",
    show_default=True,
    help="A table of the recorded calls, or the running engine's own metrics as text.",
)
@face
def metrics(name: str | None, since: str | None, form: str, as_json: bool) -> None:
    """Show how often plugins were called, how often they failed, and how long they took.

    The figures come from the recorded calls of intents, so they survive restarts.
    """
    from eventcore.cli.output import duration, local_time, print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        if form == "prometheus":
            click.echo(session.call("plugins.scrape", {"name": name}), nl=False)
            return
        found = session.call("plugins.metrics", {"name": name, "since": since}, timeout=120)
    if as_json:
        print_json(found)
        return
    headers = ("plugin", "calls", "failed", "rate", "mean", "p95", "memories", "failed starts", "last used")
    table(
        headers,
        [
            (
                one["plugin"],
                f"{one['calls']:,}",
                f"{one['failures']:,}",
                f"{one['failure_rate']:.1%}",
                duration(one["mean_seconds"]),
                duration(one["p95_seconds"]),
                f"{one['memories']:,}",
                f"{one['starts_failed']:,}",
                local_time(one["last_used"]),
            )
            for one in found
        ],
        nothing="no plugin was called",
    )


@click.command("logs", epilog=examples("eventcore plugins logs greeter", "eventcore plugins logs greeter --follow"))
@click.argument("name")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="At most so many of the newest lines.",
)
@click.option("--follow", is_flag=True, help="Go on with new lines until Ctrl-C.")
@face
def logs(name: str, limit: int, follow: bool, as_json: bool) -> None:
    """Show what a plugin wrote to the log, oldest first."""
    from eventcore.cli.output import clean, dim, local_time, print_json_line
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        try:
            for line in session.stream("plugins.logs", {"name": name, "limit": limit, "follow": follow}):
                if as_json:
                    print_json_line(line)
                    continue
                words = f"{dim(local_time(line['time']))} {_level(line['level'])} {clean(line['message'], lines=True)}"
                click.echo(words)
        except KeyboardInterrupt:
            if not follow:
                raise


def _level(level: str) -> str:
    colour = {"warning": "yellow", "error": "red", "critical": "red"}.get(level)
    return click.style(level.ljust(8), fg=colour)


@click.command(
    "hook",
    epilog=examples(
        "eventcore plugins hook my-monitor --events workflow_started,workflow_completed --callback on_run",
        "eventcore plugins hook my-monitor --list",
        "eventcore plugins hook my-monitor --events workflow_started --remove",
    ),
)
@click.argument("name")
@click.option("--events", metavar="A,B", help="Types or patterns of events.")
@click.option("--callback", metavar="FUNCTION", help="The plugin's function to call with each of them.")
@click.option("--list", "listing", is_flag=True, help="Only show what is hooked.")
@click.option(
    "--remove", is_flag=True, help="Remove instead: these events (all without --events), this function (any without)."
)
@face
def hook(name: str, events: str | None, callback: str | None, listing: bool, remove: bool, as_json: bool) -> None:
    """Have a plugin's function called for events that its code does not subscribe to by name.

    It begins with the next event, misses none of them, also not over restarts, and is tried again when it fails.
    """
    from eventcore.cli.output import print_json, table
    from eventcore.cli.session import connect

    if not (listing or remove) and not (events and callback):
        raise click.UsageError("say which --events to call which --callback for")
    wanted = [one.strip() for one in events.split(",") if one.strip()] if events else None
    asked: dict[str, Any] = {"name": name}
    if not listing:
        asked |= {"events": wanted, "callback": callback}
    with connect(quiet=listing) as session:
        done = session.call(f"plugins.{'hooks' if listing else 'unhook' if remove else 'hook'}", asked, timeout=120)
    if as_json:
        print_json(done)
        return
    table(
        ("event", "callback"), [(one["event"], one["callback"]) for one in done["hooks"]], nothing="nothing is hooked"
    )
    if not listing and done["state"] not in ("enabled", "degraded"):
        click.echo(f"{done['plugin']} is {done['state']}: its functions are called once it is enabled", err=True)


COMMANDS = (run, debug, health, metrics, logs, hook)
