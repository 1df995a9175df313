"""Replay: the past once more, for one subscription.

A job with a cursor of its own. The live cursor stays where it is, retries and dead letters are not touched, and the
handler can tell: `core.bus.delivery.replay` is True while it runs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from eventcore.bus.acks import DeliveryContext, Since
from eventcore.bus.attempt import attempt
from eventcore.bus.calling import describe
from eventcore.bus.durable_room import DurableRoom, instant
from eventcore.bus.filters import selects
from eventcore.bus.outcome import Outcome
from eventcore.bus.replay_job import Job
from eventcore.bus.staging import Staging
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import Conflict, EventCoreError, InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.names import pattern as compile_pattern
from eventcore.kernel.records import CursorHeld, EventQuery

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
        job: its place, and who commits what handlers stage.
    """

    def __init__(
        self,
        room: DurableRoom,
        bus: object,
        subscription: Subscription,
        job: Job,
        *,
        since: Since | None,
        until: Since | None,
        speed: str,
        dry_run: bool,
    ) -> None:
        if speed not in SPEEDS:
            raise InvalidInput(f"speed {speed!r} is none of {', '.join(SPEEDS)}")
        self._room, self._bus, self._subscription, self._job = room, bus, subscription, job
        self._since = None if since is None else instant(since, room.clock)
        self._until = None if until is None else instant(until, room.clock)
        self._original, self._end = speed == "original", room.seen
        # Time of the first event, and the clock when it was delivered.
        self._first: tuple[float, float] | None = None
        self.report = ReplayReport(subscription.name, dry_run=dry_run)

    async def run(self) -> ReplayReport:
        """Deliver what was recorded before this moment, in order.

        Raises:
            Conflict: another engine is at this job, or has taken it over.
        """
        if self.report.dry_run:
            return await self._run()
        done = False
        self.report.last = await self._job.begin()
        try:
            report = await self._run()
            done = True
            return report
        finally:
            await self._job.end(done)

    async def _run(self) -> ReplayReport:
        report = self.report
        # A generator that is left half way has to be closed here: who would otherwise do it is the loop's end.
        async with aclosing(self._events()) as events:
            async for event in events:
                report.matched += 1
                if not report.dry_run:
                    await self._pace(event)
                    self._note(event, await self._deliver(event))
                    await self._job.passed(event.position, None)
        return report

    async def _pace(self, event: Event) -> None:
        """At the original speed, wait as long as it was since the first event."""
        if self._original:
            clock = self._room.clock
            self._first = self._first or (event.at, clock.monotonic())
            at, began = self._first
            await clock.sleep(max(0.0, event.at - at - (clock.monotonic() - began)))

    def _note(self, event: Event, outcome: Outcome) -> None:
        report = self.report
        if outcome.ok:
            report.delivered += 1
            return
        report.failed += 1
        if len(report.failures) < MAX_FAILURES:
            report.failures.append((event, outcome))

    async def _events(self) -> AsyncGenerator[Event, None]:
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
                await self._job.passed(event.position, staging)
                staging.committed = True
        except EventCoreError as error:
            if isinstance(error, Conflict) and isinstance(error.guard, CursorHeld):
                raise  # the job is another engine's now
            return Outcome(subscription.name, "error", outcome.seconds, error=describe(error))
        finally:
            staging.close()
        return outcome
