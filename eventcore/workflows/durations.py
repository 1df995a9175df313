"""Durations as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_MAX_DURATION = 100 * 366 * 86400
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


def seconds(value: Any) -> float:
    """A duration in seconds: a number, or a text like `500ms`, `30s`, `1h30m`, `2d`.

    Raises:
        ValueError: it is neither, or negative.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("a duration cannot be negative")
        return _bounded(float(value), value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match or not any(match.groups()):
        raise ValueError(f"{value!r} is no duration; write seconds, or 500ms, 30s, 1h30m, 2d")
    days, hours, minutes, secs, millis = (float(part or 0) for part in match.groups())
    return _bounded(days * 86400 + hours * 3600 + minutes * 60 + secs + millis / 1000, value)


def _bounded(found: float, written: Any) -> float:
    if not found <= _MAX_DURATION:  # NaN is not, either
        raise ValueError(f"{written!r:.40} is no duration; the longest is {_MAX_DURATION // 86400:,} days")
    return found


Duration = Annotated[float, BeforeValidator(seconds)]
