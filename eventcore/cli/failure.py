"""Errors as messages and exit codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from eventcore.cli.base import FAILED, NO_HOME, USAGE
from eventcore.cli.output import clean
from eventcore.kernel.errors import EventCoreError

#: Error code -> exit code; what is not here is 1.
_EXIT: dict[str, int] = {
    **dict.fromkeys(("invalid_input", "invalid_name", "invalid_payload", "expression_error"), USAGE),
    **dict.fromkeys(("home_error", "home_in_use", "invalid_settings", "store_error", "store_closed"), NO_HOME),
    **dict.fromkeys(("engine_not_running", "wrong_process", "busy"), NO_HOME),
}


def report(error: BaseException, *, as_json: bool) -> int | None:
    """Print an error of ours on stderr and return the exit code; None for any other exception.

    What a failing plugin printed is shown before the error.
    """
    if not isinstance(error, EventCoreError):
        return None
    body = error.as_dict()
    if as_json:
        click.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
    else:
        printed: Mapping[str, Any] = getattr(error, "output", None) or {}
        for text in filter(None, printed.values()):
            click.echo(clean(str(text), lines=True).rstrip("\n"), err=True)
        say(body)
    return _EXIT.get(error.code, FAILED)


def say(body: Mapping[str, Any]) -> None:
    """Print an error's JSON for people: what is wrong, and on the next line what to do."""
    message = clean(str(body.get("message") or body.get("code") or "it failed"), lines=True)
    label = click.style("error:", fg="red", bold=True)
    click.echo(f"{label} {message}", err=True)
    if body.get("hint"):
        click.echo(f"{click.style('  try:', fg='cyan')} {clean(str(body['hint']))}", err=True)
