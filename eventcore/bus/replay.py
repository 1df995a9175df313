"""Replay: the past once more, for one subscription.

A job with a cursor of its own. The live cursor stays where it is, retries and dead letters are not touched, and the
handler can tell: `core.bus.delivery.replay` is True while it runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from eventcore.bus.acks import DeliveryContext, Since
from eventcore.bus.attempt import attempt
from eventcore.bus.calling import describe
from eventcore.bus.durable_room import DurableRoom, instant
from eventcore.bus.filters import selects
from eventcore.bus.outcome import Outcome
from eventcore.bus.staging import Staging
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import EventCoreError, InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.names import pattern as compile_pattern
from eventcore.kernel.records import EventQuery

Speed = Literal["instant", "original"]
SPEEDS = ("instant", "original")
#: How many failures a report names.
MAX_FAILURES = 100
_PAGE = 500


@dataclass(slots=True)
class ReplayReport:
    """What came of a replay.

    Attributes:
        subscription: its name.
        matched: how many past events are for it.
        delivered: how many of them its handler dealt with; 0 for a dry run.
        failed: how many it failed on. They are not tried again.
        failures: the first 100 of them.
        dry_run: True if nothing was delivered.
        last: position of the last event that was looked at, where a later replay may go on.
    """

    subscription: str
    matched: int = 0
    delivered: int = 0
    failed: int = 0
    failures: list[tuple[Event, Outcome]] = field(default_factory=list)
    dry_run: bool = False
    last: int = 0


class Replay:
    """One job.

    Args:
        commit: takes what a handler staged.
    """

    def __init__(
        self,
        room: DurableRoom,
        bus: object,
        subscription: Subscription,
        commit: Callable[[Staging], Awaitable[object]],
        *,
        since: Since | None,
        until: Since | None,
        speed: str,
        dry_run: bool,
    ) -> None:
        if speed not in SPEEDS:
            raise InvalidInput(f"speed {speed!r} is none of {', '.join(SPEEDS)}")
        self._room, self._bus, self._subscription, self._commit = room, bus, subscription, commit
        self._since = None if since is None else instant(since, room.clock)
        self._until = None if until is None else instant(until, room.clock)
        self._original, self._end = speed == "original", room.seen
        self.report = ReplayReport(subscription.name, dry_run=dry_run)

    async def run(self) -> ReplayReport:
        """Deliver what was recorded before this moment, in order."""
        report, clock = self.report, self._room.clock
        first: tuple[float, float] | None = None
        async for event in self._events():
            report.matched += 1
            if self.report.dry_run:
                continue
            if self._original:
                first = first or (event.at, clock.monotonic())
                await clock.sleep(max(0.0, event.at - first[0] - (clock.monotonic() - first[1])))
            outcome = await self._deliver(event)
            if outcome.ok:
                report.delivered += 1
                continue
            report.failed += 1
            if len(report.failures) < MAX_FAILURES:
                report.failures.append((event, outcome))
        return report

    async def _events(self) -> AsyncIterator[Event]:
        subscription, report = self._subscription, self.report
        regex = compile_pattern(subscription.pattern)
        while report.last < self._end:
            query = EventQuery(
                tenant=subscription.tenant,
                **selects(subscription.pattern),
                since=self._since,
                until=self._until,
                after=report.last,
                before=self._end + 1,
                limit=_PAGE,
            )
            page = await self._room.store.events(query)
            for event in page:
                report.last = event.position
                if regex.fullmatch(event.type) and self._wanted(event):
                    yield event
            if len(page) < _PAGE:
                return

    def _wanted(self, event: Event) -> bool:
        try:
            return self._subscription.wants(event)
        except Exception:  # noqa: BLE001 - the failing filter is seen again at delivery, and reported there
            return True

    async def _deliver(self, event: Event) -> Outcome:
        """Call the handler; what it staged is committed if it ends well."""
        subscription, staging = self._subscription, Staging()
        delivery = DeliveryContext(subscription.name, 1, subscription.timeout, replay=True)
        try:
            outcome = (await attempt(self._bus, self._room, subscription, event, delivery, staging)).outcome
            if outcome.ok and staging:
                await self._commit(staging)
                staging.committed = True
        except EventCoreError as error:
            return Outcome(subscription.name, "error", outcome.seconds, error=describe(error))
        finally:
            staging.close()
        return outcome
