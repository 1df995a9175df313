"""B1, B2, B4, B6, B7, B8, B9, and what B3 and B5 ask of the host: hooks of plugins and hook files."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest

from eventcore import EventCore
from tests.acceptance.conftest import HomeFolder

CHATS = {"permissions": ["chat_access"]}


@pytest.mark.anyio
@pytest.mark.req("B1")
async def test_a_call_reaches_plugins_and_hook_files_and_is_recorded(home: HomeFolder) -> None:
    home.plugin("echo", 'async def on_message(message):\n    return {"text": "echo " + message["text"]}', **CHATS)
    home.write("hooks/greet.py", 'def on_message(message):\n    return {"text": "file " + message["text"]}')
    home.write("hooks/life.py", "def on_startup(about): ...\ndef on_shutdown(about): ...")
    async with EventCore(home.root) as core:
        await core.plugins.enable("echo", grants=["chat_access"])
        outcome = await core.hooks.call("on_message", {"text": "hi"})
        assert [reply["text"] for reply in outcome.replies] == ["echo hi", "file hi"]
        [recorded] = [event async for event in core.history.query(type="on_message")]
        assert recorded.data["text"] == "hi"
    async with EventCore(home.root) as core:
        life = [event.type async for event in core.history.query(type="on_*")]
    assert life == ["on_startup", "on_message", "on_shutdown", "on_startup"]


COMMANDER = """
def on_command(command, args):
    print(command)
    return {"text": f"{command} {args}"}
"""


@pytest.mark.anyio
@pytest.mark.req("B4")
async def test_only_the_declaring_plugin_gets_a_command(home: HomeFolder) -> None:
    home.plugin("mine", COMMANDER, commands=[{"name": "/myplugin", "description": "x", "usage": "/myplugin [args]"}])
    home.plugin(
        "other",
        'def on_command(command, args):\n    return {"error": "Unknown command"}',
        commands=[{"name": "/other", "description": "y", "usage": "/other"}],
    )
    async with EventCore(home.root) as core:
        await core.plugins.enable("mine")
        await core.plugins.enable("other")
        outcome = await core.hooks.command({"text": "/myplugin a b"})
    assert outcome.replies == [{"text": "/myplugin ['a', 'b']"}]
    assert [trace.handler for trace in outcome.trace] == ["mine.on_command"]


@pytest.mark.anyio
@pytest.mark.req("B7")
async def test_answers_are_explicit(home: HomeFolder) -> None:
    home.plugin(
        "spam",
        "from eventcore.sdk import Deny, gate\n@gate\ndef on_message(message):\n"
        '    return Deny("spam") if "buy" in message["text"] else None',
        **CHATS,
    )
    home.plugin("sloppy", "from eventcore.sdk import gate\n@gate\ndef on_message(message):\n    return False", **CHATS)
    home.plugin("echo", 'def on_message(message):\n    return {"text": "hi back"}', **CHATS)
    async with EventCore(home.root) as core:
        for name in ("spam", "sloppy", "echo"):
            await core.plugins.enable(name, grants=["chat_access"])
        stopped = await core.hooks.call("on_message", {"text": "buy now"})
        assert (stopped.denied, stopped.reason, stopped.replies) == (True, "spam", [])
        through = await core.hooks.call("on_message", {"text": "hello"})
        assert through.replies == [{"text": "hi back"}]
        errors = [event.data async for event in core.history.query(type="plugin_error")]
    assert [error["plugin"] for error in errors] == ["sloppy", "sloppy"]
    assert "not bool" in errors[-1]["error"]


@pytest.mark.anyio
@pytest.mark.req("B9")
async def test_a_plugin_that_sleeps_is_cut_off_and_the_others_answer(home: HomeFolder) -> None:
    home.plugin("sleepy", "import asyncio\nasync def on_message(message):\n    await asyncio.sleep(60)", **CHATS)
    home.plugin("zippy", 'def on_message(message):\n    return {"text": "here"}', **CHATS)
    home.write(
        "hooks/policy.py", "from eventcore.sdk import gate\n@gate\ndef on_message(message):\n    raise OSError('down')"
    )
    async with EventCore(home.root) as core:
        for name in ("sleepy", "zippy"):
            await core.plugins.enable(name, grants=["chat_access"])
        with anyio.fail_after(40):  # cut off after five seconds, not after its sixty
            outcome = await core.hooks.call("on_message", {"text": "hello"})
        assert outcome.replies == [{"text": "here"}]
        assert {trace.handler: trace.status for trace in outcome.trace}["sleepy.on_message"] == "timeout"
        errors = [event.data["plugin"] async for event in core.history.query(type="plugin_error")]
        assert "sleepy" in errors
        # The same failing gate with the policy tier fails closed.
        core.engine.hook_files.load("policy", home.root / "hooks/policy.py", policy=True)
        denied = await core.hooks.call("on_message", {"text": "hello"})
    assert denied.denied
    assert denied.by == "policy.on_message"


REPLIES = 'def on_message(message):\n    return {{"text": "{}"}}'


@pytest.mark.anyio
@pytest.mark.req("B2")
async def test_replies_come_in_the_order_that_explain_prints(home: HomeFolder) -> None:
    home.plugin("zebra", REPLIES.format("zebra"), **CHATS)
    home.plugin("ant", REPLIES.format("ant"), **CHATS)
    home.plugin("quiet", "def on_message(message):\n    return None", **CHATS)
    home.write(
        "hooks/rules.py",
        "from eventcore.sdk import Deny, Replace, filter, gate, observe, reply\nseen = []\n"
        '@gate("on_message")\ndef no_spam(m):\n    return Deny("spam") if "spam" in m["text"] else None\n'
        '@filter("on_message")\ndef note(m):\n    seen.append(m["text"])\n'
        '@observe("on_message")\ndef watch(m):\n    seen.append(m["text"])\n'
        '@reply("on_message", priority=5)\ndef first(m):\n    return {"text": "rules"}\n',
    )
    for name in ("zebra", "ant", "quiet"):
        home.run("plugins", "enable", name, "--grant", "chat_access")
    explained = home.json("hooks", "explain", "on_message")["handlers"]
    order = [one["plugin"] for one in explained if one["stage"] == "reply" and one["plugin"] != "quiet"]
    async with EventCore(home.root) as core:
        outcome = await core.hooks.call("on_message", {"text": "hello"})
        assert [reply["text"] for reply in outcome.replies] == order == ["rules", "ant", "zebra"]
        denied = await core.hooks.call("on_message", {"text": "spam"})
        assert (denied.denied, denied.replies) == (True, [])
        seen = core.engine.hook_files._modules["rules"].seen
        assert seen == ["hello", "hello"]


@pytest.mark.anyio
async def test_a_files_path_is_for_plugins_that_may_read_files(home: HomeFolder) -> None:
    code = "def on_file_upload(file):\n    return file"
    home.plugin("reader", code, permissions=["filesystem_read"])
    home.plugin("other", code)
    upload = {"name": "a.txt", "size": 3, "content_type": "text/plain", "sha256": "f" * 64, "path": "/tmp/a.txt"}
    async with EventCore(home.root) as core:
        await core.plugins.enable("reader", grants=["filesystem_read"])
        await core.plugins.enable("other")
        outcome = await core.hooks.call("on_file_upload", upload)
    replies = dict(zip(outcome.repliers, outcome.replies, strict=True))
    assert replies["reader.on_file_upload"].items() >= upload.items()
    assert "path" not in replies["other.on_file_upload"]
    assert replies["other.on_file_upload"]["sha256"] == "f" * 64


@pytest.mark.anyio
async def test_commands_are_listed_and_one_declared_twice_is_an_error(home: HomeFolder) -> None:
    command = {"name": "/myplugin", "description": "does it", "usage": "/myplugin [args]"}
    for name in ("one", "two"):
        home.plugin(name, COMMANDER, commands=[command])
    assert home.run("plugins", "enable", "one").returncode == 0
    clash = home.run("plugins", "enable", "two")
    assert clash.returncode != 0
    assert "/myplugin is declared by one and by two" in clash.stderr
    [listed] = home.json("hooks", "list")["commands"]
    assert listed == {"command": "/myplugin", "owner": "one", "description": "does it", "usage": "/myplugin [args]"}


@pytest.mark.anyio
@pytest.mark.req("B6")
async def test_other_functions_subscribe_and_a_slip_is_a_warning(home: HomeFolder) -> None:
    home.plugin(
        "watcher",
        "from eventcore.sdk import ctx\n"
        'async def on_workflow_started(event):\n    await ctx.emit("watcher.saw", {"slug": event.data["slug"]})',
        events={"emits": ["watcher.saw"]},
        permissions=["plugin_communication"],
    )
    home.plugin("slip", 'raise SystemExit("never run")\n\ndef on_mesage(message):\n    return None')
    home.write("workflows/tick.yaml", "slug: tick\nsteps:\n  - id: a\n    emit: ticked\n")
    done = home.run("plugins", "validate", "plugins/slip")
    assert done.returncode == 0
    assert "handler.py:3 warning: on_mesage: did you mean 'on_message'?" in done.stdout
    async with EventCore(home.root) as core:
        await core.plugins.enable("watcher", grants=["plugin_communication"])
        await core.workflows.start("tick")
        await core.drain()
        saw = [event.data async for event in core.history.query(type="watcher.saw")]
    assert saw == [{"slug": "tick"}]


@pytest.mark.req("B8")
def test_the_order_is_printed_with_its_reason_the_same_everywhere(home: HomeFolder, tmp_path: Path) -> None:
    home.settings('[hooks]\npolicy = ["house"]\nenabled = ["tidy-text"]\n')
    home.write("hooks/house.py", "from eventcore.sdk import gate\n@gate\ndef on_message(m): ...")
    home.write(
        "hooks/more.py",
        "from eventcore.sdk import gate, reply\n"
        '@gate("on_message", priority=5)\ndef strict(m): ...\n'
        '@gate("on_message", recheck=True)\ndef mild(m): ...\n'
        '@reply("on_message", before="echo")\ndef early(m): ...\n',
    )
    home.plugin("echo", REPLIES.format("echo"), folder="deep", **CHATS)
    home.run("plugins", "enable", "echo", "--grant", "chat_access")
    text = home.run("hooks", "explain", "on_message").stdout
    rows = home.json("hooks", "explain", "on_message")["handlers"]
    assert [(one["stage"], one["handler"], one["tier"], one["priority"], one["place"], one["why"]) for one in rows] == [
        ("gate", "house.on_message", "policy", 0, "hooks/house.py:2", "first of the stage gate"),
        ("gate", "more.strict", "plugin", 5, "hooks/more.py:2", "tier plugin comes after tier policy"),
        ("gate", "more.mild", "plugin", 0, "hooks/more.py:4", "priority 0 is lower than 5"),
        ("filter", "tidy-text.on_message", "plugin", 0, "catalogue/hooks/tidy_text.py:10", "first of the stage filter"),
        ("recheck", "more.mild", "plugin", 0, "hooks/more.py:4", "first of the stage recheck"),
        ("reply", "more.early", "plugin", 0, "hooks/more.py:6", "first of the stage reply"),
        (
            "reply",
            "echo.on_message",
            "plugin",
            0,
            "plugins/deep/echo/handler.py:1",
            "before/after puts it behind more.early",
        ),
    ]
    for one in rows:
        for fact in (one["handler"], f"tier {one['tier']}", f"priority {one['priority']}", one["plugin"], one["place"]):
            assert fact in text
    assert "before echo" in text
    elsewhere = HomeFolder(tmp_path / "another" / "place")
    shutil.copytree(home.root, elsewhere.root, ignore=shutil.ignore_patterns("*.sock", "control*"))
    assert elsewhere.run("hooks", "explain", "on_message").stdout == text


@pytest.mark.anyio
async def test_a_plugin_that_keeps_failing_is_degraded_and_stays_so_over_a_restart(home: HomeFolder) -> None:
    home.plugin("flaky", "def on_message(message):\n    raise ValueError('bug')", **CHATS)
    async with EventCore(home.root) as core:
        await core.plugins.enable("flaky", grants=["chat_access"])
        for _ in range(5):
            await core.hooks.call("on_message", {"text": "x"})
        assert core.plugins.get("flaky").state == "degraded"
        [event] = [event async for event in core.history.query(type="plugin_degraded")]
        assert event.data["plugin"] == "flaky"
    assert home.json("plugins", "info", "flaky")["state"] == "degraded"
    async with EventCore(home.root) as core:
        outcome = await core.hooks.call("on_message", {"text": "x"})
        assert [trace.status for trace in outcome.trace] == ["skipped"]
        await core.plugins.enable("flaky")
        outcome = await core.hooks.call("on_message", {"text": "x"})
        assert [trace.status for trace in outcome.trace] == ["error"]
        assert core.plugins.get("flaky").state == "enabled"
