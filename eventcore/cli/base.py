"""What all commands share: their options, the form of their help, and groups that suggest the nearest command.

Imports click and nothing else: `eventcore --version` and `--help` load this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

OK, FAILED, USAGE, NO_HOME, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES = """\b
Exit codes:
  0    done
  1    what was asked for failed
  2    wrong usage or bad input
  3    there is no home, or it cannot be opened
  130  interrupted (Ctrl-C)
"""

#: Keys in click's `ctx.meta`, which all contexts of one invocation share.
HOME, JSON = "eventcore.home", "eventcore.json"


class Suggesting(click.Group):
    """A group that names the nearest command for one that is not there, and lists commands as they were written."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from eventcore.kernel.names import did_you_mean

            near = did_you_mean(name, self.list_commands(ctx))
            ctx.fail(f"there is no command {name!r}{near}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def examples(*lines: str) -> str:
    """The end of a command's help."""
    title = "Example:" if len(lines) == 1 else "Examples:"
    return "\b\n" + "\n".join([title, *(f"  {line}" for line in lines)])


def _remember(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:  # an option left out of a command must not undo the one given before the command
            ctx.meta[key] = value

    return callback


def home_option(function: F) -> F:
    """`--home PATH`, before or after the command's name."""
    return click.option(
        "--home",
        metavar="PATH",
        expose_value=False,
        is_eager=True,
        callback=_remember(HOME),
        help="The home to use; default EVENTCORE_HOME, then the nearest one at or above this folder.",
    )(function)


def json_option(function: F) -> F:
    """`--json`; also makes errors JSON, on stderr. The function gets `as_json`."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
        _remember(JSON)(ctx, parameter, value)
        return value

    return click.option(
        "--json", "as_json", is_flag=True, is_eager=True, callback=callback, help="Print JSON for programs."
    )(function)


def face(function: F) -> F:
    """The options of every command that works on a home. They stand last in its help."""
    return json_option(home_option(function))


def format_option(function: F) -> F:
    """`--format` of commands that draw a graph."""
    return click.option(
        "--format",
        type=click.Choice(["text", "mermaid", "svg"]),
        default="text",
        show_default=True,
        help="What to draw it as.",
    )(function)


class JsonText(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks only
    """JSON on the command line.

    Args:
        kind: `object` accepts only `{...}`; `value` accepts anything.
    """

    name = "json"

    def __init__(self, kind: str = "value") -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON: {error}. Put it in single quotes, as in '{{\"id\": 1}}'", param, ctx)
        if self.kind == "object" and not isinstance(decoded, dict):
            self.fail(f"should be a JSON object like '{{\"id\": 1}}', not {type(decoded).__name__}", param, ctx)
        return decoded
