"""Plugins that hang, crash, or attack the channel. The host goes on, and says what happened."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore.kernel.errors import Interrupted, PluginFailed, PluginTimeout, SandboxUnavailable
from eventcore.plugins.sandbox.channel import HIGH_WATER
from eventcore.plugins.sandbox.launch import Launcher, Process
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import WorkerLimits, WorkerSpec

pytestmark = pytest.mark.anyio

Load = Callable[..., Awaitable[ProcessWorker]]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def load(tmp_path: Path, launcher: Launcher) -> AsyncIterator[Load]:
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:

        async def make(code: str, *, late: float = 0.0, **spec: Any) -> ProcessWorker:
            (tmp_path / "handler.py").write_text(textwrap.dedent(code))

            async def launch(spec: WorkerSpec) -> Process:
                process = await launcher(spec)
                if late:
                    wait = process.wait

                    async def waits() -> int:
                        code = await wait()
                        await anyio.sleep(late)
                        return code

                    process.wait = waits  # type: ignore[method-assign]
                return process

            worker = await ProcessWorker.start(WorkerSpec("bad", tmp_path, **spec), tasks, launcher=launch)
            stack.push_async_callback(worker.close, 0.5)
            await worker.load()
            return worker

        with anyio.fail_after(80):
            yield make


async def run(worker: ProcessWorker, params: Any = None, timeout: float = 40, **options: Any) -> Any:
    return (await worker.call("run", {"params": params}, timeout=timeout, **options))["result"]


async def outcomes(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run the calls side by side; a result or the error of each."""
    results: list[Any] = [None] * len(calls)

    async def one(index: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            results[index] = await call()
        except PluginFailed as error:
            results[index] = error

    async with anyio.create_task_group() as tasks:
        for index, call in enumerate(calls):
            tasks.start_soon(one, index, call)
            await anyio.sleep(0)
    return results


def dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def gone(worker: ProcessWorker) -> bool:
    """Whether it is reaped; the sandbox's zygote does so a moment after its end."""
    with anyio.move_on_after(20):
        while Path(f"/proc/{worker.pid}").exists():
            await anyio.sleep(0.01)
        return True
    return False


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(60)",
        "sum(range(10**12))",
    ],
)
async def test_a_handler_that_runs_over_is_killed(load: Load, body: str) -> None:
    worker = await load(f"import signal, time\ndef run(params):\n    {body}")
    began = anyio.current_time()
    with pytest.raises(PluginTimeout, match=r"bad did not answer run within 0\.2 s") as caught:
        await run(worker, timeout=0.2)
    assert caught.value.kind == "PluginTimeout"
    assert anyio.current_time() - began < 20  # of the 60 that it would have gone on
    assert not worker.alive
    await worker.ended()
    assert await gone(worker)
    with pytest.raises(Interrupted) as late:
        await run(worker)
    assert late.value.details["started"] is False


@pytest.mark.parametrize("launcher", ["bare"], indirect=True)  # in the sandbox it could not start them
@pytest.mark.parametrize("end", ["time.sleep(60)", "os._exit(1)"])
async def test_children_of_the_group_die_too(load: Load, end: str) -> None:
    worker = await load(
        f"""
        import os, subprocess, time
        from eventcore.sdk import ctx
        def run(params):
            ctx.ask("pid", pid=subprocess.Popen(["sleep", "60"]).pid)
            {end}
        """
    )
    pids: list[int] = []

    async def host(method: str, params: dict[str, Any]) -> None:
        pids.append(params["pid"])
        if "sleep" in end:  # the child is there: now the call may run over
            [call] = worker._calls.values()
            call.timeout = 0.3
            worker._watchdog.watch(call)

    with pytest.raises(PluginTimeout if "sleep" in end else Interrupted):
        await run(worker, host=host)
    with anyio.fail_after(20):
        while not dead(pids[0]):
            await anyio.sleep(0.01)


async def test_neighbours_of_a_killed_call_are_interrupted(load: Load) -> None:
    worker = await load(
        """
        import asyncio, time
        async def run(params):
            await asyncio.sleep(60)
        def on_plain(event):
            time.sleep(60)
        """
    )
    # The one that runs over comes last, when the worker has the others.
    beside, first, queued, late = await outcomes(
        lambda: run(worker, timeout=50),
        lambda: worker.call("event", {"function": "on_plain", "event": {}}, timeout=50),
        lambda: worker.call("event", {"function": "on_plain", "event": {}}, timeout=50),
        lambda: run(worker, timeout=0.3),
    )
    assert type(late) is PluginTimeout
    for error in (beside, first):
        assert type(error) is Interrupted
        assert "ran over its time limit" in error.message
        assert "started" not in error.details
    # One of the two plain calls was in the worker; the other had not been handed over.
    assert type(queued) is Interrupted
    assert queued.details == {"started": False}


async def test_an_abandoned_call_is_still_killed_at_its_limit(load: Load) -> None:
    worker = await load("def run(params):\n    while True: pass")
    began = anyio.current_time()
    with anyio.move_on_after(0.05) as scope:
        await run(worker, timeout=0.3)
    assert scope.cancelled_caught
    assert worker.alive or anyio.current_time() - began >= 0.3
    with anyio.fail_after(20):
        await worker.ended()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os._exit(7)", "exited with code 7"),
        ("os._exit(0)", "exited with code 0"),
        ("os.abort()", "was killed by SIGABRT"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("ctypes.string_at(0)", "was killed by SIGSEGV"),
    ],
)
async def test_a_crash_interrupts_what_is_in_flight(load: Load, body: str, words: str) -> None:
    worker = await load(
        f"""
        import asyncio, ctypes, os
        async def run(params):
            if params == "crash":
                {body}
            await asyncio.sleep(60)
        """
    )
    results = await outcomes(lambda: run(worker, "wait"), lambda: run(worker, "wait"), lambda: run(worker, "crash"))
    for error in results:
        assert type(error) is Interrupted
        assert words in error.message
    assert not worker.alive
    if "SIG" in words and "KILL" not in words:
        assert "handler.py" in str(results[0].trace)  # faulthandler's report on the raw stderr


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # it waits, and the loop plays no part in it
async def test_a_crash_that_is_told_of_late_is_no_breach_of_the_rules(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end closes its channel at once; on a busy machine the news of it may come long after that."""
    monkeypatch.setattr("eventcore.plugins.sandbox.process._EOF_GRACE", 0.8)
    worker = await load("import os\ndef run(params):\n    os._exit(7)", late=1.2)
    with pytest.raises(Interrupted, match="exited with code 7"):
        await run(worker)
    assert not worker.violated


async def test_an_answer_sent_just_before_the_crash_counts(load: Load) -> None:
    worker = await load(
        """
        import asyncio, os
        async def run(params):
            asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(os._exit, 1))
            return "x" * 150_000
        """
    )
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await run(worker))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        while not worker._calls:
            await anyio.lowlevel.checkpoint()
        # Stand still until the worker is dead, so that its end and several reads' worth of answer come at once.
        for _ in range(2000):
            if dead(worker.pid):
                break
            time.sleep(0.01)
    assert len(answers[0]) == 150_000
    await worker.ended()


#: Writes on the channel's descriptor, without the SDK's help.
ATTACK = """
import json, os, socket, struct, sys, time
channel = socket.socket(fileno=os.dup(int(sys.argv[1])))
def write(data):
    channel.sendall(data)
def frame(value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack(">I", len(body)) + body
REPLY = {"id": 999, "ok": True, "result": 1, "stdout": "", "stderr": ""}
def ask(rid, call=2): return {"rid": rid, "call": call, "method": "emit", "params": {}}
ATTACKS = {
    "huge length": lambda: write(b"\\xff\\xff\\xff\\xff" + b"x" * 100),
    "garbage": lambda: write(frame(b"not json at all")),
    "not utf-8": lambda: write(frame(b"\\xff\\xfe")),
    "nan": lambda: write(frame(b'{"id":2,"ok":true,"result":NaN,"stdout":"","stderr":""}')),
    "twice": lambda: write(frame(b'{"id":2,"ok":true,"ok":true,"result":1,"stdout":"","stderr":""}')),
    "more fields": lambda: write(frame({**REPLY, "id": 2, "more": 1})),
    "unknown id": lambda: write(frame(REPLY)),
    "answered twice": lambda: write(frame({**REPLY, "id": 1})),
    "unknown call": lambda: write(frame(ask(1, 77))),
    "same rid twice": lambda: write(frame(ask(10**6)) + frame(ask(10**6))),
    "deep": lambda: write(frame(b'{"id":2,"ok":true,"stdout":"","stderr":"","result":' + b"[" * 400000)),
    "flood": lambda: write(b"".join(frame(ask(n)) for n in range(1000, 1100))),
    "closed": lambda: channel.shutdown(socket.SHUT_RDWR),
    "raw output": lambda: [os.write(1, b"x" * 65536) for _ in range(400)],
    "nothing": lambda: None,
}
def run(params):
    ATTACKS[params]()
    time.sleep(60 if params != "nothing" else 0)
    return "well"
"""

ATTACKS = [
    ("huge length", "announced"),
    ("garbage", "not JSON"),
    ("not utf-8", "not JSON"),
    ("nan", "NaN"),
    ("twice", "twice"),
    ("more fields", "no envelope"),
    ("unknown id", "call 999, which is not in flight"),
    ("answered twice", "call 1, which is not in flight"),
    ("unknown call", "call 77, which is not in flight"),
    ("same rid twice", "ids must rise"),
    ("deep", "deep"),
    ("flood", "more than 64 requests"),
    ("closed", "closed its channel"),
    ("raw output", "raw output"),
]


@pytest.mark.parametrize(("attack", "words"), ATTACKS)
async def test_breaking_the_rules_of_the_channel_kills_the_worker(load: Load, attack: str, words: str) -> None:
    worker = await load(ATTACK)

    async def host(method: str, params: dict[str, Any]) -> None:
        await anyio.sleep_forever()

    with pytest.raises(PluginFailed, match=words) as caught:
        await run(worker, attack, host=host)
    assert caught.value.kind == "ProtocolViolation"
    assert "bad broke the rules of its channel" in caught.value.message
    assert not worker.alive
    await worker.ended()
    assert await gone(worker)


async def test_the_attack_code_itself_is_harmless(load: Load) -> None:
    assert await run(await load(ATTACK), "nothing") == "well"


async def test_a_flood_that_does_not_read_costs_the_host_little(load: Load) -> None:
    worker = await load(
        ATTACK
        + textwrap.dedent(
            """
            def run(params):
                body = frame(ask(0))
                for n in range(1, 10**9):
                    write(frame(ask(n)))
            """
        ),
        limits=WorkerLimits(requests_per_second=200),
    )
    longest = 0.0  # seconds of the processor between two turns of the loop; what the machine does besides is not ours

    async def host(method: str, params: dict[str, Any]) -> str:
        return "x" * 100_000

    async def watch() -> None:
        nonlocal longest
        while True:
            last = time.thread_time()
            await anyio.sleep(0.005)
            longest = max(longest, time.thread_time() - last)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with pytest.raises(PluginFailed):
            await run(worker, timeout=15, host=host)
        tasks.cancel_scope.cancel()
    assert longest < 0.5


async def test_answers_that_nobody_reads_do_not_pile_up(load: Load, tmp_path: Path) -> None:
    worker = await load(
        ATTACK
        + textwrap.dedent(
            """
            import pathlib
            def run(params):
                heard = pathlib.Path(__file__).with_name("heard")
                for n in range(1, 10**9):
                    write(frame(ask(n)))
                    if n % 10 == 0:  # no faster than the host hears them, so that there are never too many in flight
                        while heard.stat().st_size < n:
                            time.sleep(0.001)
            """
        )
    )
    most = 0

    async def host(method: str, params: dict[str, Any]) -> str:
        nonlocal most
        most = max(most, worker._channel._backlog_bytes)
        heard.write(b".")
        return "x" * 100_000

    with (
        (tmp_path / "heard").open("ab", buffering=0) as heard,
        pytest.raises(PluginFailed, match="more than 64 requests in flight"),
    ):
        await run(worker, timeout=20, host=host)
    assert 1 << 20 < most < HIGH_WATER + 70 * 100_000


async def test_a_plugin_that_breaks_its_own_sdk_hurts_itself_only(load: Load) -> None:
    worker = await load(
        """
        import json, eventcore.sdk.context as c, eventcore.plugins.sandbox.worker.runtime as r
        def run(params):
            r.encode = lambda value: b"{"
            c._bound = None
            return 1
        """
    )
    with pytest.raises(PluginFailed):
        await run(worker, timeout=1)


@pytest.mark.parametrize("launcher", ["bare"], indirect=True)
async def test_a_machine_without_the_means_says_so(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="on Linux only, and this is darwin"):
        await load("def run(p): ...")
    monkeypatch.undo()
    before = set(Path("/proc/self/fd").iterdir())

    def no_pidfd(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    with pytest.raises(SandboxUnavailable, match="Function not implemented"):
        await load("def run(p): ...")
    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)
