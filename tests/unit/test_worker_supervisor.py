"""The supervisor: one warm worker a tenant and plugin, shared starts, restarts with backoff."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore.kernel.errors import EngineClosed, Interrupted, PluginFailed, PluginTimeout
from eventcore.plugins.sandbox.launch import Process, spawn
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.sandbox.supervisor import Supervisor

pytestmark = pytest.mark.anyio

CODE = """
import os, time
def run(params):
    if params == "crash": os._exit(1)
    if params == "error": raise ValueError("no")
    if params == "hang": time.sleep(60)
    if params == "slow": time.sleep(0.2)
    return os.getpid()
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class QuickClock:
    """A clock on which sleeping is instant; what was slept is kept."""

    def __init__(self) -> None:
        self.at = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.at += seconds
        await anyio.lowlevel.checkpoint()


class Bench:
    """A supervisor with what a test looks at."""

    def __init__(self, folder: Path) -> None:
        self.clock = QuickClock()
        self.started: list[Process] = []
        self.supervisor = Supervisor(clock=self.clock, launcher=self._launch)
        self.spec = WorkerSpec("plug", folder)
        self.write(CODE)

    def write(self, code: str) -> None:
        (self.spec.dir / "handler.py").write_text(code)

    async def _launch(self, spec: WorkerSpec) -> Process:
        self.started.append(await spawn(spec))
        return self.started[-1]

    async def run(self, params: Any = None, spec: WorkerSpec | None = None, timeout: float = 60) -> Any:
        answer = await self.supervisor.call(spec or self.spec, "run", {"params": params}, timeout=timeout)
        return answer["result"]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    async with AsyncExitStack() as stack:
        await made.supervisor.start(stack)
        with anyio.fail_after(80):
            yield made
    assert not any(Path(f"/proc/{process.pid}").exists() for process in made.started)


async def test_a_worker_stays_warm_and_first_calls_share_its_start(bench: Bench) -> None:
    assert not bench.supervisor.alive("plug")
    pids: set[int] = set()

    async def one() -> None:
        pids.add(await bench.run())

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(one)
    await one()
    assert len(pids) == len(bench.started) == 1
    assert bench.supervisor.alive("plug")
    assert (await bench.supervisor.registered(bench.spec))["entry"]


async def test_tenants_do_not_share(bench: Bench) -> None:
    other = WorkerSpec("plug", bench.spec.dir, tenant="acme")
    assert await bench.run() != await bench.run(spec=other)


async def test_a_cancelled_first_caller_does_not_take_the_start_along(bench: Bench) -> None:
    with anyio.move_on_after(0.001):
        await bench.run()
    await bench.run()
    assert len(bench.started) == 1


async def test_restart_after_a_crash_with_growing_delays(bench: Bench) -> None:
    for _ in range(4):
        with pytest.raises(Interrupted):
            await bench.run("crash")
    assert bench.clock.slept == [0.1, 0.2, 0.4]
    assert await bench.run() == bench.started[-1].pid
    with pytest.raises(Interrupted):
        await bench.run("crash")
    await bench.run()
    assert bench.clock.slept == [0.1, 0.2, 0.4, 0.8, 0.1]


async def test_ten_crashes_in_a_row_degrade_until_it_is_stopped(bench: Bench) -> None:
    for _ in range(10):
        with pytest.raises(Interrupted):
            await bench.run("crash")
    for _ in range(2):
        with pytest.raises(PluginFailed, match="plug is degraded: its worker failed 10 times in a row") as caught:
            await bench.run()
        assert caught.value.kind == "Degraded"
    assert len(bench.started) == 10
    assert max(bench.clock.slept) <= 30
    await bench.supervisor.stop("plug")
    assert await bench.run()


async def test_a_delay_longer_than_the_callers_time_is_not_waited_for(bench: Bench) -> None:
    for _ in range(8):
        with pytest.raises(Interrupted):
            await bench.run("crash")
    with pytest.raises(PluginFailed, match=r"restarted in 12\.8 s") as caught:
        await bench.run(timeout=1)
    assert caught.value.kind == "Restarting"


async def test_errors_of_the_code_are_no_failures_of_the_worker(bench: Bench) -> None:
    for _ in range(12):
        with pytest.raises(PluginFailed, match="no"):
            await bench.run("error")
    assert len(bench.started) == 1


async def test_a_failed_start_is_told_to_all_who_wait_and_is_not_repeated_at_once(bench: Bench) -> None:
    bench.write("raise ValueError('broken')")
    failures: list[PluginFailed] = []

    async def one() -> None:
        with pytest.raises(PluginFailed, match="broken") as caught:
            await bench.run()
        failures.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
    assert len(bench.started) == 1
    assert len({id(error) for error in failures}) == 5
    assert {(error.kind, bool(error.trace)) for error in failures} == {("ValueError", True)}
    bench.write(CODE)
    assert await bench.run()
    assert bench.clock.slept == [0.1]


async def test_calls_that_had_not_begun_go_to_the_next_worker(bench: Bench) -> None:
    await bench.run()
    results: list[Any] = []

    async def one(params: str, timeout: float) -> None:
        try:
            results.append(await bench.run(params, timeout=timeout))
        except PluginFailed as error:
            results.append(type(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, "hang", 0.3)
        while not results and not bench.supervisor._slots[("default", "plug")].worker._calls:  # type: ignore[union-attr]
            await anyio.lowlevel.checkpoint()
        for _ in range(3):
            tasks.start_soon(one, "well", 10)
    assert results.count(PluginTimeout) == 1
    assert results.count(bench.started[1].pid) == 3
    assert len(bench.started) == 2


async def test_a_changed_spec_gets_a_fresh_worker(bench: Bench) -> None:
    old = await bench.run()
    changed = WorkerSpec("plug", bench.spec.dir, version="2")
    assert await bench.run(spec=changed) != old
    with anyio.fail_after(20):
        while Path(f"/proc/{old}").exists():
            await anyio.sleep(0.01)
    assert bench.clock.slept == []


async def test_a_worker_killed_from_outside_is_replaced(bench: Bench) -> None:
    pid = await bench.run()
    os.kill(pid, signal.SIGKILL)
    with anyio.fail_after(20):
        while bench.supervisor.alive("plug"):
            await anyio.sleep(0.01)
    assert await bench.run() != pid


async def test_close_lets_running_calls_finish(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    results: list[Any] = []

    async def slow() -> None:
        results.append(await bench.run("slow"))

    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        await bench.supervisor.start(stack)
        await bench.run()
        tasks.start_soon(slow)
        await anyio.sleep(0.05)
    assert results == [bench.started[0].pid]
    with pytest.raises(EngineClosed):
        await bench.run()
