"""An event may come before the step that waits for it: the run's past is looked through when it begins to wait."""

from __future__ import annotations

from collections.abc import Sequence

from eventcore.kernel.event import Event
from eventcore.kernel.names import is_literal
from eventcore.kernel.ports import Store
from eventcore.kernel.records import Batch, EventQuery, Run
from eventcore.workflows.listening import Listeners, fits, wake_timer
from eventcore.workflows.scribe import listening_row
from eventcore.workflows.ticks import Listen

_PAGE = 1000


async def look_back(store: Store, listeners: Listeners, run: Run, listens: Sequence[Listen], batch: Batch) -> None:
    """Listen from now on; what came since the run began goes into `batch` as the row that wakes it.

    The index learns of the step before the past is read: an event that is committed meanwhile is either read or heard.
    """
    for listen in listens:
        row = listening_row(run, listen)
        listeners.add(row)
        event = await _first(store, run, listen)
        if event is not None:
            listeners.remove(row.id)
            batch.listening[:] = [one for one in batch.listening if one.id != row.id]
            batch.timers.append(wake_timer(row, event))


async def _first(store: Store, run: Run, listen: Listen) -> Event | None:
    after: int | None = None
    while page := await _page(store, run.tenant, listen.event, run.created, after):
        for event in page:
            mine = event.id not in listen.consumed and event.id != run.causation_id and not event.imported
            if mine and fits(event.as_dict(), listen.match):
                return event
        after = page[-1].position
    return None


async def overlooked(store: Store, listeners: Listeners, since: float) -> set[str]:
    """Runs of which a step waits although an event that was stored since then may fit.

    One look through the past for each type that anybody waits for, however many do.
    """
    found: set[str] = set()
    for tenant, wanted in listeners.events():
        after: int | None = None
        while page := await _page(store, tenant, wanted, since, after):
            for event in page:
                found.update(row.run for row in listeners.find(event))
            after = page[-1].position
    return found


async def _page(store: Store, tenant: str, wanted: str, since: float, after: int | None) -> list[Event]:
    """Some events of a type or pattern, oldest first."""
    types = (wanted,) if is_literal(wanted) else ()
    pattern = None if types else wanted
    return await store.events(
        EventQuery(tenant=tenant, types=types, pattern=pattern, since=since, after=after, limit=_PAGE)
    )
