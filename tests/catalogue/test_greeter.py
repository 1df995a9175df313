"""greeter: its hooks, its command and its class."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def main(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("examples/greeter/main.py")


@pytest.mark.parametrize("text", ["hi", "Hello there", "  good morning!", "HEY"])
async def test_a_greeting_is_answered(main: ModuleType, text: str) -> None:
    answer = await main.on_message({"text": text, "user": "ada", "channel": "#general"})
    assert answer["text"].startswith("Hello, ada!")
    assert answer["type"] == "greeting"


@pytest.mark.parametrize("text", ["history", "hi-fi is loud", "oh hi", "good", "", None, 3])
async def test_anything_else_is_not(main: ModuleType, text: Any) -> None:
    assert await main.on_message({"text": text, "user": "ada"}) is None


async def test_command(main: ModuleType) -> None:
    assert (await main.on_command("/greet", ["Ada", "Lovelace"]))["text"] == "Hello, Ada Lovelace!"
    assert "Usage" in (await main.on_command("/greet", []))["text"]
    assert (await main.on_command("/greet", ["a\x1b[2J\n" + "b" * 500]))["text"] == "Hello, a[2J" + "b" * 76 + "!"


async def test_the_class_and_its_setting(main: ModuleType) -> None:
    greeter = main.Greeter({"greeting": "Salut"})
    assert await greeter.initialize() is True
    assert (await greeter.execute({"message": "x", "user": "ada"}))["message"] == "Salut, ada!"
    assert (await main.on_message({"text": "hi", "user": "ada"}))["text"].startswith("Salut, ada!")
    assert greeter.health_check() == {"status": "healthy", "version": "1.0.0", "greetings": 1}
    assert (await greeter.execute({}))["error"] == "missing_user"
    await greeter.cleanup()
    assert (await main.on_message({"text": "hi"}))["text"].startswith("Hello, you!")
