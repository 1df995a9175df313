"""When to stop asking an owner of handlers whose code keeps failing: a circuit breaker. Pure; the caller has the clock.

    closed --(5 failures in a row)--> open --(60 s)--> half open --(one good call)--> closed
                                        ^                  |
                                        +---(it failed)----+

Half open, one call is let through to see. Source: M. Nygard, "Release It!" (2nd edition, 2018), chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a settled call changed: the owner's handlers are no longer asked, or are asked again.
Change = Literal["degraded", "recovered"]

FAILURES = 5
REST = 60.0


@dataclass(slots=True)
class _Health:
    failures: int = 0
    open_since: float | None = None
    probe_since: float | None = None


class Breaker:
    """The health of all owners. Only those that failed lately take room.

    Args:
        failures: how many in a row open it.
        rest: seconds before it is half open.
    """

    def __init__(self, failures: int = FAILURES, rest: float = REST) -> None:
        self.failures, self.rest = failures, rest
        self._owners: dict[str, _Health] = {}

    @property
    def quiet(self) -> bool:
        """Whether no owner has failed lately, so that nothing need be asked or told."""
        return not self._owners

    def open(self, owner: str) -> bool:
        """Whether its handlers are not asked, or only to see whether it is well again."""
        health = self._owners.get(owner)
        return health is not None and health.open_since is not None

    def allows(self, owner: str, now: float) -> bool:
        """Whether to call it now (`now`: monotonic seconds). A yes when it is half open is for this one call."""
        health = self._owners.get(owner)
        if health is None or health.open_since is None:
            return True
        # A probe that never reported (its call was cancelled) is forgotten after the same time.
        since = health.open_since if health.probe_since is None else health.probe_since
        if now - since < self.rest:
            return False
        health.probe_since = now
        return True

    def wait(self, owner: str, now: float) -> float:
        """Seconds until it is half open; 0 if it is asked."""
        health = self._owners.get(owner)
        if health is None or health.open_since is None:
            return 0.0
        since = health.open_since if health.probe_since is None else health.probe_since
        return max(0.0, since + self.rest - now)

    def settled(self, owner: str, failed: int, now: float) -> Change | None:
        """A call of it has ended with `failed` failures; 0 means it went well. What that changes, or None."""
        health = self._owners.get(owner)
        if not failed:
            # A success that began before the breaker opened says nothing; only the probe's does.
            if health is None or (health.open_since is not None and health.probe_since is None):
                return None
            del self._owners[owner]
            return None if health.open_since is None else "recovered"
        if health is None:
            health = self._owners[owner] = _Health()
        health.failures += failed
        if health.open_since is not None:
            if health.probe_since is not None:
                health.open_since, health.probe_since = now, None
            return None
        if health.failures < self.failures:
            return None
        health.open_since = now
        return "degraded"

    def trip(self, owner: str, now: float) -> None:
        """Open it: it was open when the engine stopped."""
        self._owners[owner] = _Health(self.failures, now)

    def forget(self, owner: str) -> None:
        """Close it, whatever was: its code or its state has changed."""
        self._owners.pop(owner, None)
