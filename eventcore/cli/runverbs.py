"""`eventcore runs` signal, answer, pause, resume, cancel, terminate, retry, fork."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from eventcore.cli.base import JsonText, examples, face
from eventcore.cli.runs import command, print_run

_RUN = "01980c5e-7b7e-7000-8000-000000000000"


def _act(operation: str, asked: Mapping[str, Any], as_json: bool) -> None:
    """Do something to a run, and show it as it is then."""
    from eventcore.cli.output import print_json
    from eventcore.cli.session import connect

    with connect() as session:
        found = session.call(operation, dict(asked))
    if as_json:
        print_json(found)
    else:
        print_run(found)


@command.command("signal", epilog=examples(f"eventcore runs signal {_RUN} paid --data '{{\"amount\": 5}}'"))
@click.argument("run", metavar="ID")
@click.argument("signal")
@click.option("--data", type=JsonText(), help="What to tell, as JSON.")
@face
def signal(run: str, signal: str, data: Any, as_json: bool) -> None:
    """Tell a run what a step with `wait_for: {signal: ...}` waits for."""
    _act("runs.signal", {"id": run, "signal": signal, "data": data}, as_json)


@command.command("answer", epilog=examples("eventcore runs answer WyJydW4i.c2lnbmVk --data '{\"done\": true}'"))
@click.argument("token")
@click.option("--data", type=JsonText(), help="The answer, as JSON.")
@face
def answer(token: str, data: Any, as_json: bool) -> None:
    """Answer a step that waits for another engine.

    TOKEN is the last part of the resume_url that the engine was given. Each counts once.
    """
    _act("runs.answer", {"token": token.rpartition("/")[2], "data": data}, as_json)


@command.command("pause", epilog=examples(f"eventcore runs pause {_RUN} --reason 'bank holiday'"))
@click.argument("run", metavar="ID")
@click.option("--reason", default="", help="Why; kept in the history.")
@face
def pause(run: str, reason: str, as_json: bool) -> None:
    """Let steps in flight finish and start nothing new; deadlines run on."""
    _act("runs.pause", {"id": run, "reason": reason}, as_json)


@command.command("resume", epilog=examples(f"eventcore runs resume {_RUN}"))
@click.argument("run", metavar="ID")
@face
def resume(run: str, as_json: bool) -> None:
    """Let a paused run go on."""
    _act("runs.resume", {"id": run}, as_json)


@command.command("cancel", epilog=examples(f"eventcore runs cancel {_RUN} --reason 'ordered twice'"))
@click.argument("run", metavar="ID")
@click.option("--reason", default="", help="Why; kept in the history.")
@face
def cancel(run: str, reason: str, as_json: bool) -> None:
    """Stop a run, its children first, and undo the steps that it finished."""
    _act("runs.cancel", {"id": run, "reason": reason}, as_json)


@command.command("terminate", epilog=examples(f"eventcore runs terminate {_RUN}"))
@click.argument("run", metavar="ID")
@click.option("--reason", default="", help="Why; kept in the history.")
@face
def terminate(run: str, reason: str, as_json: bool) -> None:
    """Stop a run at once; nothing is undone."""
    _act("runs.terminate", {"id": run, "reason": reason}, as_json)


@command.command("retry", epilog=examples(f"eventcore runs retry {_RUN}", f"eventcore runs retry {_RUN} --same-key"))
@click.argument("run", metavar="ID")
@click.option("--same-key", is_flag=True, help="Keep the failed steps' idempotency keys.")
@face
def retry(run: str, same_key: bool, as_json: bool) -> None:
    """Go on from the failed steps of a run."""
    _act("runs.retry", {"id": run, "same_key": same_key}, as_json)


@command.command("fork", epilog=examples(f"eventcore runs fork {_RUN} --from answer --definition new"))
@click.argument("run", metavar="ID")
@click.option("--from", "step", required=True, metavar="STEP", help="The first step to run anew.")
@click.option("--definition", type=click.Choice(["old", "new"]), default="old", show_default=True, help="Which to run.")
@face
def fork(run: str, step: str, definition: str, as_json: bool) -> None:
    """Start a new run from one step of an old one on."""
    _act("runs.fork", {"id": run, "step": step, "definition": definition}, as_json)
