"""The commands by themselves. `eventcore plugins test meta` runs these."""

from __future__ import annotations

import pytest
from meta.main import on_command, run

from eventcore.testing import plugin_context

COMMANDS = [
    {"command": "/greet", "usage": "/greet NAME", "description": "Greet somebody"},
    {"command": "/help", "usage": "", "description": "List the commands"},
]


@pytest.mark.asyncio
async def test_help():
    with plugin_context(answers={"api": {"commands": COMMANDS}}) as host:
        answer = await on_command("/help", [])
    assert answer["text"] == "/greet NAME: Greet somebody\n/help: List the commands"
    assert host.asked[0][1]["path"] == "/hooks"


@pytest.mark.asyncio
async def test_memory(plugin_ctx):
    plugin_ctx.memories.append({"query": "weather", "result": {"sky": "blue"}})
    assert (await on_command("/memory", ["blue"]))["text"] == 'weather: {"sky": "blue"}'
    assert (await on_command("/memory", ["green"]))["found"] == 0


@pytest.mark.asyncio
async def test_purge_and_its_refusal():
    with plugin_context(answers={"api": {"forgotten": 3}}):
        assert (await run({"command": "/purge"}))["forgotten"] == 3
    with plugin_context(denied=("api",)):
        assert (await on_command("/purge", []))["error"] == "denied"


@pytest.mark.asyncio
async def test_an_unknown_command(plugin_ctx):
    assert (await on_command("/nothing", []))["error"] == "unknown_command"
