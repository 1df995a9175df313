"""Workers in the sandbox against what they are held to, by turns in one process.

    sandbox.py FOLDER

Reads what to measure, a line each: `warm` (all processes where the kernel puts them), `near` (on one processor),
`apart` (this one on one, those that it asks on another), `depth`, `cold`, `kill`, `tree`, `deadline`, `memory`, `cpu`.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from eventcore import EventCore
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import PluginTimeout
from eventcore.plugins.calls import Calls
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.launch import spawn
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parents[1]))
from bench_worker import Asker, fork_echo

from tests.sandbox.attacks.plant import descendants

PLUGIN = """
import subprocess, time
def run(params):
    if params.get("burn"):
        while True: pass
    if params.get("tree"):
        for _ in range(15):
            deaf = "trap '' TERM INT HUP; sleep 300"
            subprocess.Popen(["/bin/sh", "-c", f"{deaf} & {deaf}"], start_new_session=True)
        time.sleep(0.3)
    return {"n": params.get("n")}
"""
#: In a plugin of its own: one whose functions are all plain is served in another way.
GENTLE = """
async def on_gentle(event): return {"n": event["n"]}
"""
_CALLS = 300
#: Before each turn of `cold`, so that nothing of the turn before is under way. Seconds.
_REST = 0.05


def echo(n: int) -> dict[str, int]:
    return {"n": n}


async def median(once: Callable[[int], Awaitable[Any]], calls: int = _CALLS) -> float:
    times = []
    for number in range(calls):
        began = time.perf_counter()
        await once(number)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def rate(once: Callable[[int], Awaitable[Any]], calls: int) -> float:
    async def caller() -> None:
        for number in range(calls // 32):
            await once(number)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(caller)
    return calls // 32 * 32 / (time.perf_counter() - began)


@contextmanager
def placed(ours: int, theirs: int) -> Iterator[None]:
    """This process on one processor, and all that came of it on one; left alone, the kernel puts two that talk together
    or apart by chance, and keeps them there, and a wake-up across processors costs more than all the rest.

    Args:
        ours, theirs: places among the processors that there are.
    """
    everywhere = os.sched_getaffinity(0)
    order = sorted(everywhere)
    for pid in (me := os.getpid(), *descendants(me)):
        _pin(pid, {order[ours if pid == me else theirs]})
    try:
        yield
    finally:
        for pid in (me, *descendants(me)):
            _pin(pid, everywhere)


def _pin(pid: int, processors: set[int]) -> None:
    with suppress(OSError):  # it may have ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), processors)


class Subjects:
    """Everything that is compared, warm."""

    def __init__(self, folder: Path, sandbox: Sandbox, tasks: Any, bare: Any, pool: ProcessPoolExecutor) -> None:
        self.folder, self.sandbox, self.tasks, self.bare, self.pool = folder, sandbox, tasks, bare, pool
        self.worker: ProcessWorker
        self.gentle: ProcessWorker
        self.naive: ProcessWorker
        self.core: EventCore
        self.calls: Calls
        self.context: Any

    async def start(
        self, allow: Allowance | None = None, *, naive: bool = False, place: str = "plain"
    ) -> ProcessWorker:
        spec = WorkerSpec("bench", self.folder / place, allow=allow or Allowance())
        worker = await ProcessWorker.start(spec, self.tasks, launcher=spawn if naive else self.sandbox)
        await worker.load()
        return worker

    async def invoke(self, n: int) -> Any:
        """As a workflow's step does it: roles, schemas, deadline, metrics, services; recorded by the caller."""
        return await self.calls.invoke("bench", {"n": n}, self.context, {"attempt": 1})

    async def pooled(self, n: int) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, echo, n)

    async def near(self) -> dict[str, float]:
        with placed(0, 0):
            return await self.warm()

    async def apart(self) -> dict[str, float]:
        with placed(0, -1):
            return await self.warm()

    async def warm(self) -> dict[str, float]:
        return {
            "bare": await median(lambda n: self.bare.ask(b"x" * 64)),
            "full": await median(self.invoke),
            "recorded": await median(lambda n: self.core.plugins.run("bench", {"n": n}), 100),
            "sandboxed": await median(lambda n: self.worker.call("run", {"params": {"n": n}}, timeout=10)),
            "unsandboxed": await median(lambda n: self.naive.call("run", {"params": {"n": n}}, timeout=10)),
            "pool": await median(self.pooled),
        }

    async def depth(self) -> dict[str, float]:
        def ask(n: int) -> Awaitable[Any]:
            return self.gentle.call("event", {"function": "on_gentle", "event": {"n": n}}, timeout=10)

        return {"sandboxed": await rate(ask, 3200), "pool": await rate(self.pooled, 3200)}

    async def cold(self) -> dict[str, float]:
        async def ours(n: int) -> tuple[float, ProcessWorker]:
            began = time.perf_counter()
            worker = await self.start()
            await worker.call("run", {"params": {"n": n}}, timeout=10)
            return time.perf_counter() - began, worker

        taken: dict[str, list[float]] = {"sandboxed": [], "spot": [], "python": []}
        for n in range(9):
            await anyio.sleep(_REST)
            first, ahead = await ours(n)
            second, spot = await ours(n)  # at once: none is forked ahead again yet
            await ahead.kill()
            await spot.kill()
            await anyio.sleep(_REST)
            began = time.perf_counter()
            subprocess.run([os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"], check=True)
            for name, seconds in zip(taken, (first, second, time.perf_counter() - began), strict=True):
                taken[name].append(seconds)
        return {name: statistics.median(times) for name, times in taken.items()}

    async def kill(self) -> dict[str, float]:
        times = []
        for _ in range(9):
            worker = await self.start()
            began = time.perf_counter()
            await worker.kill()
            times.append(time.perf_counter() - began)
        return {"seconds": statistics.median(times)}

    async def tree(self) -> dict[str, float]:
        worker = await self.start(Allowance(programs=("/bin/sh", "/bin/sleep"), threads=128))
        await worker.call("run", {"params": {"tree": True}}, timeout=10)
        space = os.readlink(f"/proc/{worker.pid}/ns/pid")
        before = _inhabitants(space)
        began = time.perf_counter()
        await worker.kill()
        return {"seconds": time.perf_counter() - began, "processes": before, "left": _inhabitants(space)}

    async def deadline(self) -> dict[str, float]:
        worker = await self.start()
        began = time.perf_counter()
        with suppress(PluginTimeout):
            await worker.call("run", {"params": {"burn": True}}, timeout=0.3)
        return {"seconds": time.perf_counter() - began - 0.3}

    async def memory(self) -> dict[str, float]:
        for n in range(100):
            await self.worker.call("run", {"params": {"n": n}}, timeout=10)
        lines = Path(f"/proc/{self.worker.pid}/smaps_rollup").read_text().splitlines()
        private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        return {"megabytes": private / 1024}

    async def cpu(self) -> dict[str, float]:
        worker = await self.start(Allowance(cpu_percent=25))
        process: Any = worker._process
        said: dict[str, float] = {}

        async def watch() -> None:
            await anyio.sleep(0.3)
            first, began = process.cpu_seconds(), time.monotonic()
            await anyio.sleep(2)
            said["percent"] = 100 * (process.cpu_seconds() - first) / (time.monotonic() - began)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            with suppress(PluginTimeout):
                await worker.call("run", {"params": {"burn": True}}, timeout=2.5)
        return said


def _inhabitants(space: str) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += os.readlink(entry / "ns" / "pid") == space
            except OSError:
                continue
    return count


async def main(folder: Path, echo_socket: Any) -> None:
    for place, code in (("plain", PLUGIN), ("gentle", GENTLE)):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / "handler.py").write_text(code)
    home = folder / "home"
    plugin = home / "plugins" / "bench"
    plugin.mkdir(parents=True, exist_ok=True)
    (home / "eventcore.toml").write_text('[store]\nurl = "memory:"\n[plugins]\nenabled = ["bench"]\n')
    (plugin / "handler.py").write_text(PLUGIN)
    manifest = {"name": "bench", "plugin_api_version": "1.0", "intent": "bench", "module": "handler"}
    manifest |= {"version": "1.0.0", "description": "An echo.", "required_roles": ["user"]}
    manifest |= {"input_schema": {"type": "object"}, "output_schema": {"type": "object"}}
    (plugin / "plugin_manifest.json").write_text(json.dumps(manifest))
    _, bare = await asyncio.get_running_loop().create_connection(Asker, sock=echo_socket)
    async with AsyncExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(1))
        sandbox = Sandbox()
        stack.callback(sandbox.close)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        subjects = Subjects(folder, sandbox, tasks, bare, pool)
        subjects.core = await stack.enter_async_context(EventCore(home))
        subjects.calls = subjects.core.plugins.calls
        subjects.context = CallContext(tenant="default", actor="user:ada", roles=frozenset({"user"}))
        subjects.worker, subjects.naive = await subjects.start(), await subjects.start(naive=True)
        subjects.gentle = await subjects.start(place="gentle")
        await subjects.pooled(0)
        print(json.dumps({"level": (await sandbox.machine()).level}), flush=True)
        while what := (await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
            print(json.dumps(await getattr(subjects, what)()), flush=True)
        await subjects.worker.close()
        await subjects.gentle.close()
        await subjects.naive.close()


if __name__ == "__main__":
    echo_end = fork_echo(lambda data: data)  # before a loop runs here
    asyncio.run(main(Path(sys.argv[1]), echo_end))
