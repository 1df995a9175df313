"""Masks swear words in chat messages with stars: `damn` becomes `d***`.

Settings in `[hooks.settings.profanity-filter]`: `words`, a list in place of the shipped `words.txt`; `file`, a file of
words in its place, relative to the home; `also`, words besides; `except`, words that are fine here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from eventcore.sdk import Replace, filter  # noqa: A004 - the stage's name

_settings: dict[str, Any] = globals().get("settings", {})
_home: str | None = globals().get("home")


def _words() -> set[str]:
    if "words" in _settings:
        found = {str(word).lower() for word in _settings["words"]}
    else:
        file = Path(_home or ".", _settings["file"]) if "file" in _settings else Path(__file__).with_name("words.txt")
        lines = (line.strip().lower() for line in file.read_text(encoding="utf-8").splitlines())
        found = {line for line in lines if line and not line.startswith("#")}
    found |= {str(word).lower() for word in _settings.get("also", ())}
    return found - {str(word).lower() for word in _settings.get("except", ())}


def _pattern() -> re.Pattern[str] | None:
    words = sorted(map(re.escape, _words()), key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(words)})(s|es|ed|er|ing|y)?\b", re.IGNORECASE) if words else None


_shape = _pattern()


def _mask(match: re.Match[str]) -> str:
    word = match[0]
    return word[0] + "*" * (len(word) - 1)


@filter(priority=10)
def on_message(message: dict[str, Any]) -> Replace | None:
    if _shape is None:
        return None
    clean = _shape.sub(_mask, message["text"])
    return None if clean == message["text"] else Replace({**message, "text": clean})
