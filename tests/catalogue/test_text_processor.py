"""text-processor: each operation, and the bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def handler(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("examples/text-processor/handler.py")


async def test_count(handler: ModuleType) -> None:
    answer = await handler.run({"op": "count", "text": "a b"})
    assert answer == {
        "success": True, "op": "count", "words": 2, "characters": 3, "characters_without_spaces": 2, "lines": 1
    }  # fmt: skip
    assert (await handler.run({"op": "count", "text": "don't stop\nwell-known"}))["words"] == 3


@pytest.mark.parametrize(
    ("to", "result"),
    [("upper", "AN APPLE PIE"), ("title", "An Apple Pie"), ("sentence", "An apple pie"), ("snake", "an_apple_pie")],
)
async def test_case(handler: ModuleType, to: str, result: str) -> None:
    assert (await handler.run({"op": "case", "to": to, "text": "an Apple pie"}))["text"] == result


async def test_replace_is_plain_text(handler: ModuleType) -> None:
    base = {"op": "replace", "text": "a.b aab Aab", "search": "a.b", "replacement": r"\1"}
    assert await handler.run(base) == {"success": True, "op": "replace", "text": r"\1 aab Aab", "replaced": 1}
    words = await handler.run({**base, "search": "AAB", "replacement": "x", "ignore_case": True, "whole_words": True})
    assert (words["text"], words["replaced"]) == ("a.b x x", 2)


async def test_diff(handler: ModuleType) -> None:
    answer = await handler.run({"op": "diff", "text": "a\nb\n", "other": "a\nc\nd\n"})
    assert (answer["equal"], answer["added"], answer["removed"]) == (False, 2, 1)
    assert "-b\n+c\n+d" in answer["diff"]
    assert (await handler.run({"op": "diff", "text": "a", "other": "a"}))["equal"] is True


async def test_stats(handler: ModuleType) -> None:
    answer = await handler.run({"op": "stats", "text": "One two. Two three!"})
    assert (answer["words"], answer["sentences"], answer["unique_words"]) == (4, 2, 3)
    assert answer["most_common"][0] == {"word": "two", "count": 2}
    assert (await handler.run({"op": "stats", "text": ""}))["average_word_length"] == 0.0


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"text": "a"}, "unknown_op"),
        ({"op": ["count"], "text": "a"}, "unknown_op"),
        ({"op": "count"}, "missing_text"),
        ({"op": "count", "text": "a" * 200_001}, "too_long"),
        ({"op": "case", "text": "a", "to": "loud"}, "unknown_case"),
        ({"op": "replace", "text": "a", "search": "", "replacement": ""}, "empty_search"),
        ({"op": "replace", "text": "a" * 1000, "search": "a", "replacement": "b" * 2000}, "too_long"),
        ({"op": "diff", "text": "a\n" * 3000, "other": ""}, "too_long"),
    ],
)
async def test_refusals(handler: ModuleType, params: dict[str, Any], code: str) -> None:
    answer = await handler.run(params)
    assert (answer["success"], answer["error"]) == (False, code)
    assert answer["message"]


async def test_no_input_takes_long(handler: ModuleType) -> None:
    start = time.thread_time()
    hostile = "a" * 199_990 + "!"
    await handler.run({"op": "replace", "text": hostile, "search": "(a+)+$", "replacement": ""})
    await handler.run({"op": "stats", "text": hostile})
    await handler.run({"op": "stats", "text": "'-" * 100_000})
    assert time.thread_time() - start < 10, "a step for each pair of letters would take minutes"
