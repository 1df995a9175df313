"""Words for what a worker did, fit for a log or a terminal."""

from __future__ import annotations

import signal
import unicodedata


def clean(text: str, most: int) -> str:
    """Text from a plugin: control characters are spelled out, and it ends at `most` characters."""
    text = text[:most]
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else f"\\x{ord(c):02x}" for c in text)


def describe_exit(code: int | None) -> str:
    """`exited with code 3`, or `was killed by SIGABRT`."""
    if code is None:
        return "was killed and is not gone yet"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
