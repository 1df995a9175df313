"""Warm worker calls against a bare asyncio ping-pong over a socket pair, interleaved, as JSON lines.

    python tests/benchmarks/bench_worker.py [rounds] [calls]

`bare` is a 64-byte echo between two asyncio Protocols in two processes; `framed` the same with length and JSON. Each
round measures each of them; the medians of one round are compared with each other, so load on the machine cancels out.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import WorkerSpec

PLUGIN = """
from eventcore.sdk import ctx
def run(params): return {"n": params["n"]}
async def on_gentle(event): return {"n": event["n"]}
def on_asking(event): return ctx.emit("x", {"n": 1}).value
"""


class Echo(asyncio.Protocol):
    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        self._change = change

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._change(data))  # type: ignore[attr-defined]

    def connection_lost(self, error: Exception | None) -> None:
        os._exit(0)


class Asker(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._answer.set_result(data)

    async def ask(self, data: bytes) -> bytes:
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport.write(data)  # type: ignore[attr-defined]
        return await self._answer


def reply(data: bytes) -> bytes:
    frame = json.loads(data[4:])
    body = json.dumps({"id": frame["id"], "ok": True, "result": frame["params"]}).encode()
    return struct.pack(">I", len(body)) + body


def fork_echo(change: Callable[[bytes], bytes]) -> socket.socket:
    """An echo in a forked child; call it before a loop runs here."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    ours.close()

    async def serve() -> None:
        await asyncio.get_running_loop().create_connection(lambda: Echo(change), sock=theirs)
        await asyncio.Event().wait()

    asyncio.run(serve())
    os._exit(0)


async def median(calls: int, once: Callable[[int], Awaitable[Any]]) -> float:
    times = []
    for number in range(calls):
        began = time.perf_counter()
        await once(number)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


async def main(rounds: int, calls: int, bare: socket.socket, framed: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    _, bare_asker = await loop.create_connection(Asker, sock=bare)
    _, framed_asker = await loop.create_connection(Asker, sock=framed)

    async def host(method: str, params: dict[str, Any]) -> None: ...

    async def ask_framed(number: int) -> None:
        body = json.dumps({"id": number, "kind": "run", "params": {"n": number}, "context": {}}).encode()
        json.loads((await framed_asker.ask(struct.pack(">I", len(body)) + body))[4:])

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "handler.py").write_text(PLUGIN)
        async with anyio.create_task_group() as tasks:
            began = time.perf_counter()
            worker = await ProcessWorker.start(WorkerSpec("bench", Path(folder)), tasks)
            await worker.load()
            print(json.dumps({"what": "cold start with load", "ms": round((time.perf_counter() - began) * 1e3, 1)}))

            def event(function: str) -> Callable[[int], Awaitable[Any]]:
                return lambda n: worker.call("event", {"function": function, "event": {"n": n}}, timeout=10, host=host)

            subjects: dict[str, Callable[[int], Awaitable[Any]]] = {
                "bare": lambda n: bare_asker.ask(b"x" * 64),
                "framed": ask_framed,
                "sync call": lambda n: worker.call("run", {"params": {"n": n}}, timeout=10),
                "async call": event("on_gentle"),
                "sync call with one ctx.emit": event("on_asking"),
            }
            medians: dict[str, list[float]] = {name: [] for name in subjects}
            for _ in range(rounds):
                for name, once in subjects.items():
                    medians[name].append(await median(calls, once))
            report(medians)
            await depth(worker, calls * 4)
            await worker.close()


def report(medians: dict[str, list[float]]) -> None:
    for name, values in medians.items():
        ratios = {
            f"x {base}": round(statistics.median(v / b for v, b in zip(values, medians[base], strict=True)), 2)
            for base in ("bare", "framed")
        }
        print(json.dumps({"what": name, "p50_us": round(statistics.median(values), 1), **ratios}))


async def depth(worker: ProcessWorker, calls: int) -> None:
    async def caller() -> None:
        for _ in range(calls // 32):
            await worker.call("event", {"function": "on_gentle", "event": {"n": 1}}, timeout=10)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(caller)
    rate = calls // 32 * 32 / (time.perf_counter() - began)
    print(json.dumps({"what": "async calls, 32 at a time", "per_s": round(rate)}))


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:3]]
    rounds, calls = [*arguments, *(9, 1000)[len(arguments) :]]
    sockets = fork_echo(lambda data: data), fork_echo(reply)
    asyncio.run(main(rounds, calls, *sockets))
