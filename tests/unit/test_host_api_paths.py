"""The host's API for plugins: paths, roles, and what no plugin may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventcore import EventCore
from eventcore.kernel.context import CallContext, caller
from eventcore.kernel.errors import InvalidInput, NotFound, PluginFailed
from eventcore.operations import OPERATIONS
from eventcore.operations.api import ROUTES, ApiPaths
from tests.unit.test_roles_everywhere import plant

pytestmark = pytest.mark.anyio

CODE = """
    from eventcore.sdk import ctx
    def run(params):
        return {"answer": getattr(ctx.api, params["method"])(params["path"], params.get("body")).value}
"""


@pytest.fixture
async def clerk(core: EventCore, tmp_path: Path) -> str:
    plant(core, tmp_path / "clerk", CODE, permissions=["api_access", "admin_access", "plugin_communication"])
    plant(core, tmp_path / "other", "def run(params): return {'roles': params['user_context']['roles']}")
    await core.plugins.enable("clerk", grants=["api_access", "admin_access", "plugin_communication"])
    await core.plugins.enable("other")
    return "clerk"


async def ask(core: EventCore, method: str, path: str, body: Any = None, roles: tuple[str, ...] = ("user",)) -> Any:
    params = {"method": method, "path": path, "body": body}
    return (await core.plugins.run("clerk", params, context=caller("user:ada", roles)))["answer"]


@pytest.mark.req("F7")
async def test_reading_and_administering(core: EventCore, clerk: str) -> None:
    names = [row["slug"] for row in await ask(core, "get", "/plugins")]
    assert {"clerk", "other"} <= set(names)
    assert [row["slug"] for row in await ask(core, "get", "/api/plugins?status=enabled")] == ["clerk", "other"]
    assert (await ask(core, "get", "/plugins/other"))["state"] == "enabled"
    await core.plugins.disable("clerk")
    await core.plugins.enable("clerk")
    assert (await ask(core, "post", "/plugins/other/disable", roles=("admin",)))["state"] == "disabled"
    await ask(core, "post", "/plugins/other/enable", roles=("admin",))
    record = core.plugins.get("clerk")
    record.granted -= {one for one in record.granted if str(one) == "admin_access"}
    with pytest.raises(PluginFailed, match="was not granted admin_access"):
        await ask(core, "post", "/plugins/other/disable", roles=("admin",))
    assert await ask(core, "get", "/plugins", roles=("admin",))
    assert core.plugins.get("other").state == "enabled"


async def test_the_callers_roles_hold(core: EventCore, clerk: str) -> None:
    with pytest.raises(PluginFailed, match=r"POST /plugins/\{name\}/disable needs one of the roles admin, operator"):
        await ask(core, "post", "/plugins/other/disable")
    assert core.plugins.get("other").state == "enabled"
    with pytest.raises(PluginFailed, match="GET /events needs one of the roles"):
        await ask(core, "get", "/events")
    assert await ask(core, "get", "/events", {"limit": 3}, roles=("developer",))
    with pytest.raises(PluginFailed, match="needs one of the roles"):
        await ask(core, "get", "/plugins", roles=())
    done = await ask(core, "post", "/intents/other", {"params": {}}, roles=("user", "auditor"))
    assert done["result"] == {"roles": ["auditor", "user"]}
    refused = [event async for event in core.history.query(type="permission_denied")]
    assert len(refused) == 3


@pytest.mark.parametrize("said", ["user", "roles", "grants"])
async def test_nobody_says_for_himself_who_he_is(core: EventCore, clerk: str, said: str) -> None:
    with pytest.raises(PluginFailed, match=f"takes no {said} from a plugin"):
        await ask(core, "post", "/intents/other", {said: ["admin"]})


async def test_no_plugin_changes_permissions(core: EventCore, clerk: str) -> None:
    for method, path in (("post", "/plugins/clerk/permissions"), ("get", "/plugins/clerk/permissions")):
        with pytest.raises(PluginFailed, match="the API has no"):
            await ask(core, method, path, roles=("admin",))
    assert not [route for route in ROUTES if route.operation == "plugins.permissions"]


async def test_what_no_path_is(core: EventCore) -> None:
    api = ApiPaths(core.engine)
    assert api.find("GET", "/plugins/", {}).title == "GET /plugins"
    for method, path in (("GET", "/plugin"), ("POST", "/plugins"), ("DELETE", "/plugins/x"), ("GET", "")):
        with pytest.raises(NotFound, match="the API has no"):
            api.find(method, path, {})
    with pytest.raises(InvalidInput):
        await api.find("GET", "/plugins", {"nonsense": 1}).perform(CallContext())


def test_every_route_is_an_operation_that_changes_only_by_post() -> None:
    for route in ROUTES:
        assert route.operation in OPERATIONS
        assert (route.method == "GET") is (route.needs is None), route.title
        assert str(route.needs) != "admin_access" or "user" not in route.roles, route.title
