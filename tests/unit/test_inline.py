"""The tier `inline`: by the operator's trust only, and what works there as in any other worker."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus.acks import Nak
from eventcore.kernel.errors import PluginFailed, PluginTimeout
from eventcore.kernel.settings import Settings
from tests.unit.test_roles_everywhere import plant

pytestmark = pytest.mark.anyio

WHERE = """
    import os
    def run(params): return {"pid": os.getpid()}
"""


@asynccontextmanager
async def engine(*trusted: str) -> AsyncIterator[EventCore]:
    settings = Settings.model_validate({"plugins": {"trusted": list(trusted)}})
    with anyio.fail_after(60):
        async with EventCore(settings=settings) as core:
            yield core


async def add(core: EventCore, folder: Path, code: str, *grants: str, **manifest: Any) -> None:
    plant(core, folder, code, permissions={"optional": list(grants)}, **{"sandbox": False, **manifest})
    await core.plugins.enable(folder.name, grants=grants)


@pytest.mark.parametrize(
    ("manifest", "trusted", "inside"),
    [
        ({"sandbox": False}, True, True),
        ({"sandbox": False}, False, False),
        ({"sandbox": True}, True, False),
        ({}, True, False),
        ({"sandbox": False, "sandbox_required": True}, True, False),
        ({"sandbox_required": False}, True, False),
    ],
)
async def test_only_wish_and_trust_together(
    tmp_path: Path, manifest: dict[str, Any], trusted: bool, inside: bool
) -> None:
    async with engine(*(["where"] if trusted else [])) as core:
        plant(core, tmp_path / "where", WHERE, **manifest)
        await core.plugins.enable("where")
        assert ((await core.plugins.run("where"))["pid"] == os.getpid()) is inside


async def test_ctx_is_checked_as_ever(tmp_path: Path) -> None:
    code = """
        from eventcore.sdk import ctx
        async def run(params):
            await ctx.memory.write("rain", {"n": 1})
            ctx.emit("insider.first", {}); ctx.emit("insider.second", {})
            return {"found": await ctx.memory.read("rain"), "may": sorted(ctx.permissions), "who": ctx.actor}
        def on_message(message):
            return {"text": str(len(ctx.memory.read("rain").value))}
    """
    grants = ("memory_read", "memory_write", "plugin_communication", "chat_access")
    async with engine("insider") as core:
        await add(core, tmp_path / "insider", code, *grants)
        done = await core.plugins.run("insider")
        assert (done["found"][0]["result"], done["may"], done["who"]) == ({"n": 1}, sorted(grants), "operator")
        events = [event.type async for event in core.history.query(type="insider.*")]
        assert events == ["insider.first", "insider.second"]
        assert (await core.hooks.call("on_message", {"text": "hi"})).replies == [{"text": "1"}]
        await core.plugins.permit("insider", revoke=["memory_write"])
        with pytest.raises(PluginFailed, match="was not granted memory_write") as caught:
            await core.plugins.run("insider")
        assert caught.value.kind == "PermissionDenied"
        assert len([event async for event in core.history.query(type="permission_denied")]) == 1


async def test_failures_and_odd_results(tmp_path: Path) -> None:
    code = """
        import asyncio, time
        from eventcore.sdk import TransientError
        def run(params):
            if params["do"] == "raise": raise ValueError("no good")
            if params["do"] == "later": raise TransientError("again")
            if params["do"] == "odd": return {"x": object()}
            if params["do"] == "change": params["list"].append(2); return {"list": params["list"]}
            if params["do"] == "hang": time.sleep(1)
            return {}
    """
    async with engine("odd") as core:
        await add(core, tmp_path / "odd", code)
        with pytest.raises(PluginFailed, match="no good") as caught:
            await core.plugins.run("odd", {"do": "raise"})
        assert (caught.value.kind, "handler.py" in (caught.value.trace or "")) == ("ValueError", True)
        with pytest.raises(PluginFailed, match="again") as caught:
            await core.plugins.run("odd", {"do": "later"})
        assert caught.value.details["transient"] is True
        with pytest.raises(PluginFailed, match="not JSON") as caught:
            await core.plugins.run("odd", {"do": "odd"})
        assert caught.value.kind == "ResultNotJSON"
        mine = [1]
        assert await core.plugins.run("odd", {"do": "change", "list": mine}) == {"list": [1, 2]}
        assert mine == [1]
        with pytest.raises(PluginTimeout, match="runs in the host"):
            await core.plugins.run("odd", {"do": "hang"}, timeout=0.1)
        assert await core.plugins.run("odd", {"do": "well"}) == {}


async def test_classes_events_and_cleanup(tmp_path: Path) -> None:
    code = """
        from pathlib import Path
        from eventcore.sdk import Nak
        from . import helper
        class Keeper:
            def __init__(self, config): self.log = config["log"]
            async def initialize(self): Path(self.log).write_text("begun ")
            def execute(self, params): return {"help": helper.word}
            def cleanup(self): Path(self.log).write_text(Path(self.log).read_text() + "ended")
        def on_thing_made(event):
            if event.data["n"] == 0: return Nak(5)
            return event.data["n"]
    """
    (tmp_path / "keeper").mkdir()
    (tmp_path / "keeper" / "helper.py").write_text("word = 'yes'")
    log = tmp_path / "log"
    settings = {"plugins": {"trusted": ["keeper"], "settings": {"keeper": {"log": str(log)}}}}
    before = set(sys.modules)
    with anyio.fail_after(60):
        async with EventCore(settings=Settings.model_validate(settings)) as core:
            folder = tmp_path / "keeper"
            import json
            import textwrap

            manifest = {"name": "keeper", "version": "1.0.0", "module": "handler", "class": "Keeper", "sandbox": False}
            (folder / "plugin_manifest.json").write_text(json.dumps(manifest))
            (folder / "handler.py").write_text(textwrap.dedent(code))
            core.plugins.registry.discover(str(folder), str(folder / "plugin_manifest.json"), None, "home", None)
            await core.plugins.enable("keeper")
            assert await core.plugins.run("keeper") == {"help": "yes"}
            report = await core.bus.emit_and_wait("thing_made", {"n": 7})
            assert [(one.status, one.value) for one in report] == [("ok", 7)]
            report = await core.bus.emit_and_wait("thing_made", {"n": 0})
            assert [one.status for one in report] == ["error"], Nak
            await core.plugins.disable("keeper")
            assert log.read_text() == "begun ended"
            assert not [name for name in set(sys.modules) - before if "keeper" in name]
            await core.plugins.enable("keeper")
            assert await core.plugins.run("keeper") == {"help": "yes"}


async def test_two_engines_share_nothing(tmp_path: Path) -> None:
    code = """
        count = 0
        def run(params):
            global count
            count += 1
            return {"count": count}
    """
    async with engine("counter") as one, engine("counter") as two:
        for core, name in ((one, "one"), (two, "two")):
            await add(core, tmp_path / name / "counter", code)
        counts = [(await core.plugins.run("counter"))["count"] for core in (one, two, one)]
        assert counts == [1, 1, 2]


async def test_info_says_so(tmp_path: Path) -> None:
    from eventcore.operations import perform

    async def send(item: Any) -> None: ...

    async with engine("where") as core:
        await add(core, tmp_path / "where", WHERE)
        assert (await perform(core.engine, "plugins.info", {"name": "where"}, send))["sandbox"]["level"] == "inline"
