"""System commands for the chat: `/help`, `/memory`, `/purge`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from eventcore.sdk import PermissionDenied, ctx

MAX_SHOWN = 10
MAX_LINE = 200


async def run(params: dict[str, Any]) -> dict[str, Any]:
    """Answer the command in `params["command"]`, such as `/help`, with the words in `params["args"]`."""
    return await on_command(str(params.get("command", "/help")), [str(word) for word in params.get("args") or ()])


async def on_command(command: str, args: list[str]) -> dict[str, Any]:
    """Answer one of the commands."""
    answer = _COMMANDS.get(command)
    if answer is None:
        return {"text": f"There is no command {command[:40]}; /help lists them", "error": "unknown_command"}
    try:
        return await answer(" ".join(args))
    except PermissionDenied:
        return {"text": f"You may not use {command}", "error": "denied"}


async def _help(_: str) -> dict[str, Any]:
    """Every command, with its description."""
    commands = (await ctx.api.get("/hooks"))["commands"]
    lines = [f"{one['usage'] or one['command']}: {one['description']}" for one in commands]
    return {"text": "\n".join(lines), "commands": [one["command"] for one in commands]}


async def _memory(text: str) -> dict[str, Any]:
    """What is remembered, or what of it holds every word of the text."""
    found = await ctx.memory.read(text, limit=MAX_SHOWN)
    lines = [f"{one['query']}: {json.dumps(one['result'], ensure_ascii=False)}"[:MAX_LINE] for one in found]
    return {"text": "\n".join(lines) or "Nothing is remembered of that", "found": len(found)}


async def _purge(_: str) -> dict[str, Any]:
    """Forget all that is remembered for this tenant. The host lets admins do it, and no one else."""
    done = await ctx.api.post("/memory/purge", {"everything": True})
    count = done["forgotten"]
    return {"text": f"{count} memories are forgotten", "forgotten": count}


_COMMANDS: dict[str, Callable[[str], Awaitable[dict[str, Any]]]] = {
    "/help": _help,
    "/memory": _memory,
    "/purge": _purge,
}
