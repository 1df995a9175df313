"""Keeping the runs that an engine holds, and taking over those that nobody holds any more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.ports import Clock, Store

log = logging.getLogger("eventcore.workflows")


async def keep_leases(
    store: Store, clock: Clock, owner: str, lease: float, recover: Callable[[], Awaitable[object]]
) -> None:
    """Renew the leases of `owner` three times in each, for ever, and look for runs to take over with `recover`."""
    while True:
        await clock.sleep(lease / 3)
        try:
            await store.renew(owner, clock.now(), lease)
            await recover()
        except EventCoreError as error:
            log.error("leases could not be renewed: %s", error)
