"""text-classifier: labels, topics, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def handler(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("automation/text-classifier/handler.py")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("What time is it?", "question"),
        ("Is the build green", "question"),
        ("Wie spät ist es?", "question"),
        ("The printer is broken!!", "problem"),
        ("login fails with an exception", "problem"),
        ("please order more paper", "request"),
        ("Remind me tomorrow", "request"),
        ("hello there", "greeting"),
        ("Good morning!", "greeting"),
        ("The parcel came at noon.", "statement"),
    ],
)
def test_labels(handler: ModuleType, text: str, label: str) -> None:
    found = handler.run({"text": text})
    assert (found["success"], found["label"]) == (True, label)
    assert found["label"] == max(found["scores"], key=found["scores"].get)
    assert 0 < found["confidence"] <= 1


@pytest.mark.parametrize(
    ("text", "topic", "detail"),
    [
        ("what's the time in Asia/Tokyo?", "time", "Asia/Tokyo"),
        ("what time is it", "time", "UTC"),
        ("what is 2*(3+4)?", "arithmetic", "2*(3+4)"),
        ("what is 6 * 7?", "arithmetic", "6 * 7"),
        ("who are you?", "other", None),
        ("I have 3 cats", "other", None),
    ],
)
def test_topics(handler: ModuleType, text: str, topic: str, detail: str | None) -> None:
    found = handler.run({"text": text})
    assert (found["topic"], found["detail"]) == (topic, detail)


@pytest.mark.parametrize("text", ["", "  ", None, 7, ["x"]])
def test_what_is_no_text(handler: ModuleType, text: Any) -> None:
    assert handler.run({"text": text})["error"] == "invalid_text"


def test_a_long_text_takes_no_time(handler: ModuleType) -> None:
    for text in ("a " * 32_000, "1+" * 32_000, "(" * 65_000, "?" * 65_000, "hi " * 20_000):
        assert handler.run({"text": text})["success"]
