"""Grants that the operator changes while a plugin runs: at once, kept, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import InvalidInput, PluginFailed, UnknownIntent
from tests.unit.test_roles_everywhere import plant

pytestmark = pytest.mark.anyio

READER = """
    from eventcore.sdk import ctx
    def run(params): return {"may": sorted(ctx.permissions), "found": ctx.memory.read("x").value}
    def on_message(message): return {"text": "heard"}
"""
OPTIONAL = {"permissions": {"optional": ["memory_read", "chat_access"]}}


@pytest.fixture
async def reader(core: EventCore, tmp_path: Path) -> str:
    plant(core, tmp_path / "reader", READER, **OPTIONAL)
    await core.plugins.enable("reader", grants=["memory_read"])
    return "reader"


async def said(core: EventCore, type: str) -> list[dict[str, Any]]:
    return [event.data async for event in core.history.query(type=type)]


async def test_a_revoked_grant_ends_at_once(core: EventCore, reader: str) -> None:
    assert (await core.plugins.run(reader))["may"] == ["memory_read"]
    await core.plugins.permit(reader, revoke=["memory_read"])
    with pytest.raises(PluginFailed, match="was not granted memory_read") as caught:
        await core.plugins.run(reader)
    assert caught.value.kind == "PermissionDenied"
    [denied] = await said(core, "permission_denied")
    assert (denied["plugin"], denied["permission"]) == (reader, "memory_read")
    assert core.plugins.get(reader).state == "enabled"
    await core.plugins.permit(reader, grant=["memory_read"])
    assert (await core.plugins.run(reader))["found"] == []
    changes = [(data["granted"], data["revoked"]) for data in await said(core, "plugin_permissions_changed")]
    assert changes == [([], ["memory_read"]), (["memory_read"], [])]


async def test_a_call_that_runs_is_refused_what_was_taken_away(core: EventCore, tmp_path: Path) -> None:
    code = """
        import asyncio
        from eventcore.sdk import ctx
        async def run(params):
            await ctx.request("gate")
            return {"found": await ctx.memory.read("x")}
    """
    wants = ["memory_read", "plugin_communication"]
    plant(core, tmp_path / "slow", code, permissions={"optional": wants})
    await core.plugins.enable("slow", grants=wants)

    async def gate(params: dict[str, Any]) -> None:
        await core.plugins.permit("slow", revoke=["memory_read"])

    core.plugins.intent("gate", gate)
    with pytest.raises(PluginFailed, match="memory_read"):
        await core.plugins.run("slow")


async def test_on_message_comes_and_goes_with_chat_access(core: EventCore, reader: str) -> None:
    assert (await core.hooks.call("on_message", {"text": "hi"})).replies == []
    await core.plugins.permit(reader, grant=["chat_access"])
    assert (await core.hooks.call("on_message", {"text": "hi"})).replies == [{"text": "heard"}]
    await core.plugins.permit(reader, revoke=["chat_access"])
    assert (await core.hooks.call("on_message", {"text": "hi"})).replies == []


async def test_a_plugin_that_loses_what_it_needs_is_disabled(core: EventCore, tmp_path: Path) -> None:
    plant(core, tmp_path / "needy", "def run(params): return {}", permissions=["memory_write"])
    await core.plugins.enable("needy", grants=["memory_write"])
    await core.plugins.permit("needy", revoke=["memory_write"], context=caller("user:op", ["admin"]))
    record = core.plugins.get("needy")
    assert (record.state, record.reason) == ("disabled", "it needs memory_write, which was taken away")
    with pytest.raises(UnknownIntent, match="disabled"):
        await core.plugins.run("needy")
    with pytest.raises(InvalidInput, match="needs memory_write"):
        await core.plugins.enable("needy")
    await core.plugins.permit("needy", grant=["memory_write"])
    await core.plugins.enable("needy")  # what was granted is kept
    assert await core.plugins.run("needy") == {}


async def test_what_cannot_be_granted(core: EventCore, reader: str) -> None:
    with pytest.raises(InvalidInput, match="'memory_raed' is no permission; did you mean 'memory_read'"):
        await core.plugins.permit(reader, grant=["memory_raed"])
    with pytest.raises(InvalidInput, match="does not ask for admin_access; its manifest asks for chat_access, memory"):
        await core.plugins.permit(reader, grant=["admin_access"])
    with pytest.raises(InvalidInput, match="granted and revoked at once"):
        await core.plugins.permit(reader, grant=["memory_read"], revoke=["memory_read"])
    assert {str(one) for one in core.plugins.get(reader).granted} == {"memory_read"}


async def test_nothing_is_told_where_nothing_changes(core: EventCore, reader: str) -> None:
    await core.plugins.permit(reader, grant=["memory_read"])
    assert await said(core, "plugin_permissions_changed") == []


async def test_a_denied_permission_is_not_given_back_by_settings(core: EventCore, reader: str) -> None:
    lifecycle = core.plugins.lifecycle
    lifecycle._grants = {reader: ["chat_access", "memory_read"]}
    await core.plugins.permit(reader, revoke=["chat_access", "memory_read"])
    await core.plugins.disable(reader)
    await core.plugins.enable(reader)
    assert core.plugins.get(reader).granted == frozenset()
    await core.plugins.disable(reader)
    await core.plugins.enable(reader, grants=["chat_access"])
    assert {str(one) for one in core.plugins.get(reader).granted} == {"chat_access"}


async def test_the_audit_log_tells_who_changed_what(core: EventCore, reader: str) -> None:
    await core.plugins.permit(reader, revoke=["memory_read"], context=caller("user:op", ["admin"]))
    [entry] = [row for row in await core.engine.store.audit() if row.action == "plugin_permissions_changed"]
    assert (entry.actor, entry.target, entry.raw_old, entry.raw_new) == (
        "user:op",
        reader,
        b'{"granted":["memory_read"]}',
        b'{"granted":[],"denied":["memory_read"]}',
    )


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
async def test_decisions_survive_a_restart(tmp_path: Path, anyio_backend: str) -> None:
    (tmp_path / "eventcore.toml").write_text('[plugins.grants]\nreader = ["chat_access", "memory_read"]\n')
    with anyio.fail_after(60):
        async with EventCore(tmp_path) as core:
            plant(core, tmp_path / "plugins/reader", READER, **OPTIONAL)
            await core.plugins.enable("reader")
            await core.plugins.permit("reader", revoke=["memory_read"])
        async with EventCore(tmp_path) as core:
            record = core.plugins.get("reader")
            assert ({*map(str, record.granted)}, {*map(str, record.denied)}) == ({"chat_access"}, {"memory_read"})
            await core.plugins.disable("reader")
            await core.plugins.enable("reader")
            assert {*map(str, core.plugins.get("reader").granted)} == {"chat_access"}
