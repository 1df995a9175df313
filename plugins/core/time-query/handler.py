"""Answers the intent `time_query`: what time it is."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from zoneinfo import ZoneInfo

MAX_PATTERN = 200
MAX_ZONE = 100
#: Directives of strftime(3) that give the same result on every platform, as Python documents them.
_DIRECTIVE = re.compile(r"%[aAwdbBmyYHIMSpfzZjUWcxXGuV%]")


def run(params: dict[str, Any]) -> dict[str, Any]:
    """The time now.

    Args:
        params: `format`: `iso` (default), `unix` (seconds), `rfc2822`, or a strftime pattern with a `%` in it;
            `timezone`: a name of the IANA database such as `Europe/Berlin`, default `UTC`.

    Returns:
        `success`, `time` (a number for `unix`, else text), `format`, `timezone`; or `success: false`, `error`,
        `message`.
    """
    style, zone_name = params.get("format", "iso"), params.get("timezone", "UTC")
    if not isinstance(style, str) or not style or len(style) > MAX_PATTERN:
        return _failure("invalid_format", f"format must be text of 1 to {MAX_PATTERN} characters")
    zone = _zone(zone_name)
    if zone is None:
        return _failure(
            "unknown_timezone", f"{str(zone_name)[:MAX_ZONE]!r} is not a time zone; use a name like Europe/Berlin"
        )
    now = datetime.now(zone)
    formatted = _format(now, style)
    if formatted is None:
        return _failure("invalid_format", "format must be iso, unix, rfc2822 or a strftime pattern such as %H:%M")
    return {"success": True, "time": formatted, "format": style, "timezone": zone_name}


def _zone(name: object) -> ZoneInfo | None:
    if not isinstance(name, str) or not name or len(name) > MAX_ZONE:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder's name is an OSError
        return None


def _format(moment: datetime, style: str) -> str | float | None:
    match style:
        case "iso":
            return moment.isoformat()
        case "unix":
            return moment.timestamp()
        case "rfc2822":
            return format_datetime(moment)
    rest, directives = _DIRECTIVE.subn("", style)
    return (
        moment.strftime(style) if directives and "%" not in rest and "\0" not in rest and rest.isprintable() else None
    )


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"success": False, "error": code, "message": message}
