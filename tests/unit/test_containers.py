"""The container tier against a stub engine that records every request; and what happens without an engine."""

from __future__ import annotations

import json
import os
import socketserver
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.kernel.outside import ContainerSettings
from eventcore.plugins.sandbox.container.images import default_image
from eventcore.plugins.sandbox.container.launcher import Containers
from eventcore.plugins.sandbox.container.process import ContainerProcess, Demux
from eventcore.plugins.sandbox.container.request import create_request, usage
from eventcore.plugins.sandbox.spec import Allowance, ContainerWish, WorkerSpec
from eventcore.plugins.sandbox.tiers import needs_container
from tests.unit.outside import opened

pytestmark = pytest.mark.anyio


class _Engine(BaseHTTPRequestHandler):
    """Knows one container, which says back what it is told, until it is stopped, killed or removed."""

    protocol_version = "HTTP/1.1"

    def _do(self) -> None:
        stub: Any = self.server
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/_ping":
            self._answer(200, b"OK", **{"Api-Version": "1.43"})
            return
        assert path.startswith("/v1.43/"), path
        name = path.removeprefix("/v1.43")
        parsed = json.loads(body) if body[:1] == b"{" else body
        stub.requests.append((self.command, name, {key: value[0] for key, value in query.items()}, parsed))
        if name.startswith("/images/") and name.endswith("/json"):
            known = name.removeprefix("/images/").removesuffix("/json") in stub.images
            self._answer(200 if known else 404, b"{}" if known else b'{"message": "no such image"}')
        elif name in ("/images/create", "/build"):
            self._answer(200, stub.work)
        elif name == "/containers/create":
            taken = query["name"][0] in stub.taken
            self._answer(409 if taken else 201, b'{"message": "taken"}' if taken else b'{"Id": "c0ffee"}')
        elif name.endswith("/attach"):
            self._attach(stub)
        elif name.endswith("/wait"):
            stub.ended.wait(60)
            self._answer(200, b'{"StatusCode": 137}')
        elif name.endswith("/json"):
            self._answer(200, b'{"State": {"Pid": 4711}}')
        elif name.endswith("/stats"):
            self._answer(200, json.dumps(STATS).encode())
        else:
            if not name.endswith("/start"):
                stub.ended.set()
            self._answer(204)

    do_GET = do_POST = do_DELETE = _do  # noqa: N815 - the base class looks for these names

    def _attach(self, stub: Any) -> None:
        self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        self.close_connection = True
        self.wfile.write(struct.pack(">BxxxI", 2, 5) + b"hello")
        while data := self.connection.recv(65_536):
            self.wfile.write(struct.pack(">BxxxI", 1, len(data)) + data)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "stub"

    def log_message(self, *args: Any) -> None: ...


class _Stub(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, place: str) -> None:
        super().__init__(place, _Engine)
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.images, self.taken, self.work = {"ours%3A1"}, set[str](), b'{"status": "done"}\n'
        self.ended = threading.Event()

    def names(self) -> list[str]:
        return [f"{method} {name}" for method, name, _, _ in self.requests]


STATS = {
    "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 1000},
    "memory_stats": {"usage": 5 << 20, "stats": {"inactive_file": 1 << 20}},
    "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 20}, "eth1": {"rx_bytes": 1, "tx_bytes": 2}},
}


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[_Stub]:
    with _Stub(str(tmp_path / "s")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.ended.set()
        server.shutdown()


def spec(folder: Path, *, write: tuple[str, ...] = ()) -> WorkerSpec:
    allow = Allowance(
        read=("/srv/in",), write=write, cwd="/srv/out", memory_mb=256, cpu_percent=50, disk_mb=8, threads=9
    )
    return WorkerSpec("reports", folder, config={"depth": 3}, allow=allow, version="v" * 40)


@asynccontextmanager
async def tier(folder: Path, **more: Any) -> AsyncIterator[Containers]:
    containers = Containers(ContainerSettings(socket=str(folder / "s"), **more))
    try:
        yield containers
    finally:
        await containers.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="the user differs for who is not root: run the tests as root")
def test_the_request_holds_exactly_these_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    body = create_request(spec(tmp_path, write=("/srv/out",)), ContainerWish(cpu_shares=512), "ours:1")
    package = body["HostConfig"]["Mounts"][1].pop("Source")
    assert (Path(package) / "sdk" / "__init__.py").exists()
    boot = "/eventcore/eventcore/plugins/sandbox/container/inside.py"
    assert (Path(package).parent / boot.removeprefix("/eventcore/")).exists()
    mounted = {"Type": "bind", "ReadOnly": True}
    assert body == {
        "Image": "ours:1",
        "Entrypoint": ["python3", "-I", "-B", boot],
        "Cmd": ["/eventcore", "PATH,LANG,HOME,TMPDIR,PYTHONDONTWRITEBYTECODE,PLUGIN_ID,PLUGIN_CONFIG"],
        "Env": [
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "LANG=C.UTF-8",
            "HOME=/scratch",
            "TMPDIR=/scratch",
            "PYTHONDONTWRITEBYTECODE=1",
            "PLUGIN_ID=reports",
            'PLUGIN_CONFIG={"depth": 3}',
        ],
        "User": "65534:65534",
        "WorkingDir": "/srv/out",
        "Labels": {"eventcore.plugin": "reports", "eventcore.tenant": "default", "eventcore.host": str(os.getpid())},
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [
                mounted | {"Source": str(tmp_path), "Target": "/workspace"},
                mounted | {"Target": "/eventcore/eventcore"},
                mounted | {"Source": "/srv/in", "Target": "/srv/in"},
                mounted | {"Source": "/srv/out", "Target": "/srv/out", "ReadOnly": False},
            ],
            "Tmpfs": {"/scratch": f"rw,noexec,nosuid,nodev,size={8 << 20},mode=1777"},
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "Memory": 256 << 20,
            "MemorySwap": 256 << 20,
            "CpuShares": 512,
            "NanoCpus": 500_000_000,
            "PidsLimit": 9,
            "Ulimits": [
                {"Name": "nofile", "Soft": 256, "Hard": 256},
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "nproc", "Soft": 4096, "Hard": 4096},
            ],
            "IpcMode": "private",
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": True,
        },
    }


def test_a_manifest_can_tighten_and_not_loosen(tmp_path: Path) -> None:
    tight = create_request(spec(tmp_path), ContainerWish(user="1000:1000", env=("PATH", "AWS_SECRET")), "i")
    assert tight["User"] == "1000:1000"
    assert [one.partition("=")[0] for one in tight["Env"]] == ["PATH", "PLUGIN_ID", "PLUGIN_CONFIG"]
    for name in ("root", "0", "0:0"):
        assert create_request(spec(tmp_path), ContainerWish(user=name), "i")["User"].partition(":")[0] not in (
            "0",
            "root",
        )
    assert create_request(spec(tmp_path), ContainerWish(network="bridge"), "i")["HostConfig"]["NetworkMode"] == "bridge"


async def test_the_life_of_a_container(tmp_path: Path, stub: _Stub) -> None:
    async with tier(tmp_path, image="ours:1", stop_timeout=10) as containers:
        process = await containers.start(spec(tmp_path), ContainerWish())
        try:
            assert (process.pid, process.inside) == (4711, {"dir": "/workspace", "paths": []})
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(process.hold)
                    assert await _said_back(process, b"x" * 100_000) == b"x" * 100_000
                    await anyio.wait_readable(process.output)
                    assert os.read(process.output, 100) == b"hello"
                    [used] = await containers.stats("reports")
                    assert await containers.stats("others") == []
                    await process.stop()
                    assert await process.wait() == -9
                    tasks.cancel_scope.cancel()
        finally:
            await process.close()
    assert used == {
        "container": "c0ffee",
        "image": "ours:1",
        "cpu_percent": 20.0,
        "memory_mb": 4.0,
        "bytes_in": 11,
        "bytes_out": 22,
    }
    assert stub.names() == [
        "GET /images/ours%3A1/json",
        "POST /containers/create",
        "POST /containers/c0ffee/attach",  # before the start, so that nothing is missed
        "POST /containers/c0ffee/start",
        "GET /containers/c0ffee/json",
        "GET /containers/c0ffee/stats",
        "POST /containers/c0ffee/stop",
        "POST /containers/c0ffee/wait",
        "DELETE /containers/c0ffee",
    ]
    queries = {name: query for _, name, query, _ in stub.requests}
    assert queries["/containers/create"] == {"name": "plugin_reports"}
    assert queries["/containers/c0ffee/stop"] == {"t": "10"}
    assert queries["/containers/c0ffee"] == {"force": "1", "v": "1"}


async def _said_back(process: ContainerProcess, data: bytes) -> bytes:
    heard, unsent = b"", memoryview(data)
    while len(heard) < len(data):
        if unsent:
            with suppress(BlockingIOError):
                unsent = unsent[process.sock.send(unsent) :]
        await anyio.wait_readable(process.sock)
        heard += process.sock.recv(65_536)
    return heard


async def test_a_name_that_is_taken(tmp_path: Path, stub: _Stub) -> None:
    stub.taken.add("plugin_reports")
    async with tier(tmp_path, image="ours:1") as containers:
        await (await containers.start(spec(tmp_path), ContainerWish())).close()
    names = [query["name"] for _, name, query, _ in stub.requests if name == "/containers/create"]
    assert names[0] == "plugin_reports"
    assert names[1].startswith("plugin_reports_")


@pytest.mark.parametrize(
    ("wish", "request_"),
    [
        (ContainerWish(), ("/images/create", {"fromImage": default_image()})),
        (ContainerWish(image="their/own"), ("/images/create", {"fromImage": "their/own:latest"})),
        (
            ContainerWish(dockerfile=True),
            ("/build", {"t": f"eventcore-plugin-reports:{'v' * 32}", "rm": "1", "forcerm": "1"}),
        ),
    ],
)
async def test_an_image_that_is_not_there(
    tmp_path: Path, stub: _Stub, wish: ContainerWish, request_: tuple[str, dict[str, str]]
) -> None:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "Dockerfile").write_text("FROM scratch\n")
    async with tier(tmp_path) as containers:
        await (await containers.start(spec(tmp_path / "plugin"), wish)).close()
    [(_, name, query, body)] = [one for one in stub.requests if one[1] in ("/images/create", "/build")]
    assert (name, query) == request_
    assert (b"FROM scratch" in body) == (name == "/build")
    stub.work = b'{"status": "pulling"}\n{"error": "there is no such thing"}\n'
    async with tier(tmp_path) as containers:
        with pytest.raises(SandboxUnavailable, match="failed: there is no such thing"):
            await containers.start(spec(tmp_path / "plugin"), wish)


def test_the_engines_stream_in_pieces() -> None:
    data = struct.pack(">BxxxI", 1, 3) + b"abc" + struct.pack(">BxxxI", 2, 2) + b"de" + struct.pack(">BxxxI", 1, 0)
    for size in range(1, len(data) + 1):
        demux, out, err = Demux(), b"", b""
        for start in range(0, len(data), size):
            for stdout, part in demux.feed(data[start : start + size]):
                out, err = (out + part, err) if stdout else (out, err + part)
        assert (out, err) == (b"abc", b"de")


def test_usage_that_an_engine_does_not_tell() -> None:
    assert usage({}) == {"cpu_percent": 0.0, "memory_mb": 0.0, "bytes_in": 0, "bytes_out": 0}
    assert usage({"networks": None, "cpu_stats": {"cpu_usage": None}, "precpu_stats": {}})["cpu_percent"] == 0.0


CODE = "def run(params):\n    return 'ran'\n"


@pytest.mark.req("F16")
async def test_without_an_engine(tmp_path: Path) -> None:
    nowhere = {"socket": str(tmp_path / "nowhere")}

    async def enabled(name: str, fallback: bool, **manifest: Any) -> tuple[str, str, list[dict[str, Any]]]:
        home = tmp_path / name
        home.mkdir()
        place = home / "plugins" / "asker"
        place.mkdir(parents=True)
        more = {"containers": nowhere | {"fallback": fallback}, "sandbox": {"tier": "container"}}
        async with opened(home, {}, code=CODE, manifest={"permissions": [], **manifest}, expect=None, **more) as core:
            record = core.plugins.get("asker")
            if record.enabled:
                assert await core.plugins.run("asker") == "ran"
            told = [event.data async for event in core.history.query(type="plugin_fallback")]
            return record.state, record.reason or "", told

    state, reason, told = await enabled("refused", False)
    assert state == "failed"
    assert f"no container engine answers at {nowhere['socket']}" in reason
    assert "the fallback is not allowed" in reason
    assert told == []
    state, reason, told = await enabled("allowed", True)
    assert (state, reason) == ("enabled", "")
    [notice] = told  # once, however often its worker starts
    assert (notice["plugin"], notice["tier"]) == ("asker", "process")
    state, reason, told = await enabled("needs", True, docker_image="their/own:1")
    assert state == "failed"
    assert "only a container gives it the image their/own:1" in reason


def test_what_only_a_container_gives() -> None:
    assert needs_container(ContainerWish(working_dir="/x", env=("PATH",))) == []
    wish = ContainerWish(image="i", network="bridge", user="1000", cpu_shares=512)
    assert needs_container(wish) == ["the image i", "the network bridge", "the user 1000", "CPU shares of 512"]
    assert needs_container(ContainerWish(dockerfile=True, image="i")) == ["a Dockerfile"]


async def test_what_is_no_engine(tmp_path: Path) -> None:
    for place in ("tcp://127.0.0.1:1", "unix:///nowhere", str(tmp_path)):
        containers = Containers(ContainerSettings(socket=place))
        with pytest.raises(SandboxUnavailable, match="no container engine answers"):
            await containers.start(spec(tmp_path), ContainerWish())
        await containers.close()
