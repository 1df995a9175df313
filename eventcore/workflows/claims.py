"""Which runs this engine drives: taking them over, one or all that nobody holds."""

from __future__ import annotations

from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import Run

_PAGE = 1000


class Claims:
    """One a runner.

    Args:
        owner: this engine's name.
        lease: how long it holds a run without renewing, in seconds.

    Attributes:
        alone: no other engine can be using this store, so every other claim in it is that of a dead engine.
    """

    def __init__(self, store: Store, clock: Clock, owner: str, lease: float) -> None:
        self._store, self._clock, self._owner, self._lease = store, clock, owner, lease
        self.alone = False

    async def one(self, run_id: str) -> Run | None:
        """This run, whatever its status; None if another engine drives it."""
        claimed = await self._store.claim(self._owner, *self._times(), run=run_id)
        return claimed[0] if claimed else None

    async def some(self) -> list[Run]:
        """Live runs that nobody holds, oldest first; those that are paused stay as they are."""
        return await self._store.claim(self._owner, *self._times(), limit=_PAGE)

    def _times(self) -> tuple[float, float]:
        """When is asked, and for how long.

        A run must not wait for the lease of an engine that was killed: whoever is alone asks as if every lease had
        ended; the new leases end when ordinary ones would.
        """
        now = self._clock.now()
        return (now + self._lease, 0.0) if self.alone else (now, self._lease)
