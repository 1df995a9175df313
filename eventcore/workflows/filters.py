"""The filters that expressions have beside Jinja's own: JSON, dates and times with zones, hashes, slugs, paths.

Each draws on the evaluation's budget before it makes anything, and raises for values that it is not made for.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from jinja2 import pass_environment
from jinja2.exceptions import SecurityError

from eventcore.kernel.json import decode

_MAX_FORMAT = 200
_MAX_PATH = 512
_MAX_SLUG = 200
# glibc knows widths, and `%999999999d` would fill memory; so only these, each of which gives a few characters.
_FORMAT = re.compile(r"(?:[^%]|%[YmdHMSjaAbByIpzZGVu%])*")
_PART = re.compile(r"\.?([^.\[\]]+)|\[(-?\d{1,9})\]")
_ALGORITHMS = ("sha256", "sha512", "sha1", "md5")
_MISSING: Any = object()


class Budget(Protocol):
    """What an environment gives its filters."""

    def charge(self, amount: int) -> None:
        """Raises SecurityError when the budget is used up."""


@pass_environment
def _from_json(environment: Budget, text: str) -> Any:
    if not isinstance(text, str):
        raise SecurityError(f"from_json reads text, not a {type(text).__name__}")
    environment.charge(len(text))
    return decode(text.encode())


def moment(value: Any, zone: str = "UTC") -> datetime:
    """A point in time: seconds since the epoch, or RFC 3339 text. Text without an offset is a time in `zone`.

    Raises:
        SecurityError: the value is neither, or there is no such zone.
    """
    where = _zone(zone)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC).astimezone(where)
        except (OverflowError, ValueError, OSError):
            raise SecurityError(f"{value!r:.40} is no time between the years 1 and 9999") from None
    if not isinstance(value, str) or len(value) > 64:
        raise SecurityError(f"a time is seconds or RFC 3339 text, not {value!r:.40}")
    try:
        read = datetime.fromisoformat(value)
        return read.replace(tzinfo=where) if read.tzinfo is None else read.astimezone(where)
    except (OverflowError, ValueError):
        raise SecurityError(f"{value!r:.40} is no time; write 2026-01-31T09:00:00Z") from None


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise SecurityError(f"there is no time zone {name!r:.60}; write one like Europe/Berlin") from None


def _format(value: Any, pattern: Any, zone: str) -> str:
    if not isinstance(pattern, str) or len(pattern) > _MAX_FORMAT or not _FORMAT.fullmatch(pattern):
        raise SecurityError(f"{pattern!r:.40} is no format for times; write one like %Y-%m-%d %H:%M")
    return moment(value, zone).strftime(pattern)


def _date(value: Any, zone: str = "UTC", format: str = "%Y-%m-%d") -> str:
    return _format(value, format, zone)


def _time(value: Any, zone: str = "UTC", format: str = "%H:%M:%S") -> str:
    return _format(value, format, zone)


def _datetime(value: Any, zone: str = "UTC") -> str:
    return moment(value, zone).isoformat()


def _timestamp(value: Any, zone: str = "UTC") -> float:
    return moment(value, zone).timestamp()


@pass_environment
def _hash(environment: Budget, value: str, algorithm: str = "sha256") -> str:
    if algorithm not in _ALGORITHMS:
        raise SecurityError(f"hash knows {', '.join(_ALGORITHMS)}, not {algorithm!r:.40}")
    if not isinstance(value, str):
        raise SecurityError("hash takes text; put `| json` before it")
    environment.charge(len(value))
    return hashlib.new(algorithm, value.encode(), usedforsecurity=False).hexdigest()


@pass_environment
def _slug(environment: Budget, value: Any, separator: str = "-") -> str:
    if separator not in ("-", "_"):
        raise SecurityError("the separator of a slug is - or _")
    text = str(value)[: 4 * _MAX_SLUG]
    environment.charge(len(text))
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", separator, plain)[:_MAX_SLUG].strip(separator)


def _path(value: Any, path: Any, default: Any = _MISSING) -> Any:
    """`order.items[0].price` in a value. Without a default, what is not there is an error."""
    if not isinstance(path, str) or len(path) > _MAX_PATH:
        raise SecurityError(f"a path is text of at most {_MAX_PATH} characters")
    at = 0
    while at < len(path):
        part = _PART.match(path, at)
        if part is None:
            raise SecurityError(f"{path!r:.60} is no path; write one like order.items[0].price")
        key: Any = part[1] if part[1] is not None else int(part[2])
        try:
            if not isinstance(value, list if isinstance(key, int) else dict):
                raise KeyError(key)
            value = value[key]
        except (KeyError, IndexError):
            if default is _MISSING:
                raise SecurityError(f"there is nothing at {path[: part.end()]!r}") from None
            return default
        at = part.end()
    return value


#: Name -> filter. `json` is added beside `tojson`, which is the same.
FILTERS: dict[str, Callable[..., Any]] = {
    "date": _date,
    "datetime": _datetime,
    "from_json": _from_json,
    "hash": _hash,
    "path": _path,
    "slug": _slug,
    "time": _time,
    "timestamp": _timestamp,
}
