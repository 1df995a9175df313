"""`eventcore schedules`."""

from __future__ import annotations

import click

from eventcore.cli.base import Suggesting, examples, face


@click.group(name="schedules", cls=Suggesting, epilog=examples("eventcore schedules list"))
def command() -> None:
    """See when workflows start by the clock; pause that, or start one now."""


@command.command("list", epilog=examples("eventcore schedules list"))
@face
def list_schedules(as_json: bool) -> None:
    """List the schedules of all workflows."""
    from eventcore.cli.output import local_time, print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("schedules.list")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["says"] or "",
            one["timezone"] or "",
            "paused" if one["paused"] else local_time(one["next"]) if one["next"] else "never",
        )
        for one in found
    ]
    table(("schedule", "when", "zone", "next"), rows, nothing="no workflow starts by the clock")


@command.command("pause", epilog=examples("eventcore schedules pause daily_report/morning"))
@click.argument("schedule", metavar="ID")
@click.option("--resume", is_flag=True, help="Go on instead, from now.")
@face
def pause(schedule: str, resume: bool, as_json: bool) -> None:
    """Let a schedule rest until it is resumed."""
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect() as session:
        done = session.call("schedules.pause", {"id": schedule, "resume": resume})
    if as_json:
        print_json(done)
    else:
        click.echo(f"{schedule} {'is paused' if done['paused'] else 'goes on'}")


@command.command("run", epilog=examples("eventcore schedules run daily_report/morning"))
@click.argument("schedule", metavar="ID")
@face
def run(schedule: str, as_json: bool) -> None:
    """Start the run of a schedule now, beside its times."""
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect() as session:
        done = session.call("schedules.run", {"id": schedule})
    if as_json:
        print_json(done)
    else:
        click.echo(f"run {done['run']}")
