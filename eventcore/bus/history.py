"""`core.history`: what happened, and what caused what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.names import canonical_pattern, is_literal
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import EventQuery

_PAGE = 500
_MAX_TREE = 10_000

When = float | datetime | timedelta


@dataclass(slots=True)
class Node:
    """An event and what it caused."""

    event: Event
    effects: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything that one outside act set in motion.

    Attributes:
        roots: events whose cause is outside the history (or was pruned), with their effects below them.
        truncated: more than 10,000 events belong to it; the later ones are left out.
    """

    roots: list[Node]
    truncated: bool


class History:
    """The recorded events of one tenant, step events among them."""

    def __init__(self, store: Store, clock: Clock, context: Callable[[], CallContext]) -> None:
        self._store, self._clock, self._context = store, clock, context

    async def query(
        self,
        *,
        type: str | None = None,
        source: str | None = None,
        subject: str | None = None,
        actor: str | None = None,
        run: str | None = None,
        correlation: str | None = None,
        since: When | None = None,
        until: When | None = None,
        text: str | None = None,
        after: int | None = None,
        before: int | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Event]:
        """Recorded events that satisfy all conditions, oldest first unless `newest_first`.

        Args:
            type: a type or a pattern.
            since, until: a datetime, seconds since the epoch, or a timedelta back from now.
            text: words that all stand in type, subject, actor or payload.
            after, before: positions, exclusive; the position of the last event read continues a page.
            limit: at most so many; None means all.

        Raises:
            InvalidInput: `type` is no pattern, or `limit` is below 1.
        """
        if limit is not None and limit < 1:
            raise InvalidInput("limit is at least 1")
        pattern = canonical_pattern(type) if type else None
        left = limit
        while left is None or left > 0:
            page = min(_PAGE, left or _PAGE)
            query = EventQuery(
                tenant=self._context().tenant,
                types=(pattern,) if pattern and is_literal(pattern) else (),
                pattern=pattern if pattern and not is_literal(pattern) else None,
                source=source,
                subject=subject,
                actor=actor,
                run=run,
                correlation_id=correlation,
                since=self._instant(since),
                until=self._instant(until),
                text=text,
                after=after,
                before=before,
                newest_first=newest_first,
                limit=page,
            )
            events = await self._store.events(query)
            for event in events:
                yield event
            if len(events) < page:
                return
            left = None if left is None else left - len(events)
            if newest_first:
                before = events[-1].position
            else:
                after = events[-1].position

    def _instant(self, when: When | None) -> float | None:
        if isinstance(when, timedelta):
            return self._clock.now() - when.total_seconds()
        return when.timestamp() if isinstance(when, datetime) else when

    async def get(self, event_id: str) -> Event:
        """One event by id.

        Raises:
            NotFound: this tenant has no such event.
        """
        event = await self._store.event(event_id, self._context().tenant)
        if event is None:
            raise NotFound(f"there is no event {event_id}", hint="eventcore events list")
        return event

    async def tree(self, event_id: str) -> Tree:
        """What caused what, for everything that belongs to the same outside act as the event.

        Raises:
            NotFound: this tenant has no such event.
        """
        event = await self.get(event_id)
        correlation = event.correlation_id or event.id
        events = [found async for found in self.query(correlation=correlation, limit=_MAX_TREE)]
        if not any(found.id == event.id for found in events):
            events.append(event)
        nodes = {found.id: Node(found) for found in events}
        roots: list[Node] = []
        for node in nodes.values():
            cause = nodes.get(node.event.causation_id or "")
            (cause.effects if cause is not None and cause is not node else roots).append(node)
        return Tree(roots, truncated=len(events) >= _MAX_TREE)
