"""Warm workers that run well-behaved plugins, in real processes."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

import eventcore
from eventcore.kernel.errors import Conflict, Interrupted, InvalidPayload, PermissionDenied, PluginFailed
from eventcore.plugins.sandbox.launch import Launcher, Process, spawn
from eventcore.plugins.sandbox.linux.namespaces import SCRATCH
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import Allowance, WorkerLimits, WorkerSpec

pytestmark = pytest.mark.anyio

Load = Callable[..., Awaitable[ProcessWorker]]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def load(tmp_path: Path, launcher: Launcher) -> AsyncIterator[Load]:
    """Writes a plugin, starts a worker for it and loads it; all workers are closed at the end."""
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:

        async def make(code: str, *, files: dict[str, str] | None = None, **spec: Any) -> ProcessWorker:
            folder = tmp_path / spec.pop("folder", "my-plugin")
            folder.mkdir(exist_ok=True)
            for name, text in {"handler.py": code, **(files or {})}.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(textwrap.dedent(text))
            worker = await ProcessWorker.start(
                WorkerSpec(**{"slug": "my-plugin", "dir": folder, **spec}), tasks, launcher=launcher
            )
            stack.push_async_callback(worker.close, 1.0)
            await worker.load()
            return worker

        with anyio.fail_after(60):
            yield make


async def run(worker: ProcessWorker, params: Any = None, **options: Any) -> Any:
    return (await worker.call("run", {"params": params}, timeout=options.pop("timeout", 10), **options))["result"]


async def test_run_sync_and_async(load: Load) -> None:
    plain = await load("def run(params):\n    return {'got': params}")
    assert await run(plain, {"x": [1, None, "ä"]}) == {"got": {"x": [1, None, "ä"]}}
    gentle = await load("async def handle(params):\n    return params['x'] + 1", entry_point="handle", slug="other")
    assert await run(gentle, {"x": 1}) == 2


async def test_what_is_registered(load: Load) -> None:
    worker = await load(
        """
        from eventcore.sdk import filter, gate, observe
        __plugin_info__ = {"name": "my", "capabilities": ["a"]}
        async def on_order_created(event): ...
        @gate("on_message", priority=3, recheck=True, after="audit")
        async def no_spam(message): ...
        def on_message(message): ...
        def on_command(command, args): ...
        @observe
        def on_deploy(payload): ...
        def helper(): ...
        """
    )
    registered = worker.registered
    assert [(h["hook"], h["function"], h["stage"], h["priority"], h["recheck"]) for h in registered["hooks"]] == [
        ("on_message", "no_spam", "gate", 3, True),
        ("on_message", "on_message", "reply", 0, False),
        ("on_deploy", "on_deploy", "observe", 0, False),
    ]
    assert registered["hooks"][0]["after"] == ["audit"]
    assert [hook["line"] for hook in registered["hooks"]] == [5, 7, 9]
    assert registered["events"] == [{"event": "order_created", "function": "on_order_created", "line": 4}]
    assert registered["info"] == {"name": "my", "capabilities": ["a"]}
    assert (registered["entry"], registered["class"], registered["commands"]) == (False, False, True)


async def test_class_style(load: Load) -> None:
    worker = await load(
        """
        class MyPlugin:
            def __init__(self, config):
                self.config = config
            async def initialize(self):
                self.ready = True
                return True
            async def execute(self, context):
                return [self.ready, self.config["k"], context["message"]]
            def health_check(self):
                return {"status": "healthy", "version": "1"}
            def cleanup(self):
                open(self.config["mark"], "w").close()
        """,
        class_name="MyPlugin",
        config={"k": 7, "mark": "cleaned"},
    )
    assert worker.registered["class"]
    assert worker.registered["entry"]
    assert await run(worker, {"message": "hi"}) == [True, 7, "hi"]
    health = await worker.call("health", {}, timeout=5)
    assert health["result"] == {"status": "healthy", "version": "1"}


async def test_close_calls_cleanup_and_a_hanging_one_is_killed(load: Load, tmp_path: Path) -> None:
    mark = tmp_path / "marks" / "cleaned"
    mark.parent.mkdir()
    code = f"def run(p): ...\nasync def cleanup():\n    open({str(mark)!r}, 'w').close()"
    tidy = await load(code, allow=Allowance(write=(str(mark.parent),)))
    await tidy.close()
    assert mark.exists()
    stuck = await load("def run(p): ...\ndef cleanup():\n    while True: pass")
    with anyio.fail_after(20):
        await stuck.close(0.2)
    assert not stuck.alive
    with pytest.raises(Interrupted):
        await run(stuck)


async def test_initialize_that_says_no(load: Load) -> None:
    for body in ("async def initialize(self): return False", "def initialize(self): return False"):
        with pytest.raises(PluginFailed, match="initialize returned False") as caught:
            await load(f"class P:\n    {body}\n    def execute(self, c): ...", class_name="P")
        assert caught.value.kind == "InitializeFailed"


async def test_hooks_and_their_verdicts(load: Load) -> None:
    worker = await load(
        """
        from eventcore.sdk import *
        def on_message(message, ctx):
            return {"deny": Deny("no spam"), "replace": Replace({"text": "x"}), "stop": Stop(1), "plain": [ctx.actor],
                    "none": None}[message["text"]]
        async def on_startup():
            return "no arguments wanted"
        """
    )

    async def ask(text: str) -> Any:
        params = {"function": "on_message", "args": [{"text": text}]}
        return (await worker.call("hook", params, timeout=5, context={"actor": "user:ada"}))["result"]

    assert await ask("deny") == {"verdict": "deny", "reason": "no spam"}
    assert await ask("replace") == {"verdict": "replace", "value": {"text": "x"}}
    assert await ask("stop") == {"verdict": "stop", "value": 1}
    assert await ask("plain") == {"value": ["user:ada"]}
    assert await ask("none") == {"value": None}
    answer = await worker.call("hook", {"function": "on_startup", "args": [{}]}, timeout=5)
    assert answer["result"] == {"value": "no arguments wanted"}


async def test_events_and_commands(load: Load) -> None:
    worker = await load(
        """
        async def on_order_created(event):
            return [event.type, event["data"]["id"], event.key]
        def on_command(command, args):
            return {"did": [command, *args]}
        """
    )
    event = {"type": "order_created", "data": {"id": 1}}
    answer = await worker.call("event", {"function": "on_order_created", "event": event}, timeout=5)
    assert answer["result"]["value"] == ["order_created", 1, None]
    answer = await worker.call("command", {"command": "/my", "args": ["a", "b"]}, timeout=5)
    assert answer["result"] == {"did": ["/my", "a", "b"]}


ASKS = """
from eventcore.sdk import PermissionDenied, PluginError, ctx
async def gentle():
    receipt = await ctx.emit("data_processed", {"rows": 3}, key="k")
    notes = await ctx.memory.read("weather")
    try:
        await ctx.request("secret", {})
    except PermissionDenied as error:
        refused = str(error)
    try:
        await ctx.workflows.start("x", {})
    except PluginError as error:
        code = error.code
    return [receipt, notes, refused, code]
def plain():
    receipt = ctx.emit("data_processed", {"rows": 3}, key="k").value
    notes = ctx.memory.read("weather").value
    try:
        ctx.request("secret", {})
    except PermissionDenied as error:
        refused = str(error)
    try:
        ctx.workflows.start("x", {})
    except PluginError as error:
        code = error.code
    return [receipt, notes, refused, code]
"""


@pytest.mark.parametrize("style", ["plain", "gentle"])
async def test_ctx_asks_the_host(load: Load, style: str) -> None:
    worker = await load(ASKS, entry_point=style)
    asked: list[Any] = []

    async def host(method: str, params: dict[str, Any]) -> Any:
        asked.append((method, params))
        if method == "request":
            raise PermissionDenied("not granted: plugin_communication")
        if method == "workflows.start":
            raise Conflict("another one runs")
        return {"of": method}

    answer = await worker.call("run", {"params": None}, timeout=10, host=host)
    assert answer["result"] == [
        {"of": "emit"},
        {"of": "memory.read"},
        "not granted: plugin_communication",
        "conflict",
    ]
    assert asked[0] == ("emit", {"type": "data_processed", "data": {"rows": 3}, "key": "k", "now": False})
    assert [method for method, _ in asked] == ["emit", "memory.read", "request", "workflows.start"]


async def test_what_is_not_awaited_still_happens_before_the_answer(load: Load) -> None:
    worker = await load(
        """
        from eventcore.sdk import ctx
        async def run(params):
            for number in range(200):
                ctx.emit("x", number)
            return "done"
        """
    )
    got: list[int] = []

    async def host(method: str, params: dict[str, Any]) -> Any:
        await anyio.lowlevel.checkpoint()
        got.append(params["data"])

    assert await run(worker, host=host) == "done"
    assert got == list(range(200))


async def test_a_fault_of_the_host_is_an_error_in_the_plugin(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    code = "from eventcore.sdk import ctx\ndef run(p):\n    ctx.emit('x')"
    worker = await load(code)

    async def broken(method: str, params: dict[str, Any]) -> Any:
        raise RuntimeError("a secret")

    with pytest.raises(PluginFailed, match="the host failed on emit") as caught:
        await run(worker, host=broken)
    assert "a secret" not in str(caught.value.trace)
    assert "a secret" in caplog.text
    with pytest.raises(PluginFailed) as caught:
        await run(worker)
    assert caught.value.kind == "PermissionDenied"

    async def odd(method: str, params: dict[str, Any]) -> Any:
        return {1, 2}

    with pytest.raises(PluginFailed, match="the answer to emit is not JSON"):
        await run(worker, host=odd)
    assert worker.alive


async def test_ctx_shows_the_call_and_the_config(load: Load) -> None:
    worker = await load(
        """
        from eventcore.sdk import ctx
        def run(params, ctx=None):
            return [ctx.tenant, ctx.actor, sorted(ctx.permissions), dict(ctx.config)]
        """,
        config={"k": 1},
    )
    context = {"tenant": "acme", "actor": "user:ada", "permissions": ["network_access"]}
    assert await run(worker, context=context) == ["acme", "user:ada", ["network_access"], {"k": 1}]
    assert await run(worker) == ["default", "system", [], {"k": 1}]


async def test_ctx_is_over_when_the_handler_has_returned(load: Load) -> None:
    worker = await load(
        """
        import asyncio
        from eventcore.sdk import ctx
        late, over = [], asyncio.Event()
        async def run(params):
            if params == "start":
                asyncio.get_running_loop().create_task(later())
                return None
            over.set()
            while not late:
                await asyncio.sleep(0.001)
            return late[0]
        async def later():
            await over.wait()
            try:
                ctx.emit("x")
            except Exception as error:
                late.append(str(error))
        """
    )
    assert await run(worker, "start") is None
    assert "the call is over" in await run(worker, "look")


async def test_output_of_concurrent_calls_is_kept_apart(load: Load) -> None:
    worker = await load(
        """
        import asyncio, sys
        arrived = []
        async def run(params):
            print("begin", params)
            arrived.append(params)
            while len(arrived) < 10:
                await asyncio.sleep(0)
            print("end", params)
            print("oops", params, file=sys.stderr)
            sys.stdout.buffer.write(b"bytes")
        """
    )
    answers: dict[int, dict[str, Any]] = {}

    async def one(number: int) -> None:
        answers[number] = await worker.call("run", {"params": number}, timeout=10)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(one, number)
    for number, answer in answers.items():
        assert answer["stdout"] == f"begin {number}\nend {number}\nbytes"
        assert answer["stderr"] == f"oops {number}\n"


async def test_output_is_capped_and_cleaned(load: Load) -> None:
    worker = await load("def run(p):\n    print('\\ud800' + '\\0' * 100_000 + 'x')")
    answer = await worker.call("run", {"params": 1}, timeout=10)
    assert answer["stdout"].startswith("\\ud800\\x00\\x00")
    assert answer["stdout"].endswith("[34,467 more characters were dropped]")


async def test_logging_goes_to_the_host(load: Load) -> None:
    worker = await load(
        """
        import logging
        from eventcore.sdk import ctx
        log = logging.getLogger("my.part")
        async def run(params):
            for number in range(100):
                log.info("line %d", number)
            ctx.log("warning", "done")
        """
    )
    lines: list[Any] = []

    async def host(method: str, params: dict[str, Any]) -> None:
        assert method == "log"
        lines.append((params["level"], params["logger"], params["message"]))

    await run(worker, host=host)
    assert lines == [("info", "my.part", f"line {n}") for n in range(100)] + [("warning", "", "done")]


async def test_relative_imports_data_files_and_a_hyphenated_folder(load: Load) -> None:
    worker = await load(
        """
        import sys
        from importlib import resources
        from pathlib import Path
        from . import helper
        from .parts.deep import answer
        def run(params):
            text = resources.files(__package__).joinpath("data.txt").read_text()
            here = str(Path(__file__).parent)
            return [helper.NAME, answer(), text, __name__, here in sys.path, "" in sys.path, Path.cwd() == Path(here)]
        """,
        files={
            "helper.py": "NAME = 'helper'",
            "parts/deep.py": "from ..helper import NAME\ndef answer(): return NAME * 2",
            "data.txt": "data",
        },
        folder="a-b c",
    )
    name = "eventcore._loaded.plugins.my_plugin.handler"
    assert await run(worker) == ["helper", "helperhelper", "data", name, False, False, False]
    assert not list(worker.spec.dir.rglob("__pycache__"))


async def test_a_neighbour_cannot_shadow_the_standard_library(load: Load) -> None:
    worker = await load(
        "import json, sys, wave\ndef run(p): return [hasattr(json, 'dumps'), hasattr(wave, 'open'), sys.path]",
        files={"json.py": "", "wave.py": ""},
    )
    dumps, opens, path = await run(worker)
    assert dumps
    assert opens
    root = str(Path(eventcore.__file__).parent.parent)
    assert path.index(root) > path.index(os.path.dirname(os.__file__))


async def test_import_errors_have_a_trace(load: Load) -> None:
    with pytest.raises(PluginFailed) as caught:
        await load("import json\n\nraise ValueError('at import')")
    assert caught.value.kind == "ValueError"
    assert 'handler.py", line 3' in str(caught.value.trace)
    assert "sandbox/worker" not in str(caught.value.trace)
    with pytest.raises(PluginFailed) as caught:
        await load("def run(:", slug="a")
    assert caught.value.kind == "SyntaxError"
    with pytest.raises(PluginFailed, match=r"from \. import helper"):
        await load("import helper", files={"helper.py": ""}, slug="b")
    with pytest.raises(PluginFailed) as caught:
        await load("", module="none.py", slug="c")
    assert caught.value.kind == "NoSuchModule"


async def test_errors_of_handlers(load: Load) -> None:
    worker = await load(
        """
        import sys
        from eventcore.sdk import TransientError
        class Odd(Exception):
            def __str__(self): raise ValueError
        def deep(n): return deep(n + 1)
        async def on_exit(event): sys.exit(3)
        def run(params):
            print("before")
            if params == "exit": sys.exit(3)
            if params == "interrupt": raise KeyboardInterrupt
            if params == "transient": raise TransientError("again")
            if params == "odd": raise Odd
            if params == "deep": deep(0)
            raise KeyError("x\\x1b[31m\\ud800")
        """
    )

    async def failure(params: str) -> PluginFailed:
        with pytest.raises(PluginFailed) as caught:
            await run(worker, params)
        assert worker.alive
        return caught.value

    error = await failure("")
    assert (error.kind, error.output, error.details) == (
        "KeyError",
        {"stdout": "before\n", "stderr": ""},
        {"transient": False},
    )
    assert "\x1b" not in error.message
    assert "in run" in str(error.trace)
    assert (await failure("exit")).kind == "SystemExit"
    assert (await failure("interrupt")).kind == "KeyboardInterrupt"
    assert (await failure("transient")).details == {"transient": True}
    assert (await failure("odd")).kind == "Odd"
    assert (await failure("deep")).kind == "RecursionError"
    with pytest.raises(PluginFailed) as caught:
        await worker.call("event", {"function": "on_exit", "event": {}}, timeout=5)
    assert caught.value.kind == "SystemExit"
    with pytest.raises(PluginFailed) as caught:
        await worker.call("hook", {"function": "nope", "args": []}, timeout=5)
    assert caught.value.kind == "NoSuchFunction"


@pytest.mark.parametrize("keyword", ["", "async "])
async def test_results_that_cannot_be_sent(load: Load, keyword: str) -> None:
    worker = await load(
        f"""
        {keyword}def run(params):
            return {{"set": {{"a": [1, {{2}}]}}, "key": {{1: 2}}, "nan": float("nan"), "big": "x" * 2_000_000}}[params]
        """
    )
    for params, kind, text in [
        ("set", "ResultNotJSON", r"a\[1\] is a set"),
        ("key", "ResultNotJSON", "key 1"),
        ("nan", "ResultNotJSON", "nan"),
        ("big", "ResultTooLarge", "2,000,0"),
    ]:
        with pytest.raises(PluginFailed, match=text) as caught:
            await run(worker, params)
        assert caught.value.kind == kind
    assert worker.alive


async def test_params_that_cannot_be_sent(load: Load) -> None:
    worker = await load("def run(p): return 1")
    with pytest.raises(InvalidPayload, match="is a set"):
        await run(worker, {1, 2})
    with pytest.raises(InvalidPayload, match="limit"):
        await run(worker, "x" * 1_100_000)
    assert await run(worker) == 1


async def test_async_handlers_run_side_by_side(load: Load) -> None:
    worker = await load(
        """
        import asyncio
        gate = asyncio.Event()
        async def run(params):
            if params == "open":
                gate.set()
            await gate.wait()
            return params
        """
    )
    results: list[Any] = []

    async def one(params: Any) -> None:
        results.append(await run(worker, params))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(one, number)
        tasks.start_soon(one, "open")
    assert len(results) == 51


async def test_plain_functions_wait_for_their_turn_and_time_starts_then(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves with each call, so that all of them together take far longer than one may."""
    worker = await load("from eventcore.sdk import ctx\ndef run(p):\n    ctx.emit('x')\n    return p")
    now, left, results = 1000.0, list[float](), list[int]()
    monkeypatch.setattr("eventcore.plugins.sandbox.inflight.time", SimpleNamespace(monotonic=lambda: now))

    async def host(method: str, params: dict[str, Any]) -> None:
        nonlocal now
        [call] = worker._calls.values()
        left.append(call.due - now)
        now += 20

    async def one(number: int) -> None:
        results.append(await run(worker, number, timeout=30, host=host))

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(one, number)
    assert sorted(results) == list(range(8))
    assert left == [30] * 8
    assert worker.alive


async def test_what_a_module_leaves_in_the_loop_goes_on_between_calls_of_plain_functions(load: Load) -> None:
    worker = await load(
        """
        import asyncio
        ticks = []
        def tick(loop):
            ticks.append(1)
            loop.call_later(0.005, tick, loop)
        tick(asyncio.get_running_loop())
        def run(params):
            return len(ticks)
        """
    )
    with anyio.fail_after(5):
        before = await run(worker)
        while await run(worker) < before + 3:
            await anyio.sleep(0.005)


async def test_plain_functions_may_use_asyncio_run(load: Load) -> None:
    worker = await load(
        """
        import asyncio
        from eventcore.sdk import ctx
        async def part():
            await asyncio.sleep(0)
            return await ctx.emit("x")
        def run(params):
            return asyncio.run(part())
        async def on_ping(event):
            await asyncio.sleep(0)
            return "pong"
        """
    )

    async def host(method: str, params: dict[str, Any]) -> str:
        return "ok"

    assert await run(worker, host=host) == "ok"
    answer = await worker.call("event", {"function": "on_ping", "event": {}}, timeout=5)
    assert answer["result"]["value"] == "pong"


async def test_the_environment_is_clean(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    worker = await load(
        """
        import os
        def run(params):
            open("file", "w").close()
            return [sorted(os.environ), os.environ["HOME"], os.getcwd(), [fd for fd in range(256) if is_open(fd)]]
        def is_open(fd):
            try:
                return bool(os.fstat(fd))
            except OSError:
                return False
        """
    )
    names, home, cwd, fds = await run(worker)
    # LC_CTYPE may be added by Python's own locale coercion.
    assert set(names) - {"TZ", "LC_CTYPE"} == {"HOME", "LANG", "PATH", "TMPDIR"}
    assert home == cwd
    assert Path(home).is_dir() == (home != SCRATCH)  # in the sandbox it is in the worker's own view
    assert len(fds) <= 8  # 0-2, the channel, the loop's epoll and self-pipe
    await worker.close()
    assert not Path(home).exists()


async def test_cancelled_callers_leave_the_worker_well(load: Load) -> None:
    worker = await load(
        """
        import asyncio
        from eventcore.sdk import ctx
        async def run(params):
            if params == "wait":
                ctx.log("info", "here")
                await asyncio.sleep(0.05)
            return params
        """
    )
    with anyio.CancelScope() as scope:

        async def host(method: str, params: dict[str, Any]) -> None:
            scope.cancel()

        await run(worker, "wait", host=host)
    assert scope.cancelled_caught
    assert await run(worker, "next") == "next"
    while worker._calls:  # the late answer of the cancelled call arrives, and is no violation
        await anyio.sleep(0.01)
    assert await run(worker, "last") == "last"


async def test_too_many_calls_are_refused(load: Load) -> None:
    worker = await load("import time\ndef run(p): time.sleep(0.2)", limits=WorkerLimits(calls=2))
    kinds: list[str] = []

    async def one() -> None:
        try:
            await run(worker)
        except PluginFailed as error:
            kinds.append(error.kind)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(one)
    assert kinds == ["Overloaded", "Overloaded"]


async def test_requests_above_the_rate_wait(load: Load) -> None:
    worker = await load(
        "from eventcore.sdk import ctx\ndef run(n):\n    for i in range(n): ctx.emit('x')",
        limits=WorkerLimits(requests_per_second=100),
    )

    async def host(method: str, params: dict[str, Any]) -> None: ...

    began = anyio.current_time()
    await run(worker, 120, host=host)
    assert anyio.current_time() - began >= 0.15


async def test_nothing_is_left_behind(load: Load) -> None:
    await (await load("def run(p): return 1", slug="warm-up")).close()
    gc.collect()
    threads = threading.active_count()
    before = sorted(os.listdir("/proc/self/fd"), key=int)
    for _ in range(3):
        worker = await load("import time\ndef run(p): return 1")
        await run(worker)
        await worker.close()
        while Path(f"/proc/{worker.pid}").exists():  # until the zygote has reaped it; `load` sets a time limit
            await anyio.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert threading.active_count() <= threads
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    assert str(worker.pid) not in children


async def test_a_cancelled_task_group_kills_its_workers(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("def run(p):\n    while True: pass")
    async with anyio.create_task_group() as tasks:
        worker = await ProcessWorker.start(WorkerSpec("x", tmp_path), tasks)
        await worker.load()
        tasks.cancel_scope.cancel()
    assert not Path(f"/proc/{worker.pid}").exists()


async def test_a_start_cancelled_at_once_leaves_no_process(tmp_path: Path) -> None:
    started: list[Process] = []

    async def launcher(spec: WorkerSpec) -> Process:
        started.append(await spawn(spec))
        scope.cancel()
        return started[0]

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            await ProcessWorker.start(WorkerSpec("x", tmp_path), tasks, launcher=launcher)
        assert scope.cancelled_caught
    assert not Path(f"/proc/{started[0].pid}").exists()


def test_an_engine_may_run_under_asyncio_run(tmp_path: Path) -> None:
    """There anyio does not mark the context of the loop's callbacks, as it does under `anyio.run`."""
    (tmp_path / "handler.py").write_text("from eventcore.sdk import ctx\ndef run(p): return ctx.emit('x').value")

    async def host(method: str, params: dict[str, Any]) -> str:
        return "ok"

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            worker = await ProcessWorker.start(WorkerSpec("x", tmp_path), tasks)
            await worker.load()
            assert await run(worker, host=host) == "ok"
            await worker.close()

    asyncio.run(main())


HOST = """
import sys, anyio
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from eventcore.plugins.sandbox.linux.namespaces import SCRATCH
from eventcore.plugins.sandbox.launch import Launcher, Process, spawn
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import WorkerSpec
async def main():
    async with anyio.create_task_group() as tasks:
        worker = await ProcessWorker.start(WorkerSpec("x", Path(sys.argv[1])), tasks)
        await worker.load()
        async def started(method, params):
            print(worker.pid, flush=True)
        await worker.call("run", {"params": sys.argv[3]}, timeout=60, host=started)
anyio.run(main)
"""


@pytest.mark.parametrize("how", ["busy", "asleep"])
async def test_workers_die_with_their_host(tmp_path: Path, how: str) -> None:
    (tmp_path / "handler.py").write_text(
        "import asyncio, signal, time\nfrom eventcore.sdk import ctx\n"
        "async def run(how):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    await ctx.log('info', 'here')\n"
        "    while how == 'busy': pass\n"
        "    await asyncio.sleep(60)\n"
    )
    root = str(Path(eventcore.__file__).parent.parent)
    command = [sys.executable, "-c", HOST, str(tmp_path), root, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        pid = int(await anyio.to_thread.run_sync(host.stdout.readline))
        fd = os.pidfd_open(pid)
        try:
            host.kill()
            with anyio.fail_after(30):
                await anyio.wait_readable(fd)
        finally:
            os.close(fd)


async def test_plain_functions_may_need_the_loop_all_the_same(load: Load) -> None:
    """A worker whose functions are all plain waits for calls without its loop, but not while a task or thread is on."""
    worker = await load(
        """
        import asyncio, threading, time
        done = []
        async def later(n):
            await asyncio.sleep(0.01)
            return {"late": n}
        def run(params):
            if "later" in params:
                return later(params["later"])
            so_far = len(done)
            if "thread" in params:
                threading.Thread(target=lambda: (time.sleep(0.05), done.append(1))).start()
            return {"done": so_far}
        """
    )
    assert await run(worker, {}) == {"done": 0}
    assert await run(worker, {"later": 1}) == {"late": 1}
    got: list[Any] = []

    async def ask(params: dict[str, Any]) -> None:
        got.append(await run(worker, params))

    async with anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(ask, {"later": n})
            tasks.start_soon(ask, {})
    assert sorted(map(str, got)) == sorted([str({"late": n}) for n in range(5)] + [str({"done": 0})] * 5)
    assert await run(worker, {"thread": True}) == {"done": 0}
    while await run(worker, {}) != {"done": 1}:  # `load` sets a time limit
        await anyio.sleep(0.01)
    assert await run(worker, {}) == {"done": 1}
