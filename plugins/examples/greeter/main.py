"""Greets: as a class for direct calls, and through the chat hooks."""

from __future__ import annotations

import re
from typing import Any

DEFAULT_GREETING = "Hello"
MAX_NAME = 80

_GREETING = re.compile(
    r"\s*(?:hi|hello|hey|howdy|greetings|good (?:morning|afternoon|evening|day))\b(?![-'\u2019])", re.IGNORECASE
)

#: The word that the hook functions use; the class sets it from the configuration when the plugin starts.
_settings = {"greeting": DEFAULT_GREETING}


class Greeter:
    """The plugin's class: one greeting a call."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Args: config: `greeting`, the word that opens a greeting."""
        greeting = config.get("greeting", DEFAULT_GREETING)
        self.greeting = greeting if isinstance(greeting, str) and greeting.strip() else DEFAULT_GREETING
        self.count = 0

    async def initialize(self) -> bool:
        """Make the configured word the hooks' word."""
        _settings["greeting"] = self.greeting
        return True

    async def execute(self, context: dict[str, Any]) -> dict[str, Any]:
        """Greet `context["user"]`, or `context["name"]`."""
        name = _name(context.get("name", context.get("user", "")))
        if not name:
            return {"success": False, "error": "missing_user", "message": "say whom to greet, as user or name"}
        self.count += 1
        return {"success": True, "message": f"{self.greeting}, {name}!"}

    async def cleanup(self) -> None:
        """Back to the default word."""
        _settings["greeting"] = DEFAULT_GREETING

    def health_check(self) -> dict[str, Any]:
        """Always healthy; says how many greetings there were."""
        return {"status": "healthy", "version": "1.0.0", "greetings": self.count}


async def on_message(message: dict[str, Any]) -> dict[str, Any] | None:
    """Answer a message that opens with a greeting; None for any other."""
    text = message.get("text")
    if not isinstance(text, str) or not _GREETING.match(text):
        return None
    name = _name(message.get("user", "")) or "you"
    return {"text": f"{_settings['greeting']}, {name}! Nice to see you.", "type": "greeting"}


async def on_command(command: str, args: list[str]) -> dict[str, Any]:
    """`/greet NAME`."""
    name = _name(" ".join(str(arg) for arg in args))
    return {"text": f"{_settings['greeting']}, {name}!" if name else "Usage: /greet NAME", "type": "greeting"}


def _name(value: object) -> str:
    """A name fit to print on one line: text, without control characters, bounded."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c for c in value if c.isprintable()).split())[:MAX_NAME]
