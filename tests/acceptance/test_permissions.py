"""F1, F2, F10, F11, F17, F18, B10, E10: what plugins and callers may do, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import AccessDenied, InvalidPayload, PluginFailed, RunFailed
from eventcore.plugins.permissions import PluginPermission
from tests.acceptance.conftest import HomeFolder, QuickHome


async def events(core: EventCore, type: str) -> list[Any]:
    return [event async for event in core.history.query(type=type)]


GREEDY = """
from eventcore.sdk import ctx

def run(params):
    return {"may": sorted(ctx.permissions)}
"""


@pytest.mark.req("F2")
def test_permissions_are_shown_granted_and_denied_later(quick: QuickHome) -> None:
    quick.plugin("greedy", GREEDY, permissions={"required": ["memory_read"], "optional": ["filesystem_read"]})
    refused = quick.run("plugins", "enable", "greedy")
    assert refused.returncode == 2
    assert "greedy needs memory_read" in refused.stderr
    assert "--grant memory_read" in refused.stderr
    quick.json("plugins", "enable", "greedy", "--grant", "memory_read", "--grant", "filesystem_read")
    assert quick.json("run", "greedy")["result"] == {"may": ["filesystem_read", "memory_read"]}
    shown = quick.json("plugins", "permissions", "greedy", "--deny", "filesystem_read")
    assert [(one["permission"], one["required"], one["status"]) for one in shown["permissions"]] == [
        ("filesystem_read", False, "denied"),
        ("memory_read", True, "granted"),
    ]
    assert quick.json("run", "greedy")["result"] == {"may": ["memory_read"]}
    quick.run("plugins", "permissions", "greedy", "--revoke", "memory_read")
    assert quick.json("plugins", "info", "greedy")["state"] == "disabled"
    assert "denied" in quick.run("plugins", "permissions", "greedy").stdout


ASKER = """
from eventcore.sdk import ctx

async def run(params):
    return await ctx.request("summarizer", {"text": params["text"]})
"""


@pytest.mark.anyio
@pytest.mark.req("F10")
async def test_plugins_talk_only_with_the_permission(home: HomeFolder) -> None:
    home.plugin("asker", ASKER, permissions={"optional": ["plugin_communication"]})
    home.plugin("summarizer", "def run(params):\n    return {'short': params['text'][:3]}\n")
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("asker")
            await core.plugins.enable("summarizer")
            with pytest.raises(PluginFailed, match="may not call summarizer"):
                await core.plugins.run("asker", {"text": "Rain."})
            [denied] = await events(core, "permission_denied")
            assert denied.data["permission"] == "plugin_communication"
            await core.plugins.permit("asker", grant=["plugin_communication"])
            assert await core.plugins.run("asker", {"text": "Rain."}) == {"short": "Rai"}


CHATTY = """
from eventcore.sdk import ctx

def on_command(command, args):
    ctx.chat.send("#general", " ".join(args))
    return {"text": "said"}

async def run(params):
    sent = await ctx.chat.send("#general", "hello")
    return {"sent": sent["id"], "said": [one["text"] for one in await ctx.chat.read("#general")]}

def on_message(message):
    return {"text": "heard"}
"""


@pytest.mark.anyio
@pytest.mark.req("B10")
async def test_chat_is_read_and_written_only_with_chat_access(home: HomeFolder) -> None:
    say = {"name": "/say", "description": "Say something", "usage": "/say WORDS"}
    home.plugin("chatty", CHATTY, permissions={"optional": ["chat_access"]}, commands=[say])
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("chatty")
            assert (await core.hooks.call("on_message", {"text": "anyone?"})).replies == []
            with pytest.raises(PluginFailed, match="was not granted chat_access"):
                await core.plugins.run("chatty")
            assert await events(core, "chat_sent") == []
            await core.plugins.permit("chatty", grant=["chat_access"])
            assert (await core.hooks.call("on_message", {"text": "now?"})).replies == [{"text": "heard"}]
            done = await core.plugins.run("chatty")
            assert done["said"] == ["anyone?", "now?", "hello"]
            [sent] = await events(core, "chat_sent")
            assert (sent.id, sent.data) == (
                done["sent"],
                {"channel": "#general", "text": "hello", "plugin": "chatty"},
            )
    assert "#general  chatty:  hello" in home.run("events", "list", "--type", "chat_sent").stdout
    assert "chat_sent  #general  chatty:  well well" in home.run("chat", stdin="/say well well\n").stdout


@pytest.mark.anyio
async def test_a_role_is_asked_for_on_every_path(home: HomeFolder) -> None:
    home.plugin(
        "vault",
        "def run(params):\n    return {}\ndef on_command(command, args):\n    return {'text': 'open'}\n",
        required_roles=["admin", "developer"],
        commands=[{"name": "/vault", "description": "Open", "usage": "/vault"}],
    )
    home.write("workflows/opening.yaml", "slug: opening\nsteps:\n  - id: open\n    plugin: vault\n")
    ada = caller("user:ada", ["user"])
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("vault")
            with pytest.raises(AccessDenied):
                await core.plugins.run("vault", context=ada)
            with pytest.raises(AccessDenied):
                await core.hooks.command({"text": "/vault"}, context=ada)
            run = await core.workflows.start("opening", context=ada)
            with pytest.raises(RunFailed, match="needs one of the roles"):
                await run.result(timeout=60)
            assert len(await events(core, "permission_denied")) == 3
            assert await core.plugins.run("vault", roles=["developer"]) == {}
    said = home.run("chat", "--user", "ada", stdin="/vault\n")
    assert "needs one of the roles admin, developer" in said.stdout
    assert home.run("run", "vault", "--role", "user").returncode == 1


ECHO = """
def run(params):
    return {'got': params['text']}

def on_message(message):
    return {'text': message['text']}
"""
TEXTS = [
    "{{ 7*7 }}",
    "<script>alert(1)</script>",
    "$(id)",
    "`id`",
    "'; drop table events; --",
    "{% raw %}",
    "%s%n",
    "\\u0000x",
]


@pytest.mark.anyio
@pytest.mark.req("F17")
async def test_a_parameter_is_text_everywhere(home: HomeFolder) -> None:
    home.plugin("echo", ECHO, permissions=["chat_access"])
    home.write(
        "workflows/parrot.yaml",
        "slug: parrot\ninputs: {type: object}\nsteps:\n  - id: say\n    plugin: echo\n"
        '    with: {text: "{{ inputs.text }}"}\noutputs: {got: "{{ steps.say.output.got }}"}\n'
        'triggers:\n  - event: parrot_asked\n    with: {text: "{{ event.data.text }}"}\n',
    )
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("echo", grants=["chat_access"])
            for text in TEXTS:
                assert await core.plugins.run("echo", {"text": text}) == {"got": text}
                run = await core.workflows.start("parrot", {"text": text})
                assert await run.result(timeout=60) == {"got": text}
                assert (await core.hooks.call("on_message", {"text": text})).replies == [{"text": text}]
                await core.bus.emit("parrot_asked", {"text": text})
            await core.drain()
            outputs = [event.data["output"] for event in await events(core, "workflow_completed")]
            assert sorted(one["got"] for one in outputs) == sorted(TEXTS * 2)
            huge = "x" * 100_000_000
            with pytest.raises(InvalidPayload, match="the limit is"):
                await core.plugins.run("echo", {"text": huge})
            core.plugins.intent("inside", lambda params: {})
            with pytest.raises(InvalidPayload, match="the limit is"):
                await core.plugins.run("inside", {"text": huge})
            assert await core.plugins.run("echo", {"text": "well"}) == {"got": "well"}


LEAKY = """
import sys
from eventcore.sdk import ctx

def run(params):
    key = ctx.config["api_key"]
    if params.get("how") == "raise":
        raise ValueError(f"cannot use {key} of /etc/secrets/app/key.pem")
    print("the key is", key)
    return {"key": key, key: ["in a key", key]}
"""


@pytest.mark.anyio
@pytest.mark.req("F18")
async def test_failures_are_short_for_users_and_whole_for_the_operator(quick: QuickHome, tmp_path: Path) -> None:
    secrets = quick.write("secrets.json", json.dumps({"KEY": 's3cr"et-value'}))
    secrets.chmod(0o600)
    quick.settings('[secrets]\nfile = "secrets.json"\n[plugins.settings.leaky]\napi_key = {secret = "KEY"}\n')
    quick.plugin("leaky", LEAKY)
    quick.json("plugins", "enable", "leaky")
    failed = quick.run("run", "leaky", "--params", '{"how": "raise"}', "--role", "user", "--json")
    assert failed.returncode == 1
    error = json.loads(failed.stderr)
    error = error.get("error", error)
    reference = error["details"]["reference"]
    assert error["message"].startswith("cannot use *** of key.pem")
    assert reference in error["message"]
    for hidden in ("s3cr", "Traceback", "/etc/secrets", "handler.py"):
        assert hidden not in failed.stderr + failed.stdout, hidden
    shown = quick.run("events", "show", reference).stdout
    assert "Traceback" in shown
    assert "handler.py" in shown
    assert "s3cr" not in shown
    whole = quick.run("run", "leaky", "--params", '{"how": "raise"}', "--role", "developer")
    assert "/etc/secrets/app/key.pem" in whole.stderr
    done = quick.run("run", "leaky", "--json")
    assert json.loads(done.stdout)["result"] == {"key": "***", "***": ["in a key", "***"]}
    assert done.stderr == "the key is ***\n"


def test_memory_from_the_terminal(quick: QuickHome) -> None:
    quick.plugin("task", "def run(params):\n    return {'task': params['what']}\n", intent="schedule_task")
    quick.json("plugins", "enable", "task")
    for what in ("wash up", "dry up"):
        quick.json("run", "schedule_task", "--params", json.dumps({"what": what}))
    assert [one["result"]["task"] for one in quick.json("memory", "search", "schedule")] == ["dry up", "wash up"]
    assert "dry up" in quick.run("memory", "list").stdout
    assert quick.run("memory", "purge").returncode == 2
    assert quick.json("memory", "purge", "--text", "wash") == {"forgotten": 1}
    assert quick.run("memory", "purge", "--all").stdout.strip() == "1 memory forgotten"


TRIES = {
    "filesystem_read": "open(params['home'] + '/eventcore.toml').read()",
    "filesystem_read ": "open('/etc/passwd').read()",
    "network_access": "__import__('socket').socket().connect(('127.0.0.1', 9))",
    "system_access": "__import__('subprocess').run(['id'], check=True)",
    "filesystem_write": "open(params['home'] + '/planted', 'w')",
    "plugin_communication": "ctx.emit('bare.thing', {}).value",
    "plugin_communication ": "ctx.request('other').value",
    "memory_read": "ctx.memory.read('x').value",
}


@pytest.mark.anyio
@pytest.mark.req("F1")
async def test_a_plugin_without_permissions_can_do_none_of_it(home: HomeFolder) -> None:
    assert PluginPermission("chat_access") is PluginPermission.CHAT_ACCESS
    body = "\n".join(
        f"    if params['try'] == {name!r}:\n        return {{'got': {code}}}" for name, code in TRIES.items()
    )
    home.plugin("bare", f"from eventcore.sdk import ctx\n\ndef run(params):\n{body}\n")
    home.plugin("other", "def run(params):\n    return {}\n")
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("bare")
            await core.plugins.enable("other")
            for name in TRIES:
                before = len(await events(core, "permission_denied"))
                with pytest.raises(PluginFailed):
                    await core.plugins.run("bare", {"try": name, "home": str(home.root)})
                refused = (await events(core, "permission_denied"))[before:]
                assert name.strip() in [event.data["permission"] for event in refused], name
                assert {event.data["plugin"] for event in refused} == {"bare"}
    assert not (home.root / "planted").exists()


ORDINARY = """
import asyncio, csv, json, logging, os, sqlite3, tempfile, time, zoneinfo
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent

async def pause():
    await asyncio.sleep(0)

def run(params):
    asyncio.run(pause())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.csv").write_text("a,b")
        sqlite3.connect(Path(folder, "x.db")).execute("create table t (x)")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(str, range(3)))
    zoneinfo.ZoneInfo("Europe/Berlin")
    return {"data": (HERE / "data.txt").read_text(), "here": os.listdir(HERE)}
"""


@pytest.mark.anyio
async def test_ordinary_code_is_not_told_as_refused(home: HomeFolder) -> None:
    home.plugin("plain", ORDINARY)
    home.write("plugins/plain/data.txt", "fine")
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("plain")
            assert (await core.plugins.run("plain"))["data"] == "fine"
            assert await events(core, "permission_denied") == []
