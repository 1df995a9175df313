"""The command `eventcore` itself. It knows its commands by name and imports one when it is used."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from eventcore import __version__
from eventcore.cli.base import EXIT_CODES, INTERRUPTED, JSON, Suggesting, examples, home_option

#: Command -> (module with a `command`, the first line of its help). A test compares the lines with the modules' own.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Make a home: settings, hooks/, plugins/ and workflows/."),
    "chat": ("chat", "Talk to the hooks and plugins, and see what happens."),
    "run": ("run", "Call an intent and print its result."),
    "emit": ("emit", "Record an event, or one for each line of a file."),
    "events": ("events", "Look at what happened, and at what caused what."),
    "deadletters": ("deadletters", "Look at events that a subscription gave up on, and deliver them again."),
    "subscriptions": ("subscriptions", "Look at the places of durable subscriptions, and drop those of no use."),
    "plugins": ("plugins", "List, check, enable and disable plugins."),
    "memory": ("memory", "Search what is remembered, list it, forget it."),
    "sandbox": ("sandbox", "See what confines plugins on this machine."),
    "hooks": ("hooks", "See which handlers answer which hook, in order."),
    "workflows": ("workflows", "List, check and start workflows."),
    "backup": ("backup", "Copy everything recorded to a new file, while work goes on."),
    "restore": ("restore", "Bring a backup into an empty home."),
    "runs": ("runverbs", "Look at runs of workflows and their steps."),
    "approvals": ("approvals", "See what runs wait for your decision, and decide."),
    "schedules": ("schedules", "See when workflows start by the clock; pause that, or start one now."),
}


class Root(Suggesting):
    """The top of the command line: lazy, and the place where errors become messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"eventcore.cli.{COMMANDS[cmd_name][0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, OSError):
            raise
        except Exception as error:
            from eventcore.cli.failure import report

            code = report(error, as_json=ctx.meta.get(JSON, False))
            if code is None:
                raise
            raise click.exceptions.Exit(code) from None


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"eventcore {__version__}")
        ctx.exit()


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("eventcore init my-home", "cd my-home", "eventcore plugins enable hello-world", "eventcore chat")
    + "\n\n"
    + EXIT_CODES,
)
@home_option
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def root(ctx: click.Context) -> None:
    """An event bus, a hook and plugin host, and a workflow engine in one process.

    Commands work on a home: a folder with eventcore.toml. If an engine runs there, they talk to it; if not, they open
    the home for as long as they need.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a character gets an escape, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    root.main(prog_name="eventcore")
