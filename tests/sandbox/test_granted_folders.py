"""A folder that was granted is the folder that is granted: a worker may put a link in its place, and then end."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import EventCoreError, SandboxUnavailable
from tests.unit.outside import opened

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]

#: Its second folder lies in its first one, and not directly: what is mounted upon cannot be moved away.
MANIFEST: dict[str, Any] = {
    "permissions": ["filesystem_write", "system_access"],
    "resources": {"file_access": ["./", "./a/in"]},
    "entry_point": "run",
}
CODE = """
import os, signal
from eventcore.sdk import PluginError, ctx

async def run(params):
    if params["do"] == "link":
        os.rename("a", "b")
        os.symlink(params["to"], "a")
        return os.readlink("a")
    if params["do"] == "end":
        os._exit(1)
    if params["do"] == "cat":
        done = await ctx.run(["cat", params["to"] + "/in/secret.txt"])
        return done.text
    found = ""
    for folder in ("a/in", params["to"] + "/in"):
        try:
            found += open(folder + "/secret.txt").read()
        except OSError:
            pass
        try:
            open(folder + "/planted.txt", "w").close()
        except OSError:
            pass
    return found
"""


@pytest.fixture
def anyio_backend() -> str:
    """What is tested is the kernel."""
    return "asyncio"


async def _asked(core: EventCore, **params: Any) -> Any:
    with suppress(EventCoreError):
        return await core.plugins.run("asker", params, timeout=60)


@pytest.mark.parametrize("namespaces", [True, False], ids=["full", "reduced"])
async def test_a_link_in_the_place_of_a_granted_folder_leads_nowhere(
    tmp_path: Path, namespaces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not namespaces:
        from eventcore.plugins.sandbox.confined import Sandbox

        begin = Sandbox.__init__
        monkeypatch.setattr(Sandbox, "__init__", lambda self, **more: begin(self, **more | {"namespaces": False}))
    home, host = tmp_path / "home", tmp_path / "host"
    (host / "in").mkdir(parents=True)
    (host / "in" / "secret.txt").write_text("the host's")
    scope = {"programs": ["cat"]}
    async with opened(home, scope, code=CODE, manifest=MANIFEST, expect=None) as core:
        if core.plugins.get("asker").state != "enabled":
            pytest.skip(f"no such sandbox on this machine: {core.plugins.get('asker').reason}")
        assert await _asked(core, do="link", to=str(host)) == str(host)
        assert not await _asked(core, do="cat", to=str(host))
        await _asked(core, do="end")
        with pytest.raises(SandboxUnavailable, match="there is a link in the path"):
            await core.plugins.run("asker", {"do": "look", "to": str(host)}, timeout=60)
    assert os.listdir(host / "in") == ["secret.txt"]
