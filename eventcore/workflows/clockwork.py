"""Whether the times of a trigger are times at all: seen when a definition is read, not when the clock comes to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from eventcore.kernel.cron import check_cron
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.names import did_you_mean
from eventcore.workflows.definition import Trigger


def moment(trigger: Trigger) -> float:
    """When a trigger with `at` is due, seconds since the epoch.

    Raises:
        ValueError, OverflowError: `at` is no time.
        KeyError, ValueError, OSError: there is no such zone.
    """
    at = datetime.fromisoformat(trigger.at or "")
    return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(trigger.timezone))).timestamp()


def mistimed(trigger: Trigger) -> Iterator[tuple[str, str]]:
    """What is wrong with the clock of a trigger: (key, message)."""
    if not _is_zone(trigger.timezone):
        near = did_you_mean(trigger.timezone, available_timezones())
        yield "timezone", f"{trigger.timezone!r:.80} is no time zone{near or ' (a name such as Europe/Berlin)'}"
    elif trigger.cron is not None:
        try:
            check_cron(trigger.cron)
        except InvalidInput as error:
            yield "cron", str(error)
    elif trigger.at is not None:
        try:
            moment(trigger)
        except (ValueError, OverflowError):
            yield "at", f"{trigger.at!r:.80} is no time (such as 2030-01-31T09:00:00Z)"


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
