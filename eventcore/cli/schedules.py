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
    """List when workflows start by the clock, and what plugins have planned."""
    print_schedules(as_json)


def print_schedules(as_json: bool) -> None:
    """The list, for `runs list --scheduled` as well."""
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
            one["does"],
            one["says"] or "",
            one["timezone"] or "",
            "paused" if one["paused"] else local_time(one["next"]) if one["next"] else "never",
        )
        for one in found
    ]
    table(("schedule", "does", "when", "zone", "next"), rows, nothing="nothing happens by the clock")


@command.command("cancel", epilog=examples("eventcore schedules cancel plugin:greeter/reminder"))
@click.argument("schedule", metavar="ID")
@face
def cancel(schedule: str, as_json: bool) -> None:
    """Give up what a plugin has planned. A workflow's schedule ends with its trigger; it can be paused."""
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect() as session:
        done = session.call("schedules.cancel", {"id": schedule})
    if as_json:
        print_json(done)
    else:
        click.echo(f"{schedule} is cancelled")


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
