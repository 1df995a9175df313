"""`eventcore approvals`."""

from __future__ import annotations

from typing import Any

import click

from eventcore.cli.base import Suggesting, examples, face

_RUN = "01980c5e-7b7e-7000-8000-000000000000"


@click.group(name="approvals", cls=Suggesting, epilog=examples("eventcore approvals list"))
def command() -> None:
    """See what runs wait for your decision, and decide."""


@command.command("list", epilog=examples("eventcore approvals list"))
@face
def list_approvals(as_json: bool) -> None:
    """List the approvals that runs wait for."""
    from eventcore.cli.output import clean, print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("approvals.list")
    if as_json:
        print_json(found)
        return
    rows = [(one["run"], clean(one["step"]), clean(one["message"]), ", ".join(one["roles"])) for one in found]
    table(("run", "step", "message", "who may"), rows, nothing="nothing waits for an approval")


@command.command("approve", epilog=examples(f"eventcore approvals approve {_RUN} --note 'looks good'"))
@click.argument("run", metavar="ID")
@click.option("--step", metavar="STEP", help="Which step; needed where several wait.")
@click.option("--note", default="", help="Kept with the decision.")
@face
def approve(run: str, step: str | None, note: str, as_json: bool) -> None:
    """Say yes to what a run waits for."""
    _decide("approvals.approve", run, step, note, as_json)


@command.command("deny", epilog=examples(f"eventcore approvals deny {_RUN} --note 'too soon'"))
@click.argument("run", metavar="ID")
@click.option("--step", metavar="STEP", help="Which step; needed where several wait.")
@click.option("--note", default="", help="Kept with the decision.")
@face
def deny(run: str, step: str | None, note: str, as_json: bool) -> None:
    """Say no; the step fails."""
    _decide("approvals.deny", run, step, note, as_json)


def _decide(operation: str, run: str, step: str | None, note: str, as_json: bool) -> None:
    from eventcore.cli.output import clean, print_json
    from eventcore.cli.session import connect

    with connect() as session:
        done: dict[str, Any] = session.call(operation, {"id": run, "step": step, "note": note})
    if as_json:
        print_json(done)
    else:
        click.echo(f"{clean(done['step'])} of {done['run']} is {'approved' if done['approved'] else 'denied'}")
