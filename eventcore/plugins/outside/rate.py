"""A bound on how often something may be done."""

from __future__ import annotations


class Bucket:
    """So many in a minute: all of them at once, and then as many as come back. Pure; a token bucket.

    Args:
        per_minute: how many.
        now: monotonic seconds.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._most = max(1.0, per_minute)
        self._rate = per_minute / 60
        self._left, self._at = self._most, now

    def take(self, now: float) -> float:
        """Take one. Returns 0, or the seconds until there is one again; then nothing was taken."""
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0
