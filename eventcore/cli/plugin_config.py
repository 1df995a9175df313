"""`eventcore plugins config`."""

from __future__ import annotations

from typing import Any

import click

from eventcore.cli.base import examples, face


@click.command(
    "config",
    epilog=examples(
        "eventcore plugins config my-ai-plugin",
        "eventcore plugins config my-ai-plugin max_tokens 4096",
        "eventcore plugins config my-ai-plugin max_tokens --unset",
    ),
)
@click.argument("name")
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Forget what was set for KEY; the layer beneath it counts again.")
@face
def config(name: str, key: str | None, value: str | None, unset: bool, as_json: bool) -> None:
    """Show a plugin's settings, or set one.

    Without VALUE, the value and where it comes from. A value that was set holds over restarts, and is checked against
    the plugin's config_schema. A secret is named: '{"secret": "NAME"}'.
    """
    if unset and (key is None or value is not None):
        raise click.UsageError("--unset goes with KEY and without VALUE")
    if value is None and not unset:
        _show(name, key, as_json)
    else:
        _change({"name": name, "key": key, "text": value, "unset": unset or None}, as_json)


def _show(name: str, key: str | None, as_json: bool) -> None:
    from eventcore.cli.output import clean, print_json, table
    from eventcore.cli.session import connect

    with connect(quiet=True) as session:
        found = session.call("plugins.config", {"name": name, "key": key})
    if as_json:
        print_json(found)
        return
    rows = [(clean(one["key"]), _value(one), one["source"], _about(one)) for one in found["settings"]]
    table(("setting", "value", "from", "about"), rows, nothing=f"{clean(found['plugin'])} has no settings")


def _change(params: dict[str, Any], as_json: bool) -> None:
    from eventcore.cli.output import clean, print_json
    from eventcore.cli.session import connect

    with connect() as session:
        done = session.call("plugins.configure", params)
    if as_json:
        print_json(done)
        return
    one, plugin = done["setting"], clean(done["plugin"])
    if one is None:
        click.echo(f"{plugin} no longer has the setting {clean(str(params['key']))}")
        return
    click.echo(f"{plugin}: {clean(one['key'])} is {_value(one)} ({one['source']})")
    if one["source"].startswith("EVENTCORE_"):
        click.echo(f"the environment goes before what was set: {one['source']}", err=True)
    if done["state"] in ("disabled", "failed"):
        click.echo(f"{plugin} is {done['state']}: eventcore plugins enable {plugin}")


def _value(one: dict[str, Any]) -> str:
    from eventcore.cli.output import clean, compact

    return "" if one["source"] == "not set" else clean(compact(one["value"]))


def _about(one: dict[str, Any]) -> str:
    from eventcore.cli.output import clean

    words = [one["type"] or "", "required" if one["required"] else "", "secret" if one["secret"] else ""]
    described = ", ".join(word for word in words if word)
    return clean(f"{described}. {one['description']}" if one["description"] else described)
