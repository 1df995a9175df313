"""The network, as an operator grants it: none, hosts, a rate; and no start where the kernel cannot enforce it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from eventcore.kernel.errors import PluginFailed, SandboxUnavailable
from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec
from tests.sandbox.tier import HERE, drive
from tests.unit.outside import opened, refusals
from tests.unit.test_outside_http import site

__all__ = ["site"]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]

CODE = """
import socket
from eventcore.sdk import PluginError, ctx

async def run(params):
    if "connect" in params:
        return socket.socket().connect(tuple(params["connect"]))
    try:
        return (await ctx.http.get(params["url"])).status
    except PluginError as error:
        return error.code
"""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of this test lead to the loopback."""
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        return real("127.0.0.1" if name.endswith(".example.com") else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.req("F4")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_network_is_off_unless_granted(tmp_path: Path, site: Any, names: None, anyio_backend: str) -> None:
    port = site.server_port
    none, listed = tmp_path / "none", tmp_path / "listed"
    none.mkdir()
    listed.mkdir()
    async with opened(none, {}, code=CODE, manifest={"permissions": []}) as core:
        with pytest.raises(PluginFailed, match="Operation not permitted"):
            await core.plugins.run("asker", {"connect": ["127.0.0.1", port]})

    # The manifest's own list narrows the grant; the operator says that this host's address may be a private one.
    manifest = {"permissions": {"network_access": [f"api.example.com:{port}"]}}
    scope = {"local": [f"api.example.com:{port}"], "requests_per_minute": 3}  # a fourth one comes 20 seconds later
    async with opened(listed, scope, code=CODE, manifest=manifest, grants=["network_access"]) as core:

        async def get(host: str) -> Any:
            return await core.plugins.run("asker", {"url": f"http://{host}:{port}/"})

        assert await get("other.example.com") == "permission_denied"
        assert [await get("api.example.com") for _ in range(4)] == [200, 200, 200, "rate_limited"]
        assert [row["host"] for row in await refusals(core)] == ["other.example.com"]
        assert 'plugin_http_requests_total{outcome="rate",plugin="asker"} 1.0' in core.metrics.text()

    masked = [str(HERE / "masked.py"), "landlock_create_ruleset", "--"]
    assert "refused" in drive("root-full", tmp_path, {"one": "1"}, {"ports": [port]}, before=masked)


def test_ports_need_rules_for_tcp(tmp_path: Path) -> None:
    row = {
        "name": "landlock tcp",
        "needed": "grant",
        "works": False,
        "errno": "",
        "detail": "ABI 3",
        "remedy": "Linux 6.7",
    }
    with pytest.raises(SandboxUnavailable, match="needs landlock tcp"):
        Machine(True, (row,)).check(WorkerSpec("asker", tmp_path, allow=Allowance(ports=(5432,))))
