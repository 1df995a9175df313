"""What makes a warm call quick must not make it lax: the quick parser, the one watchdog, the cached look-ups."""

from __future__ import annotations

import json
import math
import os
import socket
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore.kernel.json import encode
from eventcore.observe.metrics import NullMetrics, PrometheusMetrics
from eventcore.plugins.sandbox import frames
from eventcore.plugins.sandbox.bell import Bell
from eventcore.plugins.sandbox.inflight import InFlight, Watchdog
from eventcore.plugins.sandbox.parsing import parse
from eventcore.plugins.sandbox.worker.channel import HostChannel
from eventcore.plugins.sandbox.zygote.rehearsal import rehearse


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- the worker's side ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plain", "served"), [(True, 3), (False, 1)])
def test_a_plain_plugin_is_served_without_turns_of_the_loop(plain: bool, served: int) -> None:
    """One turn takes all calls, as they come, where nothing needs the loop; else one, as async handlers have theirs."""
    ours, theirs = socket.socketpair()
    seen: list[int] = []
    readers: list[Any] = []
    loop: Any = SimpleNamespace(add_reader=lambda sock, ready: readers.append(ready), call_soon=lambda f: None)

    def handle(frame: dict[str, Any]) -> bool:
        seen.append(frame["id"])
        if len(seen) < 3:
            ours.sendall(frames.pack(b'{"id":%d}' % len(seen)))
        return True

    with ours, theirs:
        HostChannel(theirs, loop).start(handle, lambda: plain and len(seen) < 3)
        ours.sendall(frames.pack(b'{"id":0}'))
        readers[0]()
    assert seen == list(range(served))


# -- the quick parser ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"r":[{"a":1,"b":2,"a":1}]}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":1}x',
        b"[1]",
        b'{"a":' * 3000,
    ],
)
def test_the_quick_parser_refuses_what_the_strict_one_refuses(body: bytes) -> None:
    with pytest.raises(frames.FrameError) as strict:
        frames.parse(body)
    with pytest.raises(frames.FrameError) as quick:
        parse(body)
    assert str(quick.value) == str(strict.value)


def test_numbers_beyond_64_bits_come_through_as_they_are() -> None:
    assert parse(b'{"a":%d,"b":1E5,"c":1.0}' % 2**70) == {"a": 2**70, "b": 100000.0, "c": 1.0}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), _VALUES), st.booleans(), st.booleans())
def test_both_parsers_read_the_same(value: dict[str, Any], escaped: bool, spaced: bool) -> None:
    try:
        body = json.dumps(value, ensure_ascii=escaped, separators=None if spaced else (",", ":")).encode()
    except UnicodeEncodeError:
        return
    try:
        expected: Any = frames.parse(body)
    except frames.FrameError as error:
        with pytest.raises(frames.FrameError, match=str(error).split(":")[0]):
            parse(body)
        return
    # As text: 1 and 1.0 and True are equal in Python.
    assert repr(parse(body)) == repr(expected)


# -- waiting -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_bell_is_heard_before_and_after_it_is_waited_for() -> None:
    early, late = Bell(), Bell()
    early.ring()
    early.ring()
    with anyio.fail_after(60):
        await early.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(late.wait)
            await anyio.wait_all_tasks_blocked()
            late.ring()


@pytest.mark.anyio
async def test_a_bell_whose_waiter_was_cancelled_may_be_rung() -> None:
    bell = Bell()
    with anyio.move_on_after(0):
        await bell.wait()
    bell.ring()


@pytest.mark.anyio
async def test_the_watchdog_tells_of_the_first_that_is_due_and_not_of_one_that_was_renewed() -> None:
    calls: dict[int, InFlight] = {}
    told: list[str] = []
    first = anyio.Event()

    def overdue(call: InFlight) -> None:
        told.append(call.label)
        del calls[call.id]
        first.set()

    watchdog = Watchdog(calls.values, overdue)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watchdog.run)
        await anyio.wait_all_tasks_blocked()
        for number, (label, timeout) in enumerate({"long": 60.0, "renewed": 0.05, "short": 0.1}.items()):
            calls[number] = InFlight(number, label, None, False, timeout)
            watchdog.watch(calls[number])
        calls[1].timeout = 60.0
        calls[1].renew()
        with anyio.fail_after(60):
            await first.wait()
        tasks.cancel_scope.cancel()
    assert told == ["short"]


# -- what is looked up once ----------------------------------------------------------------------------------------


def test_a_recorder_records_where_the_metric_does() -> None:
    metrics = PrometheusMetrics(strict=True)
    metrics.recorder("plugin_calls_total", plugin="greeter")(2)
    metrics.count("plugin_calls_total", plugin="greeter")
    metrics.recorder("plugin_execution_seconds", plugin="greeter")(0.2)
    text = metrics.text()
    assert 'plugin_calls_total{plugin="greeter"} 3.0' in text
    assert 'plugin_execution_seconds_count{plugin="greeter"} 1' in text
    NullMetrics().recorder("plugin_calls_total", plugin="greeter")(1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_found_wherever_it_stands_beside_a_null(bad: float) -> None:
    for value in ({"a": None, "b": bad}, [None, [{"x": (1, bad)}]], {"a": {"b": [None]}, "c": [[bad]]}):
        with pytest.raises(Exception, match="JSON cannot hold"):
            encode(value)
    assert encode({"a": None, "b": [1.5, (2.5, {"c": None})]}) == b'{"a":null,"b":[1.5,[2.5,{"c":null}]]}'


def test_a_rehearsal_leaves_nothing_behind(tmp_path: Path) -> None:
    modules, paths, written = set(sys.modules), set(sys.path_importer_cache), sys.dont_write_bytecode
    sockets = _open_sockets()
    rehearse(str(tmp_path))
    rehearse(str(tmp_path / "missing"))
    assert list(tmp_path.iterdir()) == []
    assert not [name for name in set(sys.modules) - modules if "_loaded" in name]
    assert not [path for path in set(sys.path_importer_cache) - paths if str(tmp_path) in path]
    assert sys.dont_write_bytecode is written
    assert _open_sockets() == sockets


def _open_sockets() -> int:
    return sum(stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in range(64) if _is_open(fd))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.anyio
async def test_a_cancelled_call_lets_the_next_one_in() -> None:
    """Its turn ends with its answer, not with the patience of its caller."""
    from eventcore.plugins.sandbox.process import ProcessWorker
    from eventcore.plugins.sandbox.spec import WorkerSpec

    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    class Fake:
        pid, output, inside = 1, 0, {}
        sock = ours

        def kill(self) -> None: ...

        async def look_first(self) -> None: ...

    with ours, theirs:
        fake: Any = Fake()
        worker = ProcessWorker(WorkerSpec("x", Path("/")), fake)
        worker._sync = frozenset({"run"})
        with anyio.move_on_after(0.01):
            await worker.call("run", {"params": {}}, timeout=60)
        got: list[Any] = []

        async def second() -> None:
            got.append(await worker.call("run", {"params": {}}, timeout=60))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            assert len(frames.FrameBuffer().feed(theirs.recv(65536))) == 1  # the second one is held back
            for number in (1, 2):
                answer = {"id": number, "ok": True, "result": number, "stdout": "", "stderr": ""}
                theirs.sendall(frames.pack(json.dumps(answer, separators=(",", ":")).encode()))
                await anyio.wait_all_tasks_blocked()
                worker._channel._readable(once=True)
                await anyio.wait_all_tasks_blocked()
        assert got == [{"result": 2, "stdout": "", "stderr": ""}]
