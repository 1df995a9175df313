"""The container tier on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore.kernel.errors import Interrupted, PluginFailed, PluginTimeout
from eventcore.operations.table import perform
from tests.sandbox.podman import IMAGE, client, podman
from tests.sandbox.registry import registry
from tests.sandbox.sdk_alone import ALONE, TYPED, copied_sdk
from tests.unit.outside import opened

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, socket, sys, time
from eventcore.sdk import ctx
def run(params):
    return eval(params["do"])
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    # The engine refuses places with long names, which pytest's own may have.
    with (
        tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as folder,
        podman(Path(folder)) as socket,
    ):
        yield socket


def settings(engine: str, **more: Any) -> dict[str, Any]:
    return {
        "containers": {"socket": engine, "image": IMAGE, "stop_timeout": 3, **more},
        "sandbox": {"tier": "container"},
    }


def containers(engine: str) -> list[dict[str, Any]]:
    with client(engine) as http:
        found: list[dict[str, Any]] = http.get("/v1.41/containers/json", params={"all": "true"}).json()
        return found


@pytest.fixture(autouse=True)
def readable(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents):
        if place.is_relative_to("/tmp") and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | 0o055)


async def test_a_call_in_a_container(tmp_path: Path, engine: str) -> None:
    code = CODE + "async def on_order(event):\n    await ctx.emit('asker.seen', {'id': event.data['id']}, now=True)\n"
    manifest = {"permissions": ["plugin_communication"]}
    async with opened(tmp_path, {}, code=code, manifest=manifest, **settings(engine)) as core:
        assert await core.plugins.run("asker", {"do": "1 + 1"}) == 2
        done = await core.plugins.run_plugin("asker", {"do": "print('said') or os.getcwd()"}, {"user_id": "u"})
        assert done == ("/workspace", "said\n", "")
        with pytest.raises(PluginFailed, match="division by zero"):
            await core.plugins.run("asker", {"do": "1 / 0"})
        await core.bus.emit("order", {"id": 7})
        await core.drain()
        seen = [event.data async for event in core.history.query(type="asker.seen")]
        assert seen == [{"id": 7}]
        assert len(containers(engine)) == 1
    assert containers(engine) == []


async def test_what_a_container_is_kept_from(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "open-sesame")
    (tmp_path / "secret").write_text("no")
    tries = {
        "its code": "open('/workspace/handler.py', 'a')",
        "the root": "open('/new', 'w')",
        "our package": "open('/eventcore/eventcore/new', 'w')",
        "a host file": f"open('{tmp_path}/secret').read()",
        "the network": "socket.create_connection(('1.1.1.1', 53), 2)",
        "more rights": "os.setuid(0)",
        "a device": "os.mknod('/scratch/device', 0o20666, 0x101)",
        "too much disk": "open('/scratch/big', 'wb').write(bytes(20 << 20))",
    }
    async with opened(
        tmp_path, {}, code=CODE, manifest={"permissions": []}, **settings(engine) | _limits(disk_mb=8)
    ) as core:

        async def do(text: str) -> Any:
            return await core.plugins.run("asker", {"do": text})

        for what, text in tries.items():
            with pytest.raises(PluginFailed):
                raise AssertionError(f"{what}: {await do(text)}")
        assert await do("open('/scratch/x', 'w').write('hi')") == 2
        assert await do("[os.getuid(), os.getgid()]") == [65534, 65534] or os.geteuid() != 0
        status = await do("open('/proc/self/status').read()")
        rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {int(rows[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert rows["NoNewPrivs"] == "1"
        assert await do("sorted(n for n in os.listdir('/sys/class/net'))") == ["lo"]
        env = await do("dict(os.environ)")
        assert env["PLUGIN_ID"] == "asker"
        assert env["PLUGIN_CONFIG"] == "{}"
        assert "A_SECRET" not in env
        assert {*env} <= {
            "PATH",
            "LANG",
            "HOME",
            "TMPDIR",
            "TZ",
            "PLUGIN_ID",
            "PLUGIN_CONFIG",
            "PYTHONDONTWRITEBYTECODE",
        }


def _limits(**limits: Any) -> dict[str, Any]:
    return {"sandbox": {"tier": "container", **limits}}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_memory_time_and_crashes(tmp_path: Path, engine: str, anyio_backend: str) -> None:
    async with opened(
        tmp_path, {}, code=CODE, manifest={"permissions": []}, **settings(engine) | _limits(memory_mb=128)
    ) as core:

        async def do(text: str, timeout: float = 30) -> Any:
            return await core.plugins.run("asker", {"do": text}, timeout=timeout)

        with pytest.raises(Interrupted):
            await do("len([bytearray(os.urandom(1 << 20)) for _ in range(512)])")
        assert await do("2") == 2
        with pytest.raises(PluginTimeout):
            await do("time.sleep(60)", timeout=0.5)
        with pytest.raises(Interrupted, match="exited with code 3"):
            await do("os._exit(3)")
        assert await do("3") == 3
        await _until_gone(engine, but=1)


async def _until_gone(engine: str, but: int = 0) -> None:
    with anyio.fail_after(90):
        while len(containers(engine)) > but:
            await anyio.sleep(0.05)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.req("F15")
async def test_settings_stats_and_no_leftovers(tmp_path: Path, engine: str, anyio_backend: str) -> None:
    data = {"permissions": ["filesystem_write"]}
    async with opened(tmp_path, {}, code=CODE, manifest=data, **settings(engine) | _limits(memory_mb=256)) as core:
        assert await core.plugins.run("asker", {"do": "open('made', 'w').write('x')"}) == 1
        assert (tmp_path / ".eventcore/data/asker/made").read_text() == "x"
        [row] = containers(engine)
        assert row["Names"] == ["/plugin_asker"]
        with client(engine) as http:
            found = http.get(f"/v1.41/containers/{row['Id']}/json").json()
        host = found["HostConfig"]
        assert host["Memory"] == 256 << 20
        assert host["CpuShares"] == 1024
        assert host["NetworkMode"] == "none"
        assert host["ReadonlyRootfs"] is True
        assert host["PidsLimit"] == 64
        assert "no-new-privileges" in " ".join(host["SecurityOpt"])
        mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"]}
        assert mounts["/workspace"] is False
        env = dict(one.split("=", 1) for one in found["Config"]["Env"])
        assert (env["PLUGIN_ID"], env["PLUGIN_CONFIG"]) == ("asker", "{}")
        info = await perform(core.engine, "plugins.info", {"name": "asker"}, _send)
        [used] = info["containers"]["running"]
        assert used["memory_mb"] > 1
        assert used.keys() >= {"cpu_percent", "memory_mb", "bytes_in", "bytes_out"}
        assert info["sandbox"]["level"] == "container"
        await core.plugins.disable("asker")
        assert containers(engine) == []


async def _send(item: Any) -> None: ...


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.req("C20")
async def test_an_image_is_built_once_for_each_content_or_pulled(
    tmp_path: Path, engine: str, anyio_backend: str
) -> None:
    place = tmp_path / "plugins" / "asker"
    place.mkdir(parents=True)
    (place / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY handler.py /built.py\n")
    before = _images(engine)

    async def info(code: str, **more: Any) -> dict[str, Any]:
        manifest = {"permissions": [], **more}
        async with opened(tmp_path, {}, code=code, manifest=manifest, **settings(engine)) as core:
            # Opening the home has enabled the plugin, and so built or pulled its image: no call is needed for that.
            built = _images(engine)
            there: bool = await core.plugins.run("asker", {"do": "os.path.exists('/built.py')"})
            found: dict[str, Any] = (await perform(core.engine, "plugins.info", {"name": "asker"}, _send))["containers"]
            return {**found, "there": there, "images": built - before}

    first, again = await info(CODE), await info(CODE)
    assert first["image"].startswith("eventcore-plugin-asker:")
    assert (first["built"], first["there"], len(first["images"])) == (True, True, 1)
    assert again["images"] == first["images"]
    other = await info(CODE + "# changed\n")
    assert other["image"] != first["image"]
    assert len(other["images"]) == 2

    (place / "Dockerfile").unlink()
    with client(engine) as http:
        saved = http.get(f"/v1.41/images/{IMAGE}/get").raise_for_status().content
    with registry(saved) as (address, asked):
        name = f"{address}/test/python:1.0"
        pulled = await info(CODE, docker_image=name)
        assert (pulled["image"], pulled["built"], pulled["there"]) == (name, False, False)
        assert any("/manifests/1.0" in path for path in asked)
        asked.clear()
        assert (await info(CODE, docker_image=name))["image"] == name
        assert asked == []  # it is there


def _images(engine: str) -> set[str]:
    """Names and tags of the images that there are."""
    with client(engine) as http:
        return {tag for row in http.get("/v1.41/images/json").json() for tag in row["RepoTags"] or ()}


@pytest.mark.req("K4")
def test_a_plugin_needs_the_sdk_alone_typed_and_without_eventcore(tmp_path: Path, engine: str) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(ROOT / ".mypy_cache")]
    checked = subprocess.run(
        [*command, "typed.py"], capture_output=True, text=True, timeout=180, cwd=tmp_path, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr

    body = {
        "Image": IMAGE,
        "Cmd": ["/usr/bin/python3", "-I", "-S", "-c", f"import sys; sys.path.insert(0, '/sdk'); {ALONE}"],
        "HostConfig": {
            "NetworkMode": "none",
            "Ulimits": [{"Name": name, "Soft": 256, "Hard": 256} for name in ("nofile", "nproc")],
            "Binds": [f"{copied_sdk(tmp_path)}:/sdk:ro"],
        },
    }
    with client(engine) as http:
        made = http.post("/v1.41/containers/create", json=body).raise_for_status().json()["Id"]
        try:
            started = http.post(f"/v1.41/containers/{made}/start")
            assert not started.is_error, started.text
            assert http.post(f"/v1.41/containers/{made}/wait").json()["StatusCode"] == 0
            said = http.get(f"/v1.41/containers/{made}/logs", params={"stdout": "true"}).content
        finally:
            http.delete(f"/v1.41/containers/{made}", params={"force": "true"})
    reason, file, others = json.loads(said[said.index(b"[") :])
    assert (reason, others) == ("no", [])
    assert file.startswith("/sdk/eventcore/sdk/")


def test_a_host_that_is_killed_leaves_no_container(tmp_path: Path, engine: str) -> None:
    script = """
import anyio, os, sys
from pathlib import Path
from tests.sandbox.test_containers import CODE, settings
from tests.unit.outside import opened

async def main():
    async with opened(Path(sys.argv[1]), {}, code=CODE, manifest={"permissions": []}, **settings(sys.argv[2])) as core:
        await core.plugins.run("asker", {"do": "1"})
        print("up", flush=True)
        await core.plugins.run("asker", {"do": "time.sleep(600)"}, timeout=600)

anyio.run(main)
"""
    command = [sys.executable, "-c", script, str(tmp_path), engine]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"up\n"
        assert len(containers(engine)) == 1
        host.send_signal(signal.SIGKILL)
    anyio.run(_until_gone, engine)
