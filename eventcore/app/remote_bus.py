"""`core.bus` of an engine in another process."""

from __future__ import annotations

import builtins
import logging
from collections import deque
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup

from eventcore.app.remote_room import SLACK, Room, event_of, not_here, plain
from eventcore.bus.acks import Since
from eventcore.bus.dead_letters import Letter
from eventcore.bus.intake import facts_of
from eventcore.bus.outbox import MAX_PENDING
from eventcore.bus.outcome import Outcome, Receipt
from eventcore.bus.places import Place
from eventcore.bus.replay import ReplayReport, Speed
from eventcore.home.control import ControlClient
from eventcore.kernel.errors import BusOverflow, EngineClosed, EventCoreError
from eventcore.kernel.event import Event

log = logging.getLogger("eventcore.bus")

#: How long a replay may take, in seconds: at original speed it takes as long as the past did.
_REPLAY_SECONDS = 7 * 86400.0
_CLOSE_SECONDS = 10.0


class RemoteBus(Room):
    """`core.bus` of a running engine: what needs no code of ours in its process.

    Args:
        tasks: where events of `emit_nowait` are sent from.
    """

    def __init__(self, client: ControlClient, tasks: TaskGroup) -> None:
        super().__init__(client)
        self.dead_letters, self.places = RemoteDeadLetters(client), RemotePlaces(client)
        self._tasks = tasks
        self._waiting: deque[RemotePending] = deque()
        self._sending = self._closed = False

    async def emit(self, type: str, data: Any = None, *, now: bool = True, **options: Any) -> Receipt:
        """As `Bus.emit`, but for `context`: who speaks is the operator. It is committed at once."""
        return _receipt(
            await self._client.call("events.emit", {"type": type, "data": data, "source": "/host", **options})
        )

    def emit_nowait(self, type: str, data: Any = None, **options: Any) -> RemotePending:
        """As `Bus.emit_nowait`; but what is wrong with the event itself is known where the receipt is awaited, too.

        Raises:
            BusOverflow: too many events wait to be sent.
            EngineClosed: this core is closed.
        """
        if self._closed:
            raise EngineClosed()
        if len(self._waiting) >= MAX_PENDING:
            raise BusOverflow(f"{MAX_PENDING:,} events wait to be sent; {type} is refused")
        pending = RemotePending(type, {"type": type, "data": data, "source": "/host", **options})
        self._waiting.append(pending)
        if not self._sending:
            self._sending = True
            self._tasks.start_soon(self._send, name="eventcore remote outbox")
        return pending

    async def _send(self) -> None:
        """One after the other, so that they are recorded in order."""
        try:
            while self._waiting:
                pending = self._waiting[0]
                try:
                    pending.succeed(_receipt(await self._client.call("events.emit", pending.fact)))
                except EventCoreError as error:
                    pending.fail(error)
                self._waiting.popleft()
        finally:
            self._sending = False

    async def close(self) -> None:
        """Wait until everything is sent, at most 10 seconds; what is left then fails. End the tasks next."""
        self._closed = True
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
            while self._waiting:  # noqa: ASYNC110 - asked once in a core's life
                await anyio.sleep(0.002)
        for pending in self._waiting:
            pending.fail(EngineClosed("the core was closed before this event was sent"))
        self._waiting.clear()

    async def emit_many(self, entries: Sequence[Mapping[str, Any] | tuple[str, Any]]) -> list[Receipt]:
        """As `Bus.emit_many`; all of it in at most 4 MiB of JSON."""
        facts = [{"source": "/host", **facts_of(entry)} for entry in entries]
        return [_receipt(row) for row in await self._client.call("events.emit_many", {"entries": facts})]

    async def emit_cloudevent(self, body: Mapping[str, Any]) -> Receipt:
        """As `Bus.emit_cloudevent`, of a mapping."""
        return _receipt(await self._client.call("events.emit_cloudevent", {"body": dict(body)}))

    async def request(self, target: str, params: Mapping[str, Any] | None = None, *, timeout: float = 10.0) -> Any:
        """As `Bus.request`.

        Raises:
            NoResponder: nobody answers; known at once.
            RemoteError: the connection to the engine broke.
        """
        asked = {"target": target, "params": dict(params or {}), "timeout": timeout}
        return (await self._client.call("events.request", asked, timeout=timeout + SLACK))["answer"]

    async def payload(self, event: Event) -> Any:
        """As `Bus.payload`."""
        return event.data if event.blob is None else await self._client.call("events.payload", {"id": event.id})

    async def find(
        self, pattern: str, *, where: Mapping[str, Any] | None = None, past: float = 5.0, future: float = 5.0
    ) -> Event | None:
        """As `Bus.find`; `where` is a mapping, as a function cannot be sent."""
        if callable(where):
            raise not_here("a function as the filter of find")
        asked = {"pattern": pattern, "where": where, "past": past, "future": future}
        found = await self._client.call("events.find", asked, timeout=max(0.0, future) + SLACK)
        return None if found is None else event_of(found)

    async def stream(self, pattern: str) -> AsyncIterator[Event]:
        """Events of the running engine from now on."""
        async with aclosing(self._client.stream("events.tail", {"pattern": pattern})) as items:
            async for item in items:
                yield event_of(item)

    async def replay(
        self,
        name: str,
        *,
        since: Since | None = None,
        until: Since | None = None,
        speed: Speed = "instant",
        dry_run: bool = False,
        job: str | None = None,
    ) -> ReplayReport:
        """As `Bus.replay`, of a subscription of the running engine. Cancelled here, it ends there."""
        asked = {"subscription": name, "since": plain(since), "until": plain(until), "speed": speed, "dry_run": dry_run}
        asked |= {"job": job} if job is not None else {}
        done = await self._client.call("events.replay", asked, timeout=_REPLAY_SECONDS)
        report = ReplayReport(
            done["subscription"], done["matched"], done["delivered"], done["failed"], dry_run=done["dry_run"]
        )
        report.last = done["last"]
        for row in done["failures"]:
            shown = await self._client.call("events.show", {"id": row["event"]})
            outcome = Outcome(done["subscription"], row["status"], row["seconds"], error=row["error"])
            report.failures.append((event_of(shown["event"]), outcome))
        return report


class RemotePending:
    """An event on its way to the running engine: `await pending` returns its receipt, or raises what went wrong."""

    def __init__(self, type: str, fact: dict[str, Any]) -> None:
        self.type, self.fact = type, fact
        self._done = anyio.Event()
        self._ended: Receipt | EventCoreError | None = None
        self._awaited = False

    @property
    def done(self) -> bool:
        """Whether it is known how it ended."""
        return self._done.is_set()

    def succeed(self, receipt: Receipt) -> None:
        self._ended = receipt
        self._done.set()

    def fail(self, error: EventCoreError) -> None:
        self._ended = error
        self._done.set()
        if not self._awaited:
            log.warning("%s, emitted without waiting, was not taken in: %s", self.type, error)

    def __await__(self) -> Generator[Any, Any, Receipt]:
        self._awaited = True
        return self._wait().__await__()

    async def _wait(self) -> Receipt:
        await self._done.wait()
        assert self._ended is not None
        if isinstance(self._ended, EventCoreError):
            raise self._ended
        return self._ended


class RemoteDeadLetters(Room):
    """`core.bus.dead_letters` of a running engine."""

    async def list(self, *, subscription: str | None = None, limit: int = 100) -> builtins.list[Letter]:
        """As `DeadLetters.list`."""
        asked = {"subscription": subscription, "limit": limit, "events": True}
        return [_letter(row) for row in await self._client.call("deadletters.list", asked)]

    async def show(self, letter_id: str) -> Letter:
        """As `DeadLetters.show`."""
        return _letter(await self._client.call("deadletters.show", {"id": letter_id}))

    async def redrive(self, letter_id: str) -> Letter:
        """As `DeadLetters.redrive`."""
        letter = await self.show(letter_id)
        await self._client.call("deadletters.redrive", {"id": letter_id})
        return letter

    async def drop(self, letter_id: str) -> Letter:
        """As `DeadLetters.drop`."""
        letter = await self.show(letter_id)
        await self._client.call("deadletters.drop", {"id": letter_id})
        return letter


class RemotePlaces(Room):
    """`core.bus.places` of a running engine."""

    async def list(self) -> builtins.list[Place]:
        """As `Places.list`."""
        return [Place(**row) for row in await self._client.call("subscriptions.list")]

    async def drop(self, name: str) -> None:
        """As `Places.drop`."""
        await self._client.call("subscriptions.drop", {"name": name})


def _receipt(row: Mapping[str, Any]) -> Receipt:
    return Receipt(row["id"], row["position"], row["duplicate"])


def _letter(row: Mapping[str, Any]) -> Letter:
    return Letter(
        id=row["id"],
        subscription=row["subscription"],
        position=row["position"],
        reason=row["reason"],
        attempts=row["attempts"],
        at=datetime.fromisoformat(row["time"]).timestamp(),
        event=event_of(row["event"]) if row["event"] else None,
    )
