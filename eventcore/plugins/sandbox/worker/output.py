"""What plugin code prints and logs, kept apart by call."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterable
from typing import Protocol, cast

from eventcore.plugins.sandbox.frames import MAX_OUTPUT
from eventcore.sdk import bound


class Capture:
    """The first `MAX_OUTPUT` characters of what was written, and a note if there was more."""

    __slots__ = ("_left", "_lost", "_parts")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = MAX_OUTPUT
        self._lost = 0

    def write(self, text: str) -> None:
        if len(text) > self._left:
            self._lost += len(text) - self._left
            text = text[: self._left]
        if text:
            self._parts.append(text)
            self._left -= len(text)

    def text(self) -> str:
        if not self._parts and not self._lost:
            return ""
        note = f"\n[{self._lost:,} more characters were dropped]" if self._lost else ""
        return printable("".join(self._parts)) + note


def printable(text: str) -> str:
    """`text` with lone surrogates spelled out, so that it can be encoded."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class Captured(Protocol):
    """The part of a call that this module needs; `eventcore.sdk.bound()` returns the call."""

    stdout: Capture
    stderr: Capture


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`, for code that writes bytes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # a wider buffer type in typeshed
        self._stream.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of the worker: writes to the running call, outside one to the process's own."""

    def __init__(self, name: str, fd: int) -> None:
        self._name, self._fd = name, fd
        self._bytes = _Bytes(self)

    @property
    def buffer(self) -> _Bytes:
        return self._bytes

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in typeshed
        return "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        call = bound()
        if call is not None:
            capture: Capture = getattr(cast("Captured", call), self._name)
            capture.write(text)
        else:
            # os.write may write a part only; what is printed outside any call is for the operator's log, best effort.
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]  # narrower than typeshed's
        for line in lines:
            self.write(line)


class _Forward(logging.Handler):
    """Hands the records of `logging` to the host as lines of the call's log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            call = bound()
            if call is None:
                sys.stderr.write(f"{record.levelname} {record.name}: {message}\n")
            else:
                call.tell(record.levelname.lower(), message, record.name)
        except Exception:  # noqa: BLE001 - a log line must not fail the code that writes it; logging's own rule
            self.handleError(record)


def install() -> None:
    """Put the streams and the log handler in place."""
    sys.stdout = Stream("stdout", 1)
    sys.stderr = Stream("stderr", 2)
    root = logging.getLogger()
    root.addHandler(_Forward())
    root.setLevel(logging.INFO)
