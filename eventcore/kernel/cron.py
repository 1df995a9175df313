"""When a cron line is next.

Fields are read in a zone. A local time that a clock change skips comes as much later as the clocks were put forward;
one that comes twice counts the first time.
"""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from eventcore.kernel.errors import InvalidInput

_FIELDS = "five fields: minute, hour, day, month, weekday"
_LONGEST = 256
_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
# By field; any number of the field stands for them.
_NAMES = {
    (1, 12): re.compile(r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\b", re.IGNORECASE),
    (0, 7): re.compile(r"\b(?:sun|mon|tue|wed|thu|fri|sat)\b", re.IGNORECASE),
}
_PART = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?")


def next_time(cron: str, timezone: str, after: float) -> float | None:
    """The first occurrence later than `after` (seconds since the epoch), or None where there is none.

    Args:
        cron: five fields.
        timezone: a name of the IANA database, such as `Europe/Berlin`.

    Raises:
        ValueError, KeyError: there is no such zone, or it is no cron line.
    """
    zone = ZoneInfo(timezone)
    # Here, because it starts a process as it is imported (it asks `file` about the interpreter): only who has a cron
    # line shall pay for that.
    from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]

    # In local time without a zone, so that 09:00 stays 09:00 over a clock change.
    local = croniter(cron, datetime.fromtimestamp(after, zone).replace(tzinfo=None))
    for _ in range(200):
        try:
            when = local.get_next(datetime).replace(tzinfo=zone).timestamp()
        except CroniterBadDateError:
            return None
        if when > after:
            return float(when)
    return None


def check_cron(cron: str) -> None:
    """Whether it is a cron line that ever comes.

    Raises:
        InvalidInput: it is not; the message says why.
    """
    fields = cron.split()
    if len(fields) != len(_LIMITS) or len(cron) > _LONGEST:
        raise InvalidInput(f"{cron!r:.80} is no cron line: it has {len(fields)} fields", hint=_FIELDS)
    if any(part[:1] in "rRhH" for field in fields for part in field.split(",")):
        raise InvalidInput(f"{cron!r} is no cron line: times at random (R, H) are `jitter` here", hint=_FIELDS)
    # A day of a month may never come (30 February).
    if all(map(_plain, fields, _LIMITS)) and "*" in (fields[2], fields[3]):
        return  # most are: then the library, which is slow to load, need not be asked
    try:
        found = next_time(cron, "UTC", 0.0)
    except (ValueError, KeyError, OverflowError) as error:
        raise InvalidInput(f"{cron!r} is no cron line: {error}", hint=_FIELDS) from None
    if found is None:
        raise InvalidInput(f"{cron!r} never comes")


def _plain(field: str, limits: tuple[int, int]) -> bool:
    """Whether a field is made of numbers, names, ranges and steps only, and within its limits."""
    if limits in _NAMES:
        field = _NAMES[limits].sub(str(limits[1]), field)
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return False
        low, high = (int(found) if found else None for found in match.group(1, 2))
        if low is not None and not limits[0] <= low <= (low if high is None else high) <= limits[1]:
            return False
    return True
