"""`core.history`: what happened, and what caused what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from eventcore.bus.arguments import mapping, number
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.json import encode
from eventcore.kernel.names import canonical_pattern, is_literal
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import EventQuery
from eventcore.kernel.upkeep import COUNT_BY, CountBy, EventCount

_PAGE = 500
_MAX_TREE = 10_000
_CONDITIONS = (
    "type", "source", "subject", "actor", "run", "correlation", "since", "until", "text", "where", "after", "before",
)  # fmt: skip

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

    def __init__(
        self, store: Store, clock: Clock, context: Callable[[], CallContext], newest: Callable[[Event], Event]
    ) -> None:
        self._store, self._clock, self._context = store, clock, context
        # Payloads in the newest declared version of their type.
        self._newest = newest

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
        where: Mapping[str, Any] | None = None,
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
            where: JSON values by path into the data as it was recorded: `{"data.items[0].sku": "A-7"}`.
            after, before: positions, exclusive; the position of the last event read continues a page.
            limit: at most so many; None means all.

        Raises:
            InvalidInput: `type` is no pattern, or `limit` is below 1.
        """
        if limit is not None and limit < 1:
            raise InvalidInput("limit is at least 1")
        query = self._query(
            type, source, subject, actor, run, correlation, since, until, text, where, after, before, newest_first
        )
        left = limit
        while left is None or left > 0:
            page = min(_PAGE, left or _PAGE)
            events = await self._store.events(replace(query, limit=page))
            for event in events:
                yield self._newest(event)
            if len(events) < page:
                return
            left = None if left is None else left - len(events)
            last = events[-1].position
            query = replace(query, before=last) if newest_first else replace(query, after=last)

    async def count(self, by: CountBy = "type", *, every: float | None = None, **conditions: Any) -> list[EventCount]:
        """How many events satisfy the conditions of `query`, by a field and by time.

        Args:
            by: `type`, `source`, `actor`, or `status` (that of the data).
            every: length of a stretch of time, in seconds; stretches begin at the epoch. None: all time is one.

        Raises:
            InvalidInput: `by` is none of these, `every` is not above 0, or a condition is not acceptable.
        """
        if by not in COUNT_BY:
            raise InvalidInput(f"events are counted by {', '.join(COUNT_BY)}, not by {by!r:.40}")
        if every is not None and not every > 0:
            raise InvalidInput("a stretch of time is longer than 0 s")
        if unknown := conditions.keys() - {*_CONDITIONS}:
            raise InvalidInput(f"a count has no condition {', '.join(sorted(unknown))}")
        values: list[Any] = [conditions.get(name) for name in _CONDITIONS]
        return await self._store.counts(self._query(*values), by, every)

    def _query(
        self,
        type: str | None,
        source: str | None,
        subject: str | None,
        actor: str | None,
        run: str | None,
        correlation: str | None,
        since: When | None,
        until: When | None,
        text: str | None,
        where: Mapping[str, Any] | None,
        after: int | None,
        before: int | None,
        newest_first: bool = False,
    ) -> EventQuery:
        mapping("where", where)
        pattern = canonical_pattern(type) if type else None
        return EventQuery(
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
            where=tuple((path, encode(value, what=path)) for path, value in (where or {}).items()),
            after=after,
            before=before,
            newest_first=newest_first,
        )

    def _instant(self, when: When | None) -> float | None:
        if isinstance(when, timedelta):
            return self._clock.now() - when.total_seconds()
        if isinstance(when, datetime):
            return when.timestamp()
        if when is not None:
            number("a time", when)
        return when

    async def get(self, event_id: str) -> Event:
        """One event by id.

        Raises:
            NotFound: this tenant has no such event.
        """
        event = await self._store.event(event_id, self._context().tenant)
        if event is None:
            raise NotFound(f"there is no event {event_id}", hint="eventcore events list")
        return self._newest(event)

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
        # Foreign ids may repeat over sources: each event has a node, the oldest of an id has the effects.
        all_nodes = [Node(found) for found in events]
        nodes = {node.event.id: node for node in reversed(all_nodes)}
        roots: list[Node] = []
        for node in all_nodes:
            cause = nodes.get(node.event.causation_id or "")
            (cause.effects if cause is not None and cause is not node else roots).append(node)
        return Tree(roots, truncated=len(events) >= _MAX_TREE)
