"""The channel between host and worker: u32 big-endian length, then one JSON object in UTF-8. Pure, both sides use it.

Envelopes::

    host -> worker   {"id", "kind", "params", "context"}                                 a call
    worker -> host   {"id", "ok": true,  "result", "stdout", "stderr"}                   its answer
                     {"id", "ok": false, "error": {"kind", "message", "trace", "transient"}, "stdout", "stderr"}
    worker -> host   {"rid", "call", "method", "params"}                                 `ctx`, within a call
    host -> worker   {"rid", "ok": true, "result"} | {"rid", "ok": false, "error": {"code", "message"}}

The host treats what comes from a worker as hostile. The length is checked before anything is buffered, because parsing
amplifies: 8 MiB of `[],` stops an event loop for 0.6 s and takes 200 MiB; 1 MiB costs 11 ms and 27 MiB. One parser,
the standard library's, reads both ways: unlike faster ones it can be told to refuse duplicate keys.
"""

from __future__ import annotations

import gc
import json
import math
import re
import struct
from typing import Any, Literal

#: The largest body of a frame, in bytes.
MAX_FRAME = 1 << 20
#: How much of a call's stdout, and of its stderr, is kept, in characters.
MAX_OUTPUT = 64 * 1024
#: Worker-to-host requests in flight at once; one more is a violation. The worker's SDK stays below by itself.
MAX_REQUESTS = 64
#: Their bytes together; what is beyond is a violation as well. A request is kept parsed until it is answered, which
#: takes up to 27 times its length, so 64 of the largest would take 1.7 GiB. The worker's SDK stays below by itself.
MAX_REQUEST_BYTES = 5 << 19
#: The deepest nesting of a value that the worker sends.
MAX_DEPTH = 200

#: From so many characters on a frame may hold enough to make the garbage collector run more than once.
_LARGE = 16 * 1024
_LENGTH = struct.Struct(">I")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class FrameError(ValueError):
    """What came over the channel breaks its rules."""


class NotJSON(ValueError):
    """A value of ours cannot go over the channel; the message says what stands where."""


def pack(body: bytes) -> bytes:
    """The frame around `body`.

    Raises:
        FrameError: it is longer than `MAX_FRAME`.
    """
    if len(body) > MAX_FRAME:
        raise FrameError(f"a frame of {len(body):,} bytes; the limit is {MAX_FRAME:,}")
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Cuts a stream of bytes into the bodies of its frames."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now.

        Raises:
            FrameError: a length beyond the limit was announced. The buffer is of no more use.
        """
        buffer = self._data
        if not buffer and _LENGTH.size <= len(data) <= MAX_FRAME and _LENGTH.unpack_from(data)[0] == len(data) - 4:
            return [data[4:]]  # one whole frame, as most reads bring
        buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, start)
            if size > MAX_FRAME:
                raise FrameError(f"a frame of {size:,} bytes was announced; the limit is {MAX_FRAME:,}")
            end = start + _LENGTH.size + size
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + _LENGTH.size : end]))
            start = end
        del buffer[:start]
        return bodies


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a frame.

    Raises:
        FrameError: it is not strict UTF-8, not one JSON object, holds NaN, an infinity, a lone surrogate or a key
            twice, or is nested too deeply.
    """
    try:
        text = body.decode()
        value = _decoded_at_once(text) if len(text) > _LARGE else _DECODER.decode(text)
        if "\\u" in text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise FrameError("the frame is nested too deeply") from None
    except FrameError:
        raise
    except ValueError as error:
        raise FrameError(f"the frame is not JSON: {error}") from None
    if type(value) is not dict:
        raise FrameError("the frame is not a JSON object")
    return value


def _decoded_at_once(text: str) -> Any:
    """Without the garbage collector, which would look again and again at what has just been made: a frame of nothing
    but lists takes five times as long with it, and meanwhile the loop stands."""
    was = gc.isenabled()
    gc.disable()
    try:
        return _DECODER.decode(text)
    finally:
        if was:
            gc.enable()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise FrameError("the frame has a key twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise FrameError("the frame holds a number beyond all bounds")
    return value


def _no_constant(name: str) -> Any:
    raise FrameError(f"the frame holds {name}, which is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
#: What `json.JSONEncoder.encode` makes anew for each value, which takes longer than to write a short one. No default,
#: and no look for circles: `_find_bad` has found only what JSON has, and an end to it.
_CHUNKS = json.encoder.c_make_encoder(None, None, json.encoder.encode_basestring, None, ":", ",", False, False, False)  # type: ignore[attr-defined]


def encode(value: Any) -> bytes:
    """`value` as JSON, strictly. `json.dumps` alone would turn the keys 1 and "1" into one key twice.

    Raises:
        NotJSON: naming the first thing that JSON cannot hold, and its place.
    """
    if bad := _find_bad(value, 0):
        what, *path = bad
        place = "".join(reversed(path)).lstrip(".") or "the value itself"
        raise NotJSON(f"{place} {what}")
    return "".join(_CHUNKS(value, 0)).encode()


def _find_bad(value: Any, depth: int) -> list[str] | None:
    """What is wrong, then the path to it from the inside out; None if all is well."""
    if value is None or value is True or value is False:
        return None
    if isinstance(value, str):
        return None if value.isascii() or _is_text(value) else ["holds a lone surrogate, which is not text"]
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else ["does not fit 64 bits"]
    if isinstance(value, float):
        return None if math.isfinite(value) else [f"is {value}, which JSON cannot hold"]
    if depth >= MAX_DEPTH:
        return [f"is nested deeper than {MAX_DEPTH} levels"]
    if isinstance(value, dict):
        return _find_bad_in_dict(value, depth)
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if bad := _find_bad(item, depth + 1):
                return [*bad, f"[{index}]"]
        return None
    return [f"is a {type(value).__name__}"]


def _find_bad_in_dict(value: dict[Any, Any], depth: int) -> list[str] | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return [f"has the key {key!r:.60}, and keys must be text"]
        if not key.isascii() and not _is_text(key):
            return ["has a key with a lone surrogate, which is not text"]
        if bad := _find_bad(item, depth + 1):
            return [*bad, f".{key:.60}"]
    return None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_RESULT = frozenset({"id", "ok", "result", "stdout", "stderr"})
_FAILURE = frozenset({"id", "ok", "error", "stdout", "stderr"})
_ERROR = frozenset({"kind", "message", "trace", "transient"})
_REQUEST = frozenset({"rid", "call", "method", "params"})


def check_from_worker(frame: dict[str, Any]) -> Literal["result", "failure", "request"]:
    """Which envelope a worker's frame is: exactly its fields, each of its type.

    Raises:
        FrameError: it is none.
    """
    fields = frame.keys()
    if fields == _RESULT:
        if type(frame["id"]) is int and frame["ok"] is True and _is_output(frame):
            return "result"
    elif fields == _FAILURE:
        if type(frame["id"]) is int and frame["ok"] is False and _is_output(frame) and _is_error(frame["error"]):
            return "failure"
    elif fields == _REQUEST and (
        type(frame["rid"]) is int
        and type(frame["call"]) is int
        and type(frame["method"]) is str
        and type(frame["params"]) is dict
    ):
        return "request"
    raise FrameError(f"the frame is no envelope of the channel; its fields are {sorted(fields)!r:.200}")


def _is_output(frame: dict[str, Any]) -> bool:
    return type(frame["stdout"]) is str and type(frame["stderr"]) is str


def _is_error(error: Any) -> bool:
    return (
        type(error) is dict
        and error.keys() == _ERROR
        and type(error["kind"]) is str
        and type(error["message"]) is str
        and type(error["trace"]) is str
        and type(error["transient"]) is bool
    )
