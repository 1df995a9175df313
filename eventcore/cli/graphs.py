"""What `graph`, `runs diff` and `runs watch` print."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import click

from eventcore.cli.output import (
    COLOURS,
    clean,
    compact,
    dim,
    duration,
    fit,
    local_time,
    print_json,
    print_json_line,
    status,
    table,
    title,
)


def print_graph(found: Mapping[str, Any], as_json: bool) -> None:
    """A graph as JSON, as Mermaid or SVG text, or drawn with colours."""
    if as_json:
        print_json({key: found[key] for key in ("title", "nodes", "edges", "format", "text")})
        return
    if found["format"] != "text":
        click.echo(found["text"], nl=False)
        return
    nodes = {node["path"]: node for node in found["nodes"]}
    widths = [max(len(node[key]) for node in found["nodes"]) for key in ("path", "does")]
    room = max(len(row) for row, _ in found["rows"])
    click.echo(title(found["title"]))
    for row, path in found["rows"]:
        if path is None:
            click.echo(dim(row.rstrip()))
            continue
        node = nodes[path]
        colour = COLOURS.get(node["status"] or "")
        does, notes = clean(node["does"]).ljust(widths[1]), ", ".join(clean(one) for one in node["notes"])
        state = node["status"].ljust(10) if node["status"] else ""
        used = room + sum(widths) + len(state) + 6
        parts = [
            click.style(row.ljust(room), fg=colour),
            title(path.ljust(widths[0])),
            *([click.style(state, fg=colour)] if state else []),
            does,
            dim(fit(notes, used)) if notes else "",
        ]
        click.echo("  ".join(parts).rstrip())


def print_diff(found: Mapping[str, Any]) -> None:
    """What changed below a run, step by step."""
    if found["same"]:
        click.echo(f"{found['slug']} has not changed since the run began")
        return
    signs = {"added": "+", "removed": "-", "changed": "~"}
    rows = [
        (
            signs[one["change"]],
            one["path"] or "(definition)",
            one["status"] or ("not begun" if one["path"] else ""),
            ", ".join(one["keys"]),
            one["means"],
        )
        for one in found["changes"]
    ]
    table(("", "step", "in the run", "changed", "means"), rows, nothing="only the form of the text has changed")
    if rows:
        click.echo("\nThe run goes on as it began. In the new form: eventcore runs fork ID STEP --definition new")


def follow(entries: Generator[Any, None, Any], as_json: bool) -> dict[str, Any]:
    """Print each journal entry as it comes; return the run's row at the end."""
    over: dict[str, Any] = {}
    while True:
        try:
            entry = next(entries)
        except StopIteration as end:
            over = end.value
            break
        if as_json:
            print_json_line(entry)
        else:
            _print_entry(entry)
    if not as_json:
        click.echo(f"{title(over['slug'])}  {status(over['status'])}  {duration(over['seconds'])}")
    return over


def _print_entry(entry: Mapping[str, Any]) -> None:
    word = entry["type"].removeprefix("step_").removeprefix("workflow_")
    word = entry.get("status", word) if word == "completed" else word
    error = entry.get("error") or {}
    said = error.get("message", "") if isinstance(error, dict) else str(error)
    if not said and entry.get("output") is not None:
        said = compact(entry["output"])
    attempt = f"attempt {entry['attempt']}" if entry["attempt"] > 1 else ""
    step = clean(entry["step"] or "run")
    words = [
        dim(local_time(entry["at"])[11:]),
        title(step.ljust(16)),
        status(word).ljust(9),
        attempt,
        fit(clean(said), 48),
    ]
    click.echo("  ".join(one for one in words if one))
