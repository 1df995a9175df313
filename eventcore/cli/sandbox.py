"""`eventcore sandbox`."""

from __future__ import annotations

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


def _show(found: dict[str, Any]) -> None:
    from eventcore.cli.output import table, title

    rows = [
        (
            row["name"],
            "works" if row["works"] else "missing",
            row["needed"],
            row["stops"],
            row["detail"] if row["works"] else f"{row['errno']} {row['detail']}; needed: {row['remedy']}",
        )
        for row in found["means"]
    ]
    click.echo(f"{title('sandbox')}: {found['level']}")
    table(("means", "here", "needed", "stops", "detail"), rows, nothing="nothing was tried")
    click.echo("not stopped:")
    for line in found["not_stopped"]:
        click.echo(f"  {line}")
