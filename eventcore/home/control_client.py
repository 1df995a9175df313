"""Talking to a running engine through its control socket: the protocol, and a blocking client.

Only the standard library and the errors are imported here: the command line starts with it.

The protocol. Both directions carry frames: the length of the body (unsigned 32 bit, big endian), then the body, a JSON
object in UTF-8. A request is `{"id", "op", "params"?, "context"?}`; `id` is text or an integer. Answers carry its id:
any number of `{"id", "item"}`, then one `{"id", "ok": true, "result"}` or `{"id", "ok": false, "error": {"code",
"message", "hint"?, "details"?}}`. A connection may carry several requests at once. A client that closes its connection
(or its sending half) cancels what it asked for. An answer whose id is null concerns the connection, which then ends.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from eventcore.home.remote_errors import remote_error
from eventcore.kernel.errors import InvalidPayload, RemoteError

#: Largest request and answer, in bytes of JSON.
MAX_REQUEST = 4 * 1024 * 1024
MAX_RESPONSE = 16 * 1024 * 1024
#: Seconds to wait for an answer, unless the caller says otherwise.
DEFAULT_TIMEOUT = 30.0

HEADER = struct.Struct(">I")

_LOCK_NAME = "lock"
_SOCKET_NAME = "control.sock"


class EngineNotRunning(RemoteError):
    """No engine answers at the control socket."""

    code = "engine_not_running"


def socket_path(state: Path) -> Path:
    """Where the control socket of a home is, or would be.

    Args:
        state: the home's `.eventcore` folder.
    """
    try:
        recorded = json.loads((state / _LOCK_NAME).read_bytes())["socket"]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = ""
    return Path(recorded) if isinstance(recorded, str) and recorded else state / _SOCKET_NAME


def request(
    path: Path,
    op: str,
    params: Mapping[str, Any] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    *,
    context: Mapping[str, Any] | None = None,
) -> Any:
    """Ask the engine for something and return its result. Items that it sends on the way are dropped.

    Args:
        path: the control socket.
        op: what to do.
        params: JSON.
        timeout: seconds for all of it.
        context: on whose behalf; see the protocol.

    Raises:
        EngineNotRunning: nothing listens there.
        InvalidPayload: the params are not JSON, or too large.
        RemoteError: the engine refused, the connection broke or the time is over; `code` tells which.
    """
    deadline = time.monotonic() + timeout
    with _connect(path, timeout) as connection:
        _send(connection, encode_request(1, op, params, context), deadline)
        while True:
            answer = receive(connection, deadline)
            if "item" not in answer:
                return result_of(answer)


def stream(
    path: Path,
    op: str,
    params: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    *,
    context: Mapping[str, Any] | None = None,
) -> Generator[Any, None, Any]:
    """Ask the engine for a stream and yield its items; the generator's return value is the result.

    Closing the generator cancels the stream in the engine.

    Args:
        timeout: seconds to wait for each item; None for ever. The other arguments and errors are those of `request`.
    """
    with _connect(path, DEFAULT_TIMEOUT) as connection:
        frame = encode_request(1, op, params, context)
        _send(connection, frame, time.monotonic() + DEFAULT_TIMEOUT)
        while True:
            answer = receive(connection, None if timeout is None else time.monotonic() + timeout)
            if "item" not in answer:
                return result_of(answer)
            yield answer["item"]


def encode_request(
    number: int, op: str, params: Mapping[str, Any] | None, context: Mapping[str, Any] | None = None
) -> bytes:
    """The frame of a request.

    Raises:
        InvalidPayload: the params are not JSON, or too large.
    """
    body: dict[str, Any] = {"id": number, "op": op, "params": dict(params or {})}
    if context:
        body["context"] = dict(context)
    try:
        raw = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(f"the request {op!r} is not JSON: {error}") from None
    if len(raw) > MAX_REQUEST:
        raise InvalidPayload(f"the request {op!r} is {len(raw):,} bytes; the limit is {MAX_REQUEST:,}")
    return HEADER.pack(len(raw)) + raw


def response_size(header: bytes) -> int:
    """The size of the answer that follows a header.

    Raises:
        RemoteError: it is larger than the protocol allows.
    """
    size: int = HEADER.unpack(header)[0]
    if size > MAX_RESPONSE:
        raise remote_error({"code": "protocol_error", "message": f"the engine announced an answer of {size:,} bytes"})
    return size


def decode_response(raw: bytes) -> dict[str, Any]:
    """An answer's JSON.

    Raises:
        RemoteError: it is not an answer.
    """
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise remote_error({"code": "protocol_error", "message": "the engine's answer is not a JSON object"})
    return answer


def result_of(answer: Mapping[str, Any]) -> Any:
    """The result in a final answer, or the error in it, raised."""
    if answer.get("ok") is True:
        return answer.get("result")
    error = answer.get("error")
    raise remote_error(error if isinstance(error, dict) else {})


def not_running(path: Path) -> EngineNotRunning:
    """The error for a socket that nobody answers."""
    return EngineNotRunning(f"no engine answers at {path}", hint="start one with `eventcore serve`")


def connection_lost() -> RemoteError:
    """The error for a connection that ended before the answer."""
    return remote_error({"code": "connection_lost", "message": "the engine closed the connection before it answered"})


def timed_out() -> RemoteError:
    """The error for an answer that did not come in time."""
    return remote_error({"code": "timeout", "message": "the engine did not answer in time"})


def _connect(path: Path, timeout: float) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise not_running(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
    except TimeoutError:
        connection.close()
        raise timed_out() from None
    except OSError:
        # Missing, refused, not permitted, or a path that no socket can have: for the caller it is all the same.
        connection.close()
        raise not_running(path) from None
    return connection


def _send(connection: socket.socket, frame: bytes, deadline: float) -> None:
    try:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.sendall(frame)
    except TimeoutError:
        raise timed_out() from None
    except OSError:
        # The engine may have answered before it hung up (too many connections); that answer says more than we can.
        return


def receive(connection: socket.socket, deadline: float | None) -> dict[str, Any]:
    """The next response; `deadline` is in monotonic seconds, None for ever."""
    size = response_size(_exactly(connection, HEADER.size, deadline))
    return decode_response(_exactly(connection, size, deadline))


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            connection.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            piece = connection.recv(min(size - len(data), 1 << 20))
        except TimeoutError:
            raise timed_out() from None
        except OSError:
            raise connection_lost() from None
        if not piece:
            raise connection_lost()
        data += piece
    return bytes(data)
