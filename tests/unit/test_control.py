"""The control socket, over real sockets, under asyncio and trio."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from eventcore.home import control_client
from eventcore.home.control import ControlClient, ControlServer
from eventcore.home.control_client import EngineNotRunning, socket_path
from eventcore.home.control_connection import SendItem
from eventcore.home.lock import OwnerLock, read_owner
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import HomeError, InvalidInput, InvalidPayload, NotFound, RemoteError

pytestmark = pytest.mark.anyio

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def state() -> Iterator[Path]:
    # Not tmp_path: its names are longer than a socket address may be.
    folder = Path(tempfile.mkdtemp(prefix="ec-"))
    yield folder
    shutil.rmtree(folder)


class Engine:
    """What answers in these tests."""

    def __init__(self) -> None:
        self.started = anyio.Event()
        self.cancelled = anyio.Event()
        self.release = anyio.Event()
        self.running = 0

    async def handle(self, op: str, params: dict[str, Any], send_item: SendItem) -> Any:
        return await getattr(self, op)(params, send_item)

    async def echo(self, params: dict[str, Any], _: SendItem) -> Any:
        return params

    async def missing(self, _params: dict[str, Any], _: SendItem) -> Any:
        raise NotFound("there is no run r-1", hint="list them", run="r-1")

    async def broken(self, _params: dict[str, Any], _: SendItem) -> Any:
        raise ZeroDivisionError("oh")

    async def count(self, params: dict[str, Any], send_item: SendItem) -> Any:
        for number in range(params["to"]):
            await send_item({"n": number})
        return "done"

    async def size(self, params: dict[str, Any], _: SendItem) -> Any:
        return "x" * params["bytes"]

    async def not_json(self, params: dict[str, Any], send_item: SendItem) -> Any:
        if params.get("item"):
            await send_item(object())
        return object()

    async def wait(self, _params: dict[str, Any], send_item: SendItem) -> Any:
        self.running += 1
        self.started.set()
        try:
            await send_item("waiting")
            await self.release.wait()
        except BaseException:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1
        return "released"

    async def flood(self, _params: dict[str, Any], send_item: SendItem) -> Any:
        self.started.set()
        try:
            while True:
                await send_item("x" * 100_000)
        finally:
            self.cancelled.set()


@pytest.fixture
def engine(anyio_backend: str) -> Engine:
    return Engine()


@asynccontextmanager
async def serving(state: Path, engine: Engine, **options: Any) -> AsyncIterator[Path]:
    async with anyio.create_task_group() as tasks:
        server = ControlServer(state / "control.sock", engine.handle, **options)
        address = await tasks.start(server.run)
        with anyio.fail_after(60):
            yield address
        tasks.cancel_scope.cancel()


#: Time limits to try, in turn: the first does, unless the machine stands still before the request is there.
LIMITS = (0.05, 1.0, 10.0)


async def connected(address: Path, first: bytes) -> anyio.abc.SocketStream:
    """A connection on which something was sent before the server, which runs in this thread, can look at it."""
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(str(address))
    stream.sendall(first)
    return await anyio.abc.UNIXSocketStream.from_socket(stream)


def frame(body: Any) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return struct.pack(">I", len(raw)) + raw


async def answer(stream: anyio.abc.SocketStream) -> Any:
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        # One byte at a time would be slow, more than one frame is not expected.
        data += await stream.receive()
    return json.loads(data[4:])


async def test_a_call(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        client = ControlClient(address)
        assert await client.call("echo", {"a": [1, "é", None]}) == {"a": [1, "é", None]}
        assert await client.call("echo") == {}
        assert await client.call("echo", {"a": 1}, context={"tenant": "t"}) == {"a": 1, "context": {"tenant": "t"}}


async def test_the_files_are_private_and_go_away(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        info = address.stat()
        assert stat.S_ISSOCK(info.st_mode)
        assert stat.S_IMODE(info.st_mode) == 0o600
        assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
    assert not address.exists()
    with pytest.raises(EngineNotRunning):
        await ControlClient(address).call("echo")


async def test_an_open_folder_is_refused_not_changed(state: Path, engine: Engine) -> None:
    state.chmod(0o755)
    with pytest.raises(HomeError, match="open to other users"):
        await ControlServer(state / "control.sock", engine.handle).run()
    assert stat.S_IMODE(state.stat().st_mode) == 0o755


async def test_a_stream(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        async with aclosing(ControlClient(address).stream("count", {"to": 1000}, timeout=30)) as items:
            assert [item["n"] async for item in items] == list(range(1000))
        assert await ControlClient(address).call("count", {"to": 3}) == "done"


async def test_errors_carry_code_message_hint_and_details(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        with pytest.raises(RemoteError) as caught:
            await ControlClient(address).call("missing")
        error = caught.value
        assert (error.code, error.message, error.hint) == ("not_found", "there is no run r-1", "list them")
        assert error.details == {"run": "r-1"}


async def test_a_bug_in_the_engine_is_logged_and_told(
    state: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(state, engine) as address:
        with pytest.raises(RemoteError, match="ZeroDivisionError: oh") as caught:
            await ControlClient(address).call("broken")
        assert caught.value.code == "internal_error"
        assert "ZeroDivisionError" in caplog.text
        assert await ControlClient(address).call("echo") == {}


@pytest.mark.parametrize("params", [{}, {"item": True}])
async def test_an_answer_that_is_not_json(state: Path, engine: Engine, params: dict[str, Any]) -> None:
    async with serving(state, engine) as address:
        with pytest.raises(RemoteError, match="is not JSON") as caught:
            await ControlClient(address).call("not_json", params)
        assert caught.value.code == "invalid_payload"


async def test_sizes_are_bounded(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        client = ControlClient(address)
        assert len(await client.call("size", {"bytes": 15 * 1024 * 1024})) == 15 * 1024 * 1024
        with pytest.raises(RemoteError, match="the limit is 16,777,216"):
            await client.call("size", {"bytes": 16 * 1024 * 1024})
        assert len((await client.call("echo", {"a": "x" * 4_000_000}))["a"]) == 4_000_000
        with pytest.raises(InvalidPayload, match="the limit is 4,194,304"):
            await client.call("echo", {"a": "x" * 4_194_304})


async def test_a_request_that_is_too_large_is_refused_before_it_is_read(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address, await anyio.connect_unix(address) as stream:
        await stream.send(struct.pack(">I", 4_194_305) + b"begin")
        refusal = await answer(stream)
        assert refusal["id"] is None
        assert "4,194,305 bytes" in refusal["error"]["message"]
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()


@pytest.mark.parametrize(
    ("body", "number", "words"),
    [
        (b"nonsense", None, "not JSON"),
        ([], None, "an id"),
        ({"op": "echo"}, None, "an id"),
        ({"id": True, "op": "echo"}, None, "an id"),
        ({"id": 7}, 7, "no op"),
        ({"id": 7, "op": ""}, 7, "no op"),
        ({"id": "a", "op": "echo", "params": []}, "a", "must be objects"),
        ({"id": "a", "op": "echo", "context": "x"}, "a", "must be objects"),
        ({"id": 1, "op": "echo", "parms": {}}, 1, "unknown keys: ['parms']"),
    ],
)
async def test_a_bad_request_is_answered_and_the_next_one_served(
    state: Path, engine: Engine, body: Any, number: Any, words: str
) -> None:
    async with serving(state, engine) as address, await anyio.connect_unix(address) as stream:
        await stream.send(frame(body))
        refusal = await answer(stream)
        assert (refusal["id"], refusal["ok"]) == (number, False)
        assert words in refusal["error"]["message"]
        await stream.send(frame({"id": 9, "op": "echo"}))
        assert await answer(stream) == {"id": 9, "ok": True, "result": {}}


async def test_frames_in_pieces_and_several_at_once(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address, await anyio.connect_unix(address) as stream:
        for byte in frame({"id": 1, "op": "echo", "params": {"a": 1}}):
            await stream.send(bytes([byte]))
        assert await answer(stream) == {"id": 1, "ok": True, "result": {"a": 1}}
        await stream.send(frame({"id": 2, "op": "wait"}))
        assert await answer(stream) == {"id": 2, "item": "waiting"}
        await stream.send(frame({"id": 2, "op": "echo"}))
        assert "at work already" in (await answer(stream))["error"]["message"]
        await stream.send(frame({"id": 3, "op": "echo"}))
        assert await answer(stream) == {"id": 3, "ok": True, "result": {}}
        engine.release.set()
        assert await answer(stream) == {"id": 2, "ok": True, "result": "released"}


async def test_requests_of_a_connection_are_bounded(state: Path, engine: Engine) -> None:
    async with serving(state, engine, max_requests=1) as address, await anyio.connect_unix(address) as stream:
        await stream.send(frame({"id": 1, "op": "wait"}))
        await answer(stream)
        await stream.send(frame({"id": 2, "op": "echo"}))
        refusal = await answer(stream)
        assert (refusal["id"], refusal["error"]["code"]) == (2, "busy")


async def test_connections_are_bounded(state: Path, engine: Engine) -> None:
    async with serving(state, engine, max_connections=2) as address, anyio.create_task_group() as tasks:
        client, done = ControlClient(address), []

        async def call() -> None:
            done.append(await client.call("wait"))

        tasks.start_soon(call)
        tasks.start_soon(call)
        while engine.running < 2:
            await anyio.lowlevel.checkpoint()
        for _ in range(3):
            with pytest.raises(RemoteError, match="2 connections are open") as caught:
                await client.call("echo")
            assert caught.value.code == "busy"
        engine.release.set()
        while len(done) < 2:
            await anyio.lowlevel.checkpoint()
        assert done == ["released", "released"]


async def test_a_client_that_goes_away_cancels_its_operations(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        stream = await anyio.connect_unix(address)
        await stream.send(frame({"id": 1, "op": "wait"}))
        await engine.started.wait()
        await stream.aclose()
        await engine.cancelled.wait()
        assert engine.running == 0


async def test_a_cancelled_call_and_a_closed_stream_cancel_too(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        client = ControlClient(address)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "wait")
            await engine.started.wait()
            tasks.cancel_scope.cancel()
        await engine.cancelled.wait()
        engine.cancelled = anyio.Event()
        async with aclosing(client.stream("flood")) as items:
            async for _ in items:
                break
        await engine.cancelled.wait()


async def test_a_call_has_a_timeout(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        for limit in LIMITS:
            with pytest.raises(RemoteError) as caught:
                await ControlClient(address).call("wait", timeout=limit)
            assert caught.value.code == "timeout"
            if engine.started.is_set():
                break
        await engine.cancelled.wait()
        heard: list[Any] = []
        for limit in LIMITS:
            items: AsyncGenerator[Any, None] = ControlClient(address).stream("wait", timeout=limit)
            with suppress(RemoteError):
                heard.append(await anext(items))
                break
        assert heard == ["waiting"]
        with pytest.raises(RemoteError) as caught:
            await anext(items)
        assert caught.value.code == "timeout"


async def test_an_idle_connection_is_closed_and_one_at_work_is_not(state: Path, engine: Engine) -> None:
    async with (
        serving(state, engine, idle_timeout=0.5) as address,
        await connected(address, frame({"id": 1, "op": "wait"})) as working,
    ):
        assert await answer(working) == {"id": 1, "item": "waiting"}
        async with await connected(address, b"\x00\x00") as idle:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await idle.receive()
        engine.release.set()
        assert await answer(working) == {"id": 1, "ok": True, "result": "released"}
        with pytest.raises(anyio.EndOfStream):
            await working.receive()


async def test_a_client_that_does_not_read_is_dropped(state: Path, engine: Engine) -> None:
    async with serving(state, engine, write_timeout=0.1) as address, await anyio.connect_unix(address) as stream:
        await stream.send(frame({"id": 1, "op": "flood"}))
        await engine.cancelled.wait()


async def test_stopping_ends_what_is_at_work(state: Path, engine: Engine) -> None:
    failed: list[RemoteError] = []

    async def call(address: Path) -> None:
        try:
            await ControlClient(address).call("wait")
        except RemoteError as error:
            failed.append(error)

    async with anyio.create_task_group() as clients:
        async with serving(state, engine) as address:
            clients.start_soon(call, address)
            await engine.started.wait()
        assert engine.cancelled.is_set()
    assert [error.code for error in failed] == ["connection_lost"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="connects as another user: needs root")
async def test_other_users_are_refused_by_the_kernels_word(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:
        # Both modes opened on purpose, so that only the check of the peer is left.
        state.chmod(0o755)
        address.chmod(0o666)
        stream = socket.socket(socket.AF_UNIX)
        os.seteuid(65534)
        try:
            stream.connect(str(address))
        finally:
            os.seteuid(0)
        async with await anyio.abc.UNIXSocketStream.from_socket(stream) as connection:
            refusal = await answer(connection)
            assert refusal["error"]["code"] == "access_denied"
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await connection.receive()


async def test_an_existing_socket_is_replaced_only_under_the_lock(state: Path, engine: Engine) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(state / "control.sock"))
    left.close()
    with pytest.raises(HomeError, match="cannot open the control socket"):
        await ControlServer(state / "control.sock", engine.handle).run()
    lock = OwnerLock(state / "lock", SystemClock())
    with pytest.raises(HomeError, match="cannot open the control socket"):
        await ControlServer(state / "control.sock", engine.handle, lock=lock).run()
    with lock:
        async with serving(state, engine, lock=lock) as address:
            assert await ControlClient(address).call("echo") == {}
            owner = read_owner(lock.path)
            assert owner is not None
            assert owner.socket == str(address) == str(socket_path(state))


async def test_a_file_that_is_no_socket_is_not_removed(state: Path, engine: Engine) -> None:
    (state / "control.sock").write_text("precious")
    with (
        OwnerLock(state / "lock", SystemClock()) as lock,
        pytest.raises(HomeError, match="is not a socket"),
    ):
        await ControlServer(state / "control.sock", engine.handle, lock=lock).run()
    assert (state / "control.sock").read_text() == "precious"


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "TMPDIR"])
async def test_a_long_path_is_replaced_by_a_short_private_one(
    state: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    short = state / "run"
    short.mkdir(mode=0o700)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv(variable, str(short))
    monkeypatch.setattr(tempfile, "tempdir", None)
    long = state / ("x" * 100)
    long.mkdir(mode=0o700)
    with OwnerLock(long / "lock", SystemClock()) as lock:
        async with serving(long, engine, lock=lock) as address:
            assert address.is_relative_to(short)
            assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
            assert socket_path(long) == address
            assert await ControlClient(socket_path(long)).call("echo", {"a": 1}) == {"a": 1}
    assert list(short.iterdir()) == []


async def test_a_planted_short_folder_is_not_used(state: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(state))
    (state / f"eventcore-{os.geteuid()}").mkdir()
    (state / f"eventcore-{os.geteuid()}").chmod(0o777)
    long = state / ("x" * 100)
    long.mkdir(mode=0o700)
    async with serving(long, engine) as address:
        assert address.parent.parent == state
        assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700


async def test_the_blocking_client(state: Path, engine: Engine) -> None:
    async with serving(state, engine) as address:

        def use_it() -> None:
            assert control_client.request(address, "echo", {"a": 1}, context={"t": 1}) == {"a": 1, "context": {"t": 1}}
            assert control_client.request(address, "count", {"to": 5}) == "done"
            items = control_client.stream(address, "count", {"to": 2})
            assert [next(items), next(items)] == [{"n": 0}, {"n": 1}]
            with pytest.raises(StopIteration) as stop:
                next(items)
            assert stop.value.value == "done"
            with pytest.raises(RemoteError, match="no run r-1") as caught:
                control_client.request(address, "missing")
            assert caught.value.code == "not_found"
            for limit in LIMITS:
                with pytest.raises(RemoteError) as caught:
                    control_client.request(address, "wait", timeout=limit)
                assert caught.value.code == "timeout"
                if engine.started.is_set():
                    break

        await anyio.to_thread.run_sync(use_it)
        await engine.cancelled.wait()
        engine.cancelled = anyio.Event()

        def leave_early() -> None:
            flood = control_client.stream(address, "flood", timeout=30)
            next(flood)
            flood.close()

        await anyio.to_thread.run_sync(leave_early)
        await engine.cancelled.wait()


async def test_the_blocking_client_in_a_process_of_its_own(state: Path, engine: Engine) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom eventcore.home import control_client as client\n"
        "print(client.request(Path(sys.argv[1]), 'echo', {'pid': 1}))\n"
        "heavy = {'anyio', 'pydantic', 'orjson', 'asyncio', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    async with serving(state, engine) as address:
        run = partial(subprocess.run, [sys.executable, "-c", code, str(address)], env=environ, capture_output=True)
        done = await anyio.to_thread.run_sync(partial(run, timeout=50))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"{'pid': 1}\n", b"")


async def test_nobody_there(state: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(state / "dead.sock"))
    dead.close()
    for path in (state / "none.sock", state / "dead.sock", state / ("x" * 300)):
        with pytest.raises(EngineNotRunning, match="eventcore serve"):
            control_client.request(path, "echo")
        with pytest.raises(EngineNotRunning):
            await ControlClient(path).call("echo")
    assert socket_path(state) == state / "control.sock"
    (state / "lock").write_text("garbage")
    assert socket_path(state) == state / "control.sock"


async def test_a_server_that_breaks_the_protocol(state: Path) -> None:
    for sent, code in (
        (struct.pack(">I", 17 * 1024 * 1024), "protocol_error"),
        (frame(b"not json"), "protocol_error"),
        (frame([]), "protocol_error"),
        (frame({"id": 1, "ok": False, "error": "?"}), "remote_error"),
        (b"\x00\x00", "connection_lost"),
    ):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(state / "bad.sock"))
            listener.listen()

            def answer_badly(listener: socket.socket = listener, sent: bytes = sent) -> None:
                for _ in range(2):
                    peer, _address = listener.accept()
                    with peer:
                        peer.recv(1000)
                        peer.sendall(sent)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, answer_badly)
                with pytest.raises(RemoteError) as caught:
                    await ControlClient(state / "bad.sock").call("echo", timeout=30)
                assert caught.value.code == code
                ask = partial(control_client.request, state / "bad.sock", "echo", timeout=30)
                with pytest.raises(RemoteError) as caught:
                    await anyio.to_thread.run_sync(ask)
                assert caught.value.code == code
        (state / "bad.sock").unlink()


def test_params_that_are_not_json(anyio_backend: str) -> None:
    for params in ({"a": object()}, {"a": float("nan")}, {"a": {1, 2}}):
        with pytest.raises(InvalidInput, match="is not JSON"):
            control_client.encode_request(1, "echo", params)
