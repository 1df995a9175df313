"""Times in zones, calendars, formats."""

import calendar
import locale
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

EXPECTED = {"summer": "2024-07-01T14:00:00+02:00", "winter": "+0100", "many": True, "leap": True, "name": "Mon"}


def run(params):
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    berlin = ZoneInfo("Europe/Berlin")
    locale.setlocale(locale.LC_ALL, "C")
    time.sleep(0.001)
    return {
        "summer": moment.astimezone(berlin).isoformat(),
        "winter": (moment + timedelta(days=180)).astimezone(berlin).strftime("%z"),
        "many": len(available_timezones()) > 300,
        "leap": calendar.isleap(2024),
        "name": moment.strftime("%a"),
    }
