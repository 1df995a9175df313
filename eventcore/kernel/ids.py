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


class UUID7:
    """UUIDv7 strings in ascending order. If the clock steps back, the last millisecond is used until it catches up."""

    def __init__(self, clock: Clock, randomness: SystemRandomness) -> None:
        self._now = clock.now
        self._bits = randomness.bits
        self._last = 0
        self._count = 0

    def new(self) -> str:
        now = int(self._now() * 1000)
        if now > self._last:
            self._last, self._count = now, self._bits(11)
        else:
            self._count += 1
            if self._count > 0xFFF:
                self._last, self._count = self._last + 1, 0
        tail = self._bits(62) | 0x8000000000000000
        text = f"{self._last:012x}7{self._count:03x}{tail:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def step_key(run: str, path: str, epoch: int = 0) -> str:
    """The idempotency key of a step: the same on every automatic attempt of it, and over a crash."""
    return hashlib.sha256(f"{run}\0{path}\0{epoch}".encode()).hexdigest()[:32]
