"""A plugin that uses the whole SDK, and the SDK without the rest of us."""

from __future__ import annotations

import shutil
from pathlib import Path

import eventcore

#: Prints what it made of the SDK, where the SDK lies, and what else of ours is there.
ALONE = (
    "import importlib.util as look, json, eventcore.sdk as sdk; "
    "others = [one for one in ('pydantic', 'anyio', 'eventcore.bus', 'eventcore.plugins') if look.find_spec(one)]; "
    "print(json.dumps([sdk.Deny('no').reason, sdk.__file__, others]))"
)


def copied_sdk(folder: Path) -> Path:
    """A folder to import from, which holds the package `eventcore` with nothing but its SDK."""
    package, copy = Path(eventcore.__file__).parent, folder / "alone" / "eventcore"
    shutil.copytree(package / "sdk", copy / "sdk", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package / "__init__.py", copy)
    return copy.parent


TYPED = '''
"""Uses all of the SDK that plugins import, as strictly typed code."""

from typing import Any

from eventcore.sdk import Answer, Deny, Event, PluginError, Replace, Stop, ctx, filter, gate, observe, reply


class Typed:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    async def initialize(self) -> bool:
        ctx.log("info", "began")
        return True

    async def execute(self, params: dict[str, Any]) -> dict[str, Any]:
        receipt = await ctx.emit("typed.seen", {"n": 1})
        answer = await ctx.http.get("https://example.com", params={"q": "x"})
        done = await ctx.run(["sort"], input=b"b\\na")
        rows = await ctx.db("notes").fetch("select 1 as one")
        file = await ctx.file("out.txt")
        found = await ctx.memory.read("weather", limit=3)
        other = await ctx.request("summarizer", {"text": done.text})
        await ctx.schedule("reminder", after=60)
        page = await ctx.api.get("/plugins")
        if not answer.ok:
            raise PluginError("no answer")
        return {"receipt": receipt, "rows": rows, "file": file, "found": found, "other": other, "page": page}


@gate("on_message")
def check(message: Any) -> Deny | None:
    return Deny("no") if "bad" in message.text else None


@filter("on_message")
def change(message: Any) -> Replace | Stop | None:
    return None


@observe("on_startup")
async def begin() -> None:
    return None


async def on_order(event: Event) -> None:
    await ctx.emit("typed.order", {"id": event.id, "sum": event.data["sum"]})
'''
