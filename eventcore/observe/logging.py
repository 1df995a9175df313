"""Log output of the command line. A library leaves logging to the program around it: only `cli` calls `configure`."""

from __future__ import annotations

import json as json_module
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.names import did_you_mean

#: All of EventCore logs under this name: `eventcore.plugins`, `eventcore.home`, ...
ROOT = "eventcore"

LEVELS = ("debug", "info", "warning", "error", "critical")

#: Turns text into text that may be shown.
Redact = Callable[[str], str]

_MASK = "***"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# C0 and C1 control characters and the line separators: what could forge a line or drive a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Redactor:
    """Replaces known secret values by `***`. Values may be added while it is in use, from any thread."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(*values)

    def add(self, *values: str) -> None:
        """Mask these as well. The empty text is ignored."""
        with self._lock:
            self._values.update(filter(None, values))
            # The longest first, so that a secret which begins with another one is masked whole.
            longest_first = sorted(self._values, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(_MASK, text) if self._pattern else text


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z WARNING eventcore.plugins message key=value`, then the traceback if there is one.

    Control characters are escaped, so that text from a plugin cannot forge a line.
    """

    def __init__(self, redact: Redact | None = None) -> None:
        super().__init__()
        self._redact = redact or _as_is

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        message = self._redact(record.getMessage() + extras)
        line = f"{_time(record)} {record.levelname} {record.name} {_escaped(message, _CONTROL)}"
        trace = _trace(self, record)
        return f"{line}\n{_escaped(self._redact(trace), _CONTROL_BUT_LINES)}" if trace else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, `trace`, and what `extra=` added."""

    def __init__(self, redact: Redact | None = None) -> None:
        super().__init__()
        self._redact = redact or _as_is

    def format(self, record: logging.LogRecord) -> str:
        # Masked before encoding: JSON escapes would hide a secret that holds a quote.
        body = {key: self._masked(value) for key, value in _extras(record).items()}
        body |= {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        body["message"] = self._redact(record.getMessage())
        if trace := _trace(self, record):
            body["trace"] = self._redact(trace)
        return json_module.dumps(body)

    def _masked(self, value: Any) -> Any:
        return value if value is None or isinstance(value, bool | int | float) else self._redact(str(value))


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second `configure` replaces it and leaves handlers of others alone."""


def configure(
    level: str = "info", *, json: bool = False, redact: Redact | None = None, stream: TextIO | None = None
) -> logging.Handler:
    """Send the log of EventCore to standard error. A second call replaces the first.

    Args:
        level: the lowest level shown: debug, info, warning, error or critical.
        json: one JSON object a line in place of text.
        redact: applied to every message, extra field and traceback; such as a `Redactor`.
        stream: where to write; default standard error.

    Returns:
        The handler, which `logging.getLogger("eventcore").removeHandler` takes.

    Raises:
        InvalidInput: there is no such level.
    """
    if level.lower() not in LEVELS:
        hint = f"one of {', '.join(LEVELS)}{did_you_mean(level.lower(), LEVELS)}"
        raise InvalidInput(f"{level!r} is not a log level", hint=hint)
    logger = logging.getLogger(ROOT)
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter(redact) if json else TextFormatter(redact))
    for old in [each for each in logger.handlers if isinstance(each, _Handler)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    # A root handler, if some library installed one, would print every line a second time and unmasked.
    logger.propagate = False
    return handler


def _as_is(text: str) -> str:
    return text


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    # `record.exc_text` is not used: another handler's formatter may have put an unmasked text there, or ours would.
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _escaped(text: str, unwanted: re.Pattern[str]) -> str:
    shown = unwanted.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.encode("utf-8", "backslashreplace").decode()
