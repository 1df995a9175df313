"""`eventcore hooks`."""

from __future__ import annotations

from typing import Any

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


@command.command("explain", epilog=examples("eventcore hooks explain on_message"))
@click.argument("hook")
@face
def explain(hook: str, as_json: bool) -> None:
    """Show in which order a hook's handlers are asked, and why.

    Each line names stage, handler, tier, relations, priority, plugin, file and line, and what put it behind the one
    before it.
    """
    from eventcore.cli.output import clean, dim, print_json, title
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("hooks.explain", {"hook": hook})
    if as_json:
        print_json(found)
        return
    click.echo(f"{title(found['hook'])}  {dim(clean(found['doc']))}")
    click.echo(dim(_rules(found)))
    for one in found["handlers"]:
        relations = [f"{word} {', '.join(one[word])}" for word in ("before", "after") if one[word]]
        facts = [
            f"tier {one['tier']}",
            *relations,
            f"priority {one['priority']}",
            f"plugin {one['plugin']}",
            one["place"],
        ]
        rests = "  (degraded: not asked)" if one["degraded"] else ""
        click.echo(f"  {one['order']}. {one['stage']:<8}{clean(one['handler'])}{rests}")
        click.echo(f"     {clean('; '.join(facts))}")
        click.echo(f"     {dim(clean(one['why']))}")
    if not found["handlers"]:
        click.echo("  nobody handles it")


def _rules(found: dict[str, Any]) -> str:
    return (
        f"mode {found['mode']}; {found['timeout']:g} s a handler, {found['budget']:g} s together; "
        f"on error {found['on_error']}; recorded {found['record']}"
    )


@command.command("reload", epilog=examples("eventcore hooks reload house-rules"))
@click.argument("name")
@face
def reload(name: str, as_json: bool) -> None:
    """Read a hook file again in the running engine.

    One that cannot be loaded is an error, and the code from before goes on.
    """
    from eventcore.cli.output import clean, print_json
    from eventcore.cli.session import connect

    with connect() as session:
        found = session.call("hooks.reload", {"name": name})
    if as_json:
        print_json(found)
        return
    click.echo(f"{clean(found['slug'])} handles {clean(', '.join([*found['handlers'], *found['events']]))}")
    if found["vanished"]:
        click.echo(f"  gone: {clean(', '.join(found['vanished']))}")
