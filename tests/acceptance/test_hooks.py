"""B1, B4, B7, B9: hooks of plugins and hook files."""

from __future__ import annotations

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
        with anyio.fail_after(15):
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
