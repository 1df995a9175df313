"""`eventcore workflows`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from eventcore.cli.base import FAILED, JsonText, Suggesting, examples, face, format_option, json_option


@click.group(name="workflows", cls=Suggesting, epilog=examples("eventcore workflows start triage_message"))
def command() -> None:
    """List, check and start workflows."""


@command.command("list", epilog=examples("eventcore workflows list"))
@face
def list_workflows(as_json: bool) -> None:
    """List the workflows that can be started."""
    from eventcore.cli.output import print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("workflows.list")
    if as_json:
        print_json(found)
        return
    rows = [
        (one["slug"], str(one["steps"]), ", ".join(one["triggers"]), _state(one), one["description"]) for one in found
    ]
    nothing = "this home has no workflow; put one into workflows/, or enable one of the catalogue in eventcore.toml"
    table(("workflow", "steps", "started by", "state", "description"), rows, nothing=nothing)


def _state(row: dict[str, Any]) -> str:
    missing = row["missing_intents"]
    return f"needs {', '.join(missing)}" if missing else "ready"


@command.command("show", epilog=examples("eventcore workflows show triage_message"))
@click.argument("slug")
@face
def show(slug: str, as_json: bool) -> None:
    """Show a workflow and its definition."""
    from eventcore.cli.output import clean, fields, print_json, title
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("workflows.show", {"slug": slug})
    if as_json:
        print_json(found)
        return
    import yaml

    click.echo(title(found["slug"]))
    names = ("description", "triggers", "intents", "missing_intents", "origin", "hash")
    fields(
        (name.replace("_", " "), clean(", ".join(value) if isinstance(value := found[name], list) else str(value)))
        for name in names
    )
    text = yaml.safe_dump(found["definition"], sort_keys=False, allow_unicode=True, width=100)
    click.echo("\n" + clean(text, lines=True).rstrip())


@command.command("validate", epilog=examples("eventcore workflows validate workflows/triage_message.yaml"))
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@face
def validate(path: Path | None, as_json: bool) -> None:
    """Check definitions without running anything.

    PATH is a file, or a folder of them, and needs no home; default the home's workflows/. Ends with 1 if one has
    errors.
    """
    from eventcore.cli.checking import print_reports
    from eventcore.cli.session import find_home
    from eventcore.home.discovery import find_files

    if path is None:
        path = find_home().workflows
    files = find_files(path, (".yaml", ".yml")) if path.is_dir() else [path]
    if not print_reports(list(_checked(files)), "workflow", path, as_json):
        raise click.exceptions.Exit(FAILED)


def _checked(files: list[Path]) -> Iterator[dict[str, Any]]:
    from eventcore.cli.surroundings import surroundings
    from eventcore.kernel.errors import EventCoreError, InvalidFile
    from eventcore.workflows.lint import check_file

    around = surroundings(files)
    slugs: dict[str, Path] = {}
    for file in files:
        report: dict[str, Any] = {"path": str(file), "name": file.stem, "problems": []}
        try:
            plan, found = check_file(file, around)
            report |= {"name": plan.slug, "definition": plan.workflow.as_dict()}
            report["problems"] += [problem.as_dict() for problem in found]
            if (other := slugs.setdefault(plan.slug, file)) != file:
                report["problems"].append(_problem(file, f"has the slug of {other}"))
        except InvalidFile as error:
            report["problems"] += [problem.as_dict() for problem in error.problems]
        except EventCoreError as error:
            report["problems"].append(_problem(file, error.message))
        report["problems"].sort(key=lambda problem: (problem["line"] or 0, problem.get("column") or 0))
        yield report


def _problem(file: Path, message: str) -> dict[str, Any]:
    return {"file": str(file), "line": None, "key": "", "message": message, "severity": "error"}


@command.command("schema", epilog=examples("eventcore workflows schema > .vscode/eventcore-workflow.json"))
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of workflow files, for editors. Needs no home; a schema is JSON with and without --json."""
    from eventcore.cli.output import print_json
    from eventcore.workflows.schema import json_schema

    print_json(json_schema())


@command.command(
    "graph",
    epilog=examples(
        "eventcore workflows graph triage_message",
        "eventcore workflows graph triage_message --format svg > triage.svg",
    ),
)
@click.argument("slug")
@format_option
@face
def graph(slug: str, format: str, as_json: bool) -> None:
    """Draw the steps of a workflow, for the terminal, as Mermaid or as SVG."""
    from eventcore.cli.graphs import print_graph
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("workflows.graph", {"slug": slug, "format": format})
    print_graph(found, as_json)


@command.command(
    "start",
    epilog=examples(
        'eventcore workflows start triage_message --inputs \'{"text": "hi"}\'',
        "eventcore workflows start nightly --key 2026-01-31 --no-wait",
    ),
)
@click.argument("slug")
@click.option("--inputs", type=JsonText("object"), metavar="JSON", help="What the run begins with; default {}.")
@click.option("--key", metavar="KEY", help="The same key again, within seven days, finds the first run.")
@click.option("--wait/--no-wait", default=True, help="Wait for the end of the run; default yes.")
@click.option("--timeout", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS")
@face
def start(slug: str, inputs: Any, key: str | None, wait: bool, timeout: float, as_json: bool) -> None:
    """Start a run, and wait for its end.

    Ends with 1 if the run fails, or is not over in time; it then goes on in the engine that runs on the home, or when
    one is opened the next time.
    """
    from eventcore.cli.output import print_json
    from eventcore.cli.runs import print_run
    from eventcore.cli.session import connect

    with connect() as session:
        begun = session.call("workflows.start", {"slug": slug, "inputs": inputs, "idempotency_key": key})
        if not wait:
            session.drain = 0
            if as_json:
                print_json(begun)
            else:
                later = "" if session.remote else "; it goes on when an engine is open on this home"
                click.echo(f"started {begun['slug']} as run {begun['run']}{later}")
            return
        session.call("runs.wait", {"id": begun["run"], "timeout": timeout}, timeout + 10)
        run = session.call("runs.show", {"id": begun["run"]})
        over = run["status"] in ("completed", "failed", "cancelled", "terminated")
        session.drain = None if over else 0
    if as_json:
        print_json(run)
    else:
        print_run(run)
    if not over:
        click.echo(f"not over after {timeout:g} s; see eventcore runs show {run['id']}", err=True)
    if run["status"] != "completed":
        raise click.exceptions.Exit(FAILED)
