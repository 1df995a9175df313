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
    types = (listen.event,) if is_literal(listen.event) else ()
    after: int | None = None
    while True:
        query = EventQuery(
            tenant=run.tenant,
            types=types,
            pattern=None if types else listen.event,
            since=run.created,
            after=after,
            limit=_PAGE,
        )
        page = await store.events(query)
        for event in page:
            mine = event.id not in listen.consumed and event.id != run.causation_id and not event.imported
            if mine and fits(event.as_dict(), listen.match):
                return event
        if len(page) < _PAGE:
            return None
        after = page[-1].position
