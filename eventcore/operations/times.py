"""Times and durations as people write them."""

from __future__ import annotations

from datetime import datetime, timedelta

from eventcore.kernel.errors import InvalidInput
from eventcore.workflows.durations import seconds


def when(text: str | float | None, name: str) -> datetime | timedelta | float | None:
    """A duration back from now (`2h`), an ISO instant, or seconds since the epoch."""
    if text is None or isinstance(text, int | float):
        return text
    try:
        return timedelta(seconds=seconds(text))
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidInput(f"{name} {text!r} is neither a duration like 2h nor an ISO time") from None


def span(text: str | float, name: str) -> float:
    """A duration in seconds."""
    try:
        return seconds(text)
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from None
