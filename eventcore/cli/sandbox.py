"""`eventcore sandbox`."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

import click

from eventcore.cli.base import FAILED, Suggesting, examples, json_option


@click.group(name="sandbox", cls=Suggesting, epilog=examples("eventcore sandbox check"))
def command() -> None:
    """See what confines plugins on this machine."""


@command.command("check", epilog=examples("eventcore sandbox check", "eventcore sandbox check --no-namespaces --json"))
@click.option("--no-namespaces", is_flag=True, help="As if namespaces were not to be had.")
@json_option
def check(no_namespaces: bool, as_json: bool) -> None:
    """Try everything that the sandbox is made of, and say what it does not stop.

    Each means of the kernel is tried on something that it must forbid. Needs no home. Ends with 1 if plugins cannot be
    confined here at all.
    """
    from eventcore.cli.output import print_json

    found = _report(not no_namespaces)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["level"] == "none":
        raise click.exceptions.Exit(FAILED)


def _report(namespaces: bool) -> dict[str, Any]:
    import anyio

    from eventcore.plugins.sandbox.confined import Sandbox
    from eventcore.plugins.sandbox.enforcement import report

    async def ask() -> dict[str, Any]:
        sandbox = Sandbox(namespaces=namespaces)
        try:
            return report(await sandbox.machine())
        finally:
            sandbox.close()

    return anyio.run(ask)


#: What it means that something is missing, by what it is needed for.
_WITHOUT = {
    "always": "without it no plugin runs",
    "full": "without it the level is reduced, and no plugin may start programs",
    "root": "without it workers remain who runs the host, with no more rights",
    "grant": "without it plugins with a grant of ports are refused",
}
_LEVELS = {
    "full": "every means works; a worker sees nothing of the host",
    "reduced": "no namespaces; plugins run unless [sandbox] require says full",
    "none": "plugins are refused here",
}


def _show(found: dict[str, Any]) -> None:
    from eventcore.cli.output import title

    click.echo(f"{title('sandbox')}: {found['level']} ({_LEVELS[found['level']]})")
    click.echo("each means of the kernel, and what it stops:")
    width = max(len(row["name"]) for row in found["means"])
    for row in found["means"]:
        word = "works" if row["works"] else "missing"
        detail = f" ({row['detail']})" if row["works"] and row["detail"] else ""
        coloured = click.style(word, fg="green" if row["works"] else "yellow") + " " * (7 - len(word))
        first = f"  {coloured}  {row['name']:{width}}  "
        _wrapped(f"{row['stops']}{detail}", first, 13 + width)
        if not row["works"]:
            _wrapped(f"{row['errno']} {row['detail']}".strip(), " " * (13 + width), 13 + width)
            without = f"{_WITHOUT[row['needed']]}; " if row["needed"] in _WITHOUT else ""
            _wrapped(f"{without}needed: {row['remedy']}", " " * (13 + width), 13 + width)
    click.echo("not stopped:")
    for line in found["not_stopped"]:
        _wrapped(line, "  - ", 4)


def _wrapped(text: str, first: str, indent: int) -> None:
    """A text behind what stands on its first line, its further lines set in."""
    room = max(24, shutil.get_terminal_size().columns - indent)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    click.echo(first + lines[0])
    for line in lines[1:]:
        click.echo(" " * indent + line)
