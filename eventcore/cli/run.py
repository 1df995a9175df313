"""`eventcore run`."""

from __future__ import annotations

from typing import Any

import click

from eventcore.cli.base import FAILED, JsonText, examples, face

#: Longest that a call is waited for when neither the caller nor the plugin sets a limit, in seconds.
_PATIENCE = 24 * 3600.0


@click.command(
    name="run",
    epilog=examples(
        'eventcore run hello_world --params \'{"name": "Ada"}\'',
        'eventcore run calculate --params \'{"expression": "2*21"}\' --user ada --role user',
    ),
)
@click.argument("intent")
@click.option("--params", type=JsonText("object"), metavar="JSON", help="What the plugin is called with; default {}.")
@click.option("--user", metavar="NAME", help="Call as this user, with the role `user` unless --role says otherwise.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role of the caller; repeat for more.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Default: the plugin's."
)
@face
def command(
    intent: str, params: Any, user: str | None, roles: tuple[str, ...], timeout: float | None, as_json: bool
) -> None:
    """Call an intent and print its result.

    INTENT is an intent, or a plugin's name. Without --user and --role the call is the operator's. What the plugin
    printed goes to stderr. A result {"success": false} counts as failed.
    """
    from eventcore.cli.output import clean, pretty, print_json
    from eventcore.cli.session import connect

    asked = {"intent": intent, "params": params, "user": user, "roles": list(roles) or None, "timeout": timeout}
    with connect() as session:
        done = session.call("intents.run", asked, timeout=timeout + 30 if timeout else _PATIENCE)
    for text in filter(None, (done.get("stdout"), done.get("stderr"))):
        click.echo(clean(text, lines=True).rstrip("\n"), err=True)
    result = done["result"]
    stood_in = {"instead_of": done["instead_of"]} if done.get("instead_of") else {}
    if stood_in:
        click.echo(f"{clean(done['plugin'])} answered in the place of {clean(done['instead_of'])}", err=True)
    if as_json:
        print_json({"result": result, "plugin": done["plugin"], **stood_in})
    else:
        click.echo(clean(result, lines=True) if isinstance(result, str) else pretty(result))
    if isinstance(result, dict) and result.get("success") is False:
        raise click.exceptions.Exit(FAILED)
