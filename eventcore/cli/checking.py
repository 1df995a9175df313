"""What `plugins validate` and `workflows validate` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from eventcore.cli.output import clean, plural, print_json

Report = dict[str, Any]


def print_reports(reports: Sequence[Report], kind: str, where: Path, as_json: bool) -> bool:
    """Print what was checked and what is wrong, in the form `file:line key: message`.

    Args:
        reports: each with `path`, `name` and `problems`; `valid` is added.
        kind: `plugin` or `workflow`.

    Returns:
        Whether all are valid. Warnings do not count.
    """
    for report in reports:
        report["valid"] = not any(problem["severity"] == "error" for problem in report["problems"])
    bad = sum(not report["valid"] for report in reports)
    if as_json:
        print_json({"valid": not bad, f"{kind}s": list(reports)})
        return not bad
    for report in reports:
        mark = click.style("ok   ", fg="green") if report["valid"] else click.style("error", fg="red")
        click.echo(f"{mark} {clean(report['name'])}")
        for problem in report["problems"]:
            click.echo(f"      {_line(problem)}")
    if not reports:
        click.echo(f"there is no {kind} in {where}", err=True)
    else:
        click.echo(f"{plural(len(reports), kind)} checked, {plural(bad, 'with errors', 'with errors')}")
    return not bad


def _line(problem: Mapping[str, Any]) -> str:
    known = (problem["file"], problem["line"], problem.get("column"))
    place = ":".join(str(one) for one in known if one is not None)
    warning = click.style("warning: ", fg="yellow") if problem["severity"] == "warning" else ""
    key = f"{problem['key']}: " if problem["key"] else ""
    return f"{clean(place)} {warning}{clean(key + problem['message'])}"
