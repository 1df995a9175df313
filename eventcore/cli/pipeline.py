"""Many requests over one connection to a running engine, several at once."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from eventcore.home.control_client import (
    connection_lost,
    encode_request,
    not_running,
    receive,
    result_of,
    timed_out,
)
from eventcore.kernel.errors import EventCoreError, InvalidPayload, RemoteError

T = TypeVar("T")

#: Seconds without an answer after which the engine counts as stuck.
_TIMEOUT = 120.0


def pipeline(
    path: Path, op: str, requests: Iterable[tuple[T, dict[str, Any]]], window: int
) -> Iterator[tuple[T, dict[str, Any] | EventCoreError]]:
    """See `Session.many`. The engine begins requests of one connection in the order in which they come."""
    connection = open_socket(path)
    pending: dict[int, T] = {}

    def take() -> tuple[T, dict[str, Any] | EventCoreError]:
        answer = receive(connection, time.monotonic() + _TIMEOUT)
        tag = pending.pop(answer["id"]) if answer.get("id") in pending else None
        try:
            result = result_of(answer)
        except RemoteError as error:
            if tag is None:  # about the connection, not about one request
                raise
            return tag, error
        assert tag is not None
        return tag, result

    with connection:
        for number, (tag, params) in enumerate(requests, 1):
            try:
                frame = encode_request(number, op, params)
            except InvalidPayload as error:
                yield tag, error
                continue
            pending[number] = tag
            _send(connection, frame)
            while pending and (len(pending) >= window or select.select([connection], [], [], 0)[0]):
                yield take()
        while pending:
            yield take()


def open_socket(path: Path) -> socket.socket:
    """A connection to a control socket.

    Raises:
        EngineNotRunning: nobody listens there.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise not_running(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_TIMEOUT)
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise not_running(path) from None
    return connection


def _send(connection: socket.socket, frame: bytes) -> None:
    try:
        connection.sendall(frame)
    except TimeoutError:
        raise timed_out() from None
    except OSError:
        raise connection_lost() from None
