"""The place of a replay that goes on after a stop: kept in the store like that of a durable subscription."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio

from eventcore.bus.durable_room import DurableRoom
from eventcore.bus.staging import Staging
from eventcore.kernel.errors import Conflict, EventCoreError, InvalidName
from eventcore.kernel.names import MAX_NAME
from eventcore.kernel.records import Batch, Cursor, CursorHeld

_log = logging.getLogger("eventcore.bus")

#: After how many events at the latest the place is stored.
EVERY = 100
#: How long the last place may take to store when the job is cancelled, in seconds.
_CLOSING = 5.0

Commit = Callable[[Batch, Any], Awaitable[object]]


class Job(Protocol):
    """Where a replay has come to."""

    async def begin(self) -> int:
        """Return the position behind which to go on; 0 for the first time.

        Raises:
            Conflict: another engine is at this job.
        """
        ...

    async def passed(self, position: int, staging: Staging | None) -> None:
        """The event there is dealt with; what its handler staged, if anything, is to be committed with that."""
        ...

    async def end(self, done: bool) -> None:
        """The job is done, or was stopped."""
        ...


class Unnamed:
    """A job that is kept nowhere: it begins at the beginning each time."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    async def begin(self) -> int:
        return 0

    async def passed(self, position: int, staging: Staging | None) -> None:
        if staging:
            await self._commit(staging.batch, staging.guards)

    async def end(self, done: bool) -> None:
        pass


class Named:
    """A job whose place is a cursor. It moves in the commit of what a handler staged, else every 100 events.

    Args:
        name: the job's; what it is called in the store is `replay:NAME`.

    Raises:
        InvalidName: the name is empty, too long, or not printable.
    """

    def __init__(self, room: DurableRoom, commit: Commit, tenant: str, name: str) -> None:
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidName(f"a job's name has 1 to {MAX_NAME} printable characters")
        self._room, self._commit, self._tenant, self._name = room, commit, tenant, f"replay:{name}"
        self._fence, self._at = 0, 0
        # How many events were dealt with since the place was stored.
        self._since = 0

    async def begin(self) -> int:
        fence = await self._room.claim(self._tenant, self._name)
        if fence is None:
            raise Conflict(f"another engine is at the job {self._name!r}")
        self._fence = fence
        found = await self._room.store.cursor(self._tenant, self._name)
        self._at = found.position if found else 0
        return self._at

    async def passed(self, position: int, staging: Staging | None) -> None:
        if position > self._at:
            self._at, self._since = position, self._since + 1
        if staging:
            batch = Batch()
            batch.add(staging.batch)
            await self._store(batch, staging.guards)
        elif self._since >= EVERY:
            await self._store(Batch(), ())

    async def end(self, done: bool) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSING):
            store = self._room.store
            try:
                if self._since and not done:
                    await self._store(Batch(), ())
                await store.release_cursor(self._tenant, self._name, self._fence)
                if done:
                    await store.forget_cursor(self._tenant, self._name, self._room.clock.now())
            except EventCoreError as error:
                _log.warning("%s: its last place is not stored: %s", self._name, error)

    async def _store(self, batch: Batch, guards: Any) -> None:
        batch.cursors.append(Cursor(self._tenant, self._name, self._at))
        await self._commit(batch, (*guards, CursorHeld(self._tenant, self._name, self._fence)))
        self._since = 0
