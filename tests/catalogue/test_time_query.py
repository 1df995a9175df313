"""time-query: formats, zones, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def handler(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("core/time-query/handler.py")


def test_iso_is_the_default(handler: ModuleType) -> None:
    answer = handler.run({})
    moment = datetime.fromisoformat(answer["time"])
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=60)
    assert (answer["success"], answer["format"], answer["timezone"]) == (True, "iso", "UTC")


def test_unix_and_rfc2822(handler: ModuleType) -> None:
    assert abs(handler.run({"format": "unix"})["time"] - time.time()) < 60
    moment = parsedate_to_datetime(handler.run({"format": "rfc2822", "timezone": "Asia/Tokyo"})["time"])
    assert moment.utcoffset() == timedelta(hours=9)


def test_pattern(handler: ModuleType) -> None:
    assert handler.run({"format": "%% %z in %Y", "timezone": "Asia/Tokyo"})["time"].startswith("% +0900 in 20")


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../../etc/passwd", "/etc/passwd", "Europe", 3, None, "x" * 200])
def test_unknown_zone(handler: ModuleType, zone: Any) -> None:
    answer = handler.run({"timezone": zone})
    assert (answer["success"], answer["error"]) == (False, "unknown_timezone")
    assert answer["message"]


@pytest.mark.parametrize("style", ["now", "", 7, "%Q", "%", "%Y\n", "%H" * 200])
def test_unknown_format(handler: ModuleType, style: Any) -> None:
    answer = handler.run({"format": style})
    assert (answer["success"], answer["error"]) == (False, "invalid_format")
