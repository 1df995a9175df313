"""Frames and the host's end of the channel."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from eventcore.plugins.sandbox import channel as channel_module
from eventcore.plugins.sandbox.channel import HIGH_WATER, Channel
from eventcore.plugins.sandbox.frames import (
    MAX_FRAME,
    FrameBuffer,
    FrameError,
    NotJSON,
    check_from_worker,
    encode,
    pack,
    parse,
)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_frames_survive_any_cutting() -> None:
    bodies = [b"", b"a", b"x" * 70_000, b"last"]
    stream = b"".join(pack(body) for body in bodies)
    for size in (1, 3, 4, 5, 65_536, len(stream)):
        buffer = FrameBuffer()
        got = [body for at in range(0, len(stream), size) for body in buffer.feed(stream[at : at + size])]
        assert got == bodies


def test_length_is_checked_before_anything_is_buffered() -> None:
    FrameBuffer().feed(struct.pack(">I", MAX_FRAME))
    with pytest.raises(FrameError, match="announced"):
        FrameBuffer().feed(struct.pack(">I", MAX_FRAME + 1))
    with pytest.raises(FrameError):
        pack(b"x" * (MAX_FRAME + 1))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"nonsense", "not JSON"),
        (b'{"a":1} trailing', "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[1]", "object"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":1e999}', "bounds"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"r":{"a":1,"a":2}}', "twice"),
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"a":' + b"[" * 500_000, "deep"),
        (b'{"a":' * 150_000, "deep"),
    ],
)
def test_bad_bodies_are_refused(body: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        parse(body)


def test_a_surrogate_pair_is_text() -> None:
    assert parse(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


_RESULT = {"id": 1, "ok": True, "result": None, "stdout": "", "stderr": ""}
_ERROR = {"kind": "E", "message": "", "trace": "", "transient": False}
_FAILURE = {"id": 1, "ok": False, "error": _ERROR, "stdout": "", "stderr": ""}
_REQUEST = {"rid": 1, "call": 1, "method": "emit", "params": {}}


def test_envelopes() -> None:
    assert check_from_worker(_RESULT) == "result"
    assert check_from_worker(_FAILURE) == "failure"
    assert check_from_worker(_REQUEST) == "request"


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {**_RESULT, "more": 1},
        {**_RESULT, "id": "1"},
        {**_RESULT, "id": True},
        {**_RESULT, "ok": 1},
        {**_RESULT, "ok": False},
        {**_RESULT, "stdout": None},
        {**_FAILURE, "ok": True},
        {**_FAILURE, "error": {**_ERROR, "x": 1}},
        {**_FAILURE, "error": {**_ERROR, "transient": "no"}},
        {**_FAILURE, "error": "text"},
        {**_REQUEST, "rid": 1.0},
        {**_REQUEST, "params": []},
        {"rid": 1, "ok": True, "result": 1},
    ],
)
def test_everything_else_is_no_envelope(frame: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        check_from_worker(frame)


class _Odd:
    pass


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (_Odd(), "the value itself is a _Odd"),
        ({"a": [1, {"b": {1, 2}}]}, r"a\[1\]\.b is a set"),
        ({1: "x", "1": "y"}, "key 1"),
        ({"a": float("nan")}, "a is nan"),
        ([2**64], r"\[0\] does not fit"),
        ({"t": "\ud800"}, "t holds a lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
    ],
)
def test_what_json_cannot_hold_is_named(value: Any, why: str) -> None:
    with pytest.raises(NotJSON, match=why):
        encode(value)


def test_encode_bounds_depth_and_survives_cycles() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotJSON, match="deeper than 200"):
        encode(loop)
    assert parse(encode({"a": (1, "ä", 1.5, None, True)})) == {"a": [1, "ä", 1.5, None, True]}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.anyio
async def test_channel_queues_what_a_busy_peer_does_not_read(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    bodies = [bytes([65 + number]) * 1_000_000 for number in range(6)]
    got: list[bytes] = []
    channel = Channel(ours, lambda body: None, lambda why: None)

    def read_all() -> None:
        buffer = FrameBuffer()
        while len(got) < len(bodies):
            got.extend(buffer.feed(theirs.recv(65_536)))
        theirs.shutdown(socket.SHUT_WR)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            for body in bodies:
                channel.send(body)
            assert channel.full
            tasks.start_soon(anyio.to_thread.run_sync, read_all)
            await channel.room()
            assert not channel.full
    assert got == bodies
    assert sum(map(len, bodies)) > HIGH_WATER


@pytest.mark.anyio
async def test_channel_reports_the_first_fault_and_stops(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    frames: list[bytes] = []
    faults: list[str] = []
    channel = Channel(ours, frames.append, faults.append)
    theirs.sendall(pack(b"one"))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            while not frames:
                await anyio.lowlevel.checkpoint()
            theirs.sendall(b"\xff\xff\xff\xff" + b"x" * 1000)
    assert frames == [b"one"]
    assert len(faults) == 1
    assert "announced" in faults[0]


class _Counting(socket.socket):
    reads = 0

    def recv(self, *args: Any) -> bytes:
        self.reads += 1
        return super().recv(*args)


@pytest.mark.anyio
async def test_a_frame_in_crumbs_arrives_and_does_not_wake_the_host_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than in earnest: on a slow machine the crumbs would come as seldom as the host looks.
    monkeypatch.setattr(channel_module, "_WHILE", 0.02)
    left, right = socket.socketpair()
    ours = _Counting(fileno=left.detach())
    with ours, right:
        ours.setblocking(False)
        right.setblocking(False)
        got: list[bytes] = []
        channel = Channel(ours, got.append, pytest.fail)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            for byte in pack(b"x" * 3000):
                while True:
                    try:
                        right.send(bytes((byte,)))
                        break
                    except BlockingIOError:
                        await anyio.wait_writable(right)
                await anyio.sleep(0)
            with anyio.fail_after(60):
                while not got:
                    await anyio.sleep(0.001)
            assert got == [b"x" * 3000]
            assert ours.reads < 1500
            tasks.cancel_scope.cancel()
