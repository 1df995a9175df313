"""Servers and plugins that keep the host busy through `ctx.http` and `ctx.run`: others get their turn."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from eventcore.kernel.errors import RequestFailed
from eventcore.kernel.outside import HttpSettings, PluginScope, ProgramSettings
from eventcore.observe.metrics import NullMetrics
from eventcore.plugins.outside.broker import Broker
from eventcore.plugins.outside.programs import Programs
from eventcore.plugins.outside.transport import CheckedBackend, Lookups
from eventcore.plugins.sandbox.spec import WorkerSpec

pytestmark = pytest.mark.anyio


async def _nothing(*args: Any, **named: Any) -> None: ...


def _call(slug: str) -> Any:
    """A call of a plugin that was granted what it asks for."""
    manifest = SimpleNamespace(network_hosts=(), external_apis=())
    record = SimpleNamespace(slug=slug, described=lambda: manifest)
    return SimpleNamespace(record=record, need=_nothing, may_change=_nothing, refuse=_nothing)


@pytest.fixture
def server() -> Iterator[Callable[[bytes], int]]:
    """Serves its argument to whoever asks, from a thread, without end. Returns the port."""
    over, threads = threading.Event(), []

    def serve(listening: socket.socket, answer: bytes) -> None:
        while not over.is_set():
            try:
                sock, _ = listening.accept()
            except TimeoutError:
                continue
            with sock, _quiet():
                sock.settimeout(5)
                sock.recv(65536)
                head, _, again = answer.partition(b"|")
                sock.sendall(head)
                while again and not over.is_set():
                    sock.sendall(again)

    def start(answer: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(0.1)
        threads.append((threading.Thread(target=serve, args=(listening, answer)), listening))
        threads[-1][0].start()
        port: int = listening.getsockname()[1]
        return port

    yield start
    over.set()
    for thread, listening in threads:
        thread.join()
        listening.close()


class _quiet:  # noqa: N801 - used as a word
    def __enter__(self) -> None: ...
    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


@asynccontextmanager
async def _longest_stall(found: list[float]) -> AsyncIterator[None]:
    async def beat() -> None:
        while True:
            before = time.thread_time()  # what the loop's own thread computes: a busy machine adds nothing to that
            await anyio.sleep(0.001)
            found.append(time.thread_time() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        yield
        tasks.cancel_scope.cancel()


OK = b"HTTP/1.1 200 OK\r\n"
FLOODS = {
    "chunks of a byte": (OK + b"transfer-encoding: chunked\r\n\r\n|" + b"1\r\na\r\n" * 30_000, "too many small parts"),
    "interim answers": (b"|" + b"HTTP/1.1 103 Early\r\n\r\n" * 10_000, "before its answer"),
}


@pytest.mark.parametrize(("answer", "told"), FLOODS.values(), ids=FLOODS)
async def test_small_parts_do_not_hold_the_loop_up(server: Callable[[bytes], int], answer: bytes, told: str) -> None:
    port = server(answer)
    scope = {"asker": PluginScope(local=[f"127.0.0.1:{port}"])}
    clock = SimpleNamespace(monotonic=time.monotonic)
    broker = Broker(HttpSettings(timeout=20), scope, SimpleNamespace(get=str), clock, NullMetrics(), save=_nothing)  # type: ignore[arg-type]
    stalls: list[float] = []
    began = time.process_time()
    async with _longest_stall(stalls):
        await broker._client(_call("asker").record)  # reads the authorities' certificates, which takes a while
        stalls.clear()
        with pytest.raises(RequestFailed, match=told):
            await broker.request(_call("asker"), {"url": f"http://127.0.0.1:{port}/"})
    await broker.close()
    assert max(stalls) < 0.4
    assert time.process_time() - began < 4


async def test_one_plugins_slow_names_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over, under_way, most = threading.Event(), [0], [0]
    real = socket.getaddrinfo

    def look(host: str, *args: Any, **named: Any) -> Any:
        if "slow" not in str(host):
            return real("127.0.0.1", 1)
        under_way[0] += 1
        most[0] = max(most)
        most.append(under_way[0])
        over.wait(60)
        under_way[0] -= 1
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look)
    greedy, other = (CheckedBackend(lambda host, port: True, Lookups(4)) for _ in range(2))
    try:
        with anyio.fail_after(20):
            for _ in range(3):  # those that are given up are under way all the same
                async with anyio.create_task_group() as tasks:
                    for number in range(30):
                        tasks.start_soon(_refused, greedy, f"slow{number}.example")
            assert max(most) == 4
            assert await other._resolve("fast.example", 1) == ["127.0.0.1"]
    finally:
        over.set()
    with anyio.fail_after(30):
        while under_way[0]:
            await anyio.sleep(0.01)
    assert await greedy._resolve("fast.example", 1) == ["127.0.0.1"]


async def _refused(backend: CheckedBackend, host: str) -> None:
    with pytest.raises(Exception, match=r"not resolved within|still being looked up"):
        await backend.connect_tcp(host, 1, 0.2)


async def test_one_plugins_programs_leave_the_others_room() -> None:
    """The sandbox is a stand-in: how many it is asked for at once is all that counts."""
    begun: list[str] = []

    async def program(spec: WorkerSpec, command: tuple[str, ...], env: Any) -> Any:
        begun.append(spec.slug)
        await anyio.sleep(0.3 if spec.slug == "other" else 60)
        raise RuntimeError("ran")

    def spec(call: Any) -> WorkerSpec:
        slug = call.record.slug
        return WorkerSpec(slug, Path("/"))

    scopes = {slug: PluginScope(programs=["sleep"]) for slug in ("greedy", "other")}
    programs = Programs(ProgramSettings(at_once=4), scopes, spec, SimpleNamespace(program=program), NullMetrics())  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(programs.run, _call("greedy"), {"command": ["sleep", "60"]})
        await anyio.sleep(0.1)
        assert begun == ["greedy"] * 2
        with anyio.fail_after(30), pytest.raises(RuntimeError, match="ran"):
            await programs.run(_call("other"), {"command": ["sleep", "1"]})
        tasks.cancel_scope.cancel()
