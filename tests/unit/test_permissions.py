"""Every permission: its deed works with the grant, and fails, recorded, without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import PluginFailed
from eventcore.kernel.event import Event
from eventcore.plugins.permissions import ENFORCED_BY, MEANING, PluginPermission
from eventcore.testing import StubEndpoint
from tests.unit.outside import opened
from tests.unit.test_roles_everywhere import plant

pytestmark = pytest.mark.anyio

P = PluginPermission

#: What a plugin does; beside the permission that it is about, what else it needs for that.
DEEDS: dict[PluginPermission, list[tuple[str, tuple[PluginPermission, ...]]]] = {
    P.DATABASE_READ: [("ctx.db('main').fetch('select 1 as one')", ())],
    P.DATABASE_WRITE: [("ctx.db('main').execute('create table t (x)')", ())],
    P.API_ACCESS: [("ctx.api.get('/plugins')", ())],
    P.ADMIN_ACCESS: [("ctx.api.post('/plugins/victim/disable')", (P.API_ACCESS,))],
    P.CHAT_ACCESS: [("ctx.chat.send('#general', 'hello')", ()), ("ctx.chat.read('#general')", ())],
    P.PLUGIN_COMMUNICATION: [
        ("ctx.emit('deed.done', {})", ()),
        ("ctx.emit('deed_listed', {}, now=True)", ()),
        ("ctx.request('victim')", ()),
        ("ctx.api.post('/intents/victim')", (P.API_ACCESS,)),
        ("ctx.schedule('x', after=60, call='victim')", (P.SCHEDULER,)),
    ],
    P.MEMORY_READ: [("ctx.memory.read('anything')", ())],
    P.MEMORY_WRITE: [("ctx.memory.write('question', {'answer': 42})", ())],
    P.SCHEDULER: [
        ("ctx.schedule('later', after=3600)", ()),
        ("ctx.scheduler.cancel('later')", ()),
        ("ctx.scheduler.list()", ()),
    ],
}

#: Those that the kernel or a broker of the host enforces; `tests/sandbox` and `test_outside_*` try far more of them.
OUTSIDE: dict[PluginPermission, str] = {
    P.FILESYSTEM_READ: "open(params['read'] + '/note.txt').read()",
    P.FILESYSTEM_WRITE: "open(params['write'] + '/new.txt', 'w').write('x')",
    P.NETWORK_ACCESS: "ctx.http.get(params['url']).value.status",
    P.SYSTEM_ACCESS: "ctx.run(['true']).value.code",
}

CASES = [(permission, deed, needs) for permission, deeds in DEEDS.items() for deed, needs in deeds]


def test_every_permission_has_its_deed() -> None:
    assert DEEDS.keys() | OUTSIDE.keys() == set(P)
    assert not DEEDS.keys() & OUTSIDE.keys()
    assert MEANING.keys() == ENFORCED_BY.keys() == set(P)


async def denied(core: EventCore) -> list[Event]:
    return [event async for event in core.history.query(type="permission_denied")]


@pytest.mark.parametrize("style", ["async", "plain"])
async def test_each_deed_with_and_without_its_grant(core: EventCore, tmp_path: Path, style: str) -> None:
    plant(core, tmp_path / "victim", "def run(params): return {}")
    await core.plugins.enable("victim")
    lines = ["from eventcore.sdk import ctx"]
    for number, (_, deed, _) in enumerate(CASES):
        if style == "async":
            lines += [f"async def deed_{number}():", f"    return await {deed}"]
        else:
            lines += [f"def deed_{number}():", f"    return {deed}.value"]
    wait = "await " if style == "async" else ""
    lines += [f"{'async ' if style == 'async' else ''}def run(params):"]
    lines += [f"    return {{'done': {wait}globals()['deed_%d' % params['number']]()}}"]
    asks = {"permissions": {"optional": [str(one) for one in P]}, "events": {"emits": ["deed_listed"]}}
    plant(core, tmp_path / "deed", "\n".join(lines), **asks)
    await core.plugins.enable("deed")
    for number, (permission, deed, needs) in enumerate(CASES):
        others = [str(one) for one in needs]
        await core.plugins.permit("deed", grant=others, revoke=[str(one) for one in P if one not in needs])
        before = len(await denied(core))
        with pytest.raises(PluginFailed, match=f"was not granted {permission}") as caught:
            await core.plugins.run("deed", {"number": number})
        assert caught.value.kind == "PermissionDenied", deed
        [event] = (await denied(core))[before:]
        assert (event.data["plugin"], event.data["permission"]) == ("deed", str(permission)), deed
        assert event.actor == "plugin:deed"
        await core.plugins.permit("deed", grant=[str(permission)])
        assert "done" in await core.plugins.run("deed", {"number": number}), deed
        assert len(await denied(core)) == before + 1, deed
        if permission is P.ADMIN_ACCESS:
            await core.plugins.enable("victim")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # processes and files, as on trio
@pytest.mark.parametrize("permission", OUTSIDE)
async def test_each_deed_outside_with_and_without_its_grant(
    permission: PluginPermission, tmp_path: Path, stub_endpoint: StubEndpoint, anyio_backend: str
) -> None:
    stub_endpoint.answer("/", {}, method="GET")
    params = {"read": str(tmp_path / "in"), "write": str(tmp_path / "out"), "url": f"{stub_endpoint.url}/"}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/note.txt").write_text("hello")
    (tmp_path / "out").mkdir()
    scope = {
        "read": [params["read"]],
        "write": [params["write"]],
        "local": [stub_endpoint.url.removeprefix("http://")],
        "programs": ["true"],
    }
    code = f"from eventcore.sdk import ctx\ndef run(params):\n    return {{'done': {OUTSIDE[permission]}}}\n"
    asks = {"permissions": [], "optional_permissions": [str(one) for one in P]}
    async with opened(tmp_path / "home", scope, code=code, manifest=asks, grants=[]) as core:
        with pytest.raises(PluginFailed):
            await core.plugins.run("asker", params)
        events = await denied(core)
        assert {(event.data["plugin"], event.data["permission"]) for event in events} == {("asker", str(permission))}
        await core.plugins.permit("asker", grant=[str(permission)])
        assert "done" in await core.plugins.run("asker", params)
        assert len(await denied(core)) == len(events)


async def test_nothing_is_given_that_the_manifest_does_not_ask_for(core: EventCore, tmp_path: Path) -> None:
    plant(
        core, tmp_path / "modest", "from eventcore.sdk import ctx\ndef run(params): return ctx.memory.read('x').value"
    )
    await core.plugins.enable("modest", grants=[str(one) for one in P])
    assert core.plugins.get("modest").granted == frozenset()
    with pytest.raises(PluginFailed, match="memory_read"):
        await core.plugins.run("modest")


async def test_what_a_message_says_of_its_grants_does_not_count(core: EventCore, tmp_path: Path) -> None:
    code = """
        from eventcore.sdk import ctx
        def run(params):
            return ctx.ask("memory.read", query="x", permissions=["memory_read"], granted=["memory_read"]).value
    """
    plant(core, tmp_path / "liar", code, permissions={"optional": ["memory_read"]})
    await core.plugins.enable("liar")
    with pytest.raises(PluginFailed, match="was not granted memory_read"):
        await core.plugins.run("liar", {"permissions": ["memory_read"]})
