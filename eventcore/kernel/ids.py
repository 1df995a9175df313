"""Identifiers and randomness.

`UUID7` follows RFC 9562, section 5.7, with its method 1 for monotonicity: the 12 bits after the version count up within
a millisecond, so that ids made by one generator sort in the order they were made.
"""

from __future__ import annotations

import hashlib
import random
import secrets

from eventcore.kernel.ports import Clock


class SystemRandomness:
    """Randomness from the operating system; jitter comes from a fast generator seeded by it."""

    def __init__(self) -> None:
        self._fast = random.Random(secrets.randbits(128))  # noqa: S311 - jitter and id tails are no secrets

    def random(self) -> float:
        return self._fast.random()

    def bits(self, count: int) -> int:
        return self._fast.getrandbits(count)

    def token(self, size: int = 32) -> str:
        return secrets.token_urlsafe(size)


_DRAWN = 64
_COUNTS = [f"{count:03x}" for count in range(0x1000)]
#: The variant takes two bits of the first hexadecimal digit of the tail, which leaves 62 random ones.
_VARIANT = {f"{digit:x}": f"{8 | digit & 3:x}" for digit in range(16)}


class UUID7:
    """UUIDv7 strings in ascending order. If the clock steps back, the last millisecond is used until it catches up."""

    def __init__(self, clock: Clock, randomness: SystemRandomness) -> None:
        self._now = clock.now
        self._bits = randomness.bits
        self._last = 0
        self._count = 0
        self._head = ""
        self._tails: list[str] = []

    def new(self) -> str:
        now = int(self._now() * 1000)
        count = self._count + 1
        if now > self._last:
            count = self._begin(now, self._bits(11))
        elif count > 0xFFF:
            count = self._begin(self._last + 1, 0)
        self._count = count
        try:
            tail = self._tails.pop()
        except IndexError:
            tail = self._draw()
        return self._head + _COUNTS[count] + tail

    def _begin(self, millisecond: int, count: int) -> int:
        text = f"{millisecond:012x}"
        self._last, self._head = millisecond, f"{text[:8]}-{text[8:]}-7"
        return count

    def _draw(self) -> str:
        """A random end, and a store of more. Drawn together: most of what an id costs is formatting small numbers."""
        tails = list[str]()
        text = f"{self._bits(64 * _DRAWN):0{16 * _DRAWN}x}"
        for at in range(0, len(text), 16):
            end = text[at : at + 16]
            tails.append(f"-{_VARIANT[end[0]]}{end[1:4]}-{end[4:]}")
        # Kept from the others before they can see it: an event's id may be asked for in another thread.
        tail = tails.pop()
        self._tails = tails
        return tail


def step_key(run: str, path: str, epoch: int = 0) -> str:
    """The idempotency key of a step: the same on every automatic attempt of it, and over a crash."""
    return hashlib.sha256(f"{run}\0{path}\0{epoch}".encode()).hexdigest()[:32]
