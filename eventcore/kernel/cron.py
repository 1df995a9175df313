"""When a cron line is next.

Fields are read in a zone. A local time that a clock change skips comes as much later as the clocks were put forward;
one that comes twice counts the first time.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo


def next_time(cron: str, timezone: str, after: float) -> float | None:
    """The first occurrence later than `after` (seconds since the epoch), or None where there is none.

    Args:
        cron: five fields.
        timezone: a name of the IANA database, such as `Europe/Berlin`.
    """
    zone = ZoneInfo(timezone)
    # Here, because it starts a process as it is imported (it asks `file` about the interpreter): only who has a cron
    # line shall pay for that.
    from croniter import croniter  # type: ignore[import-untyped]

    # In local time without a zone, so that 09:00 stays 09:00 over a clock change.
    local = croniter(cron, datetime.fromtimestamp(after, zone).replace(tzinfo=None))
    for _ in range(200):
        when = local.get_next(datetime).replace(tzinfo=zone).timestamp()
        if when > after:
            return float(when)
    return None
