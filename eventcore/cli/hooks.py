"""`eventcore hooks`."""

from __future__ import annotations

import click

from eventcore.cli.base import Suggesting, examples, face


@click.group(name="hooks", cls=Suggesting, epilog=examples("eventcore hooks list"))
def command() -> None:
    """See which handlers answer which hook, in order."""


@command.command("list", epilog=examples("eventcore hooks list", "eventcore hooks list --json"))
@face
def list_hooks(as_json: bool) -> None:
    """List hooks, their handlers in order, chat commands and hook files."""
    from eventcore.cli.output import clean, dim, fit, print_json, table, title
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("hooks.list")
    if as_json:
        print_json(found)
        return
    for hook in found["hooks"]:
        click.echo(f"{title(hook['hook'])}  {dim(fit(hook['doc'], len(hook['hook']) + 2))}")
        for number, handler in enumerate(hook["handlers"], 1):
            left = f"  {number}. {handler['stage']:<8}{clean(handler['handler'])}"
            click.echo(f"{left}  {dim(fit(clean(handler['why']), len(left) + 2))}")
    if found["commands"]:
        click.echo()
        rows = [(one["command"], one["owner"], one["usage"], one["description"]) for one in found["commands"]]
        table(("command", "plugin", "usage", "description"), rows, nothing="")
    if found["files"]:
        click.echo()
        files = [
            (one["slug"], ", ".join([*one["handlers"], *one["events"]]), one["error"] or one["path"])
            for one in found["files"]
        ]
        table(("hook file", "handlers", "path"), files, nothing="")
