"""Secrets that were handed out are masked where they come back: in results, output and errors of plugins."""

from __future__ import annotations

import re
from typing import Any

from eventcore.kernel.json import decode, encode
from eventcore.kernel.ports import Secrets

MASK = "***"
#: Shorter values are not masked: they would riddle every text.
SHORTEST = 4


class MaskingSecrets:
    """A source of secrets that remembers what it gave. Implements `eventcore.kernel.ports.Secrets`."""

    def __init__(self, source: Secrets) -> None:
        self._source = source
        self._values: set[str] = set()
        self._plain: re.Pattern[str] | None = None
        self._quoted: re.Pattern[bytes] | None = None

    def get(self, name: str) -> str | None:
        """The value, or None."""
        value = self._source.get(name)
        if value is not None and len(value) >= SHORTEST and value not in self._values:
            self._values.add(value)
            # The longest first, so that a secret which begins with another one is masked whole.
            ordered = sorted(self._values, key=len, reverse=True)
            self._plain = re.compile("|".join(map(re.escape, ordered)))
            self._quoted = re.compile(b"|".join(re.escape(encode(one)[1:-1]) for one in ordered))
        return value

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        return text if self._plain is None else self._plain.sub(MASK, text)

    def data(self, value: Any) -> Any:
        """A JSON value with every secret masked, in keys too."""
        if self._quoted is None:
            return value
        raw = encode(value)
        return value if self._quoted.search(raw) is None else decode(self._quoted.sub(MASK.encode(), raw))

    def __repr__(self) -> str:
        return f"MaskingSecrets({self._source!r})"
