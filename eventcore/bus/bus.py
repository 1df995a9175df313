"""The bus: takes facts in, commits them with whatever they start, and hands them to subscriptions.

Nothing reaches a subscription before it is committed. The bus knows nobody: what a commit must also hold (runs that an
event starts) comes from contributors, and who answers a request from a responder; the composition root fills in both.

This file, `emitting` and `listening` are the face; the work is done by `intake` (build, commit), `admission` (room),
`delivery` (who listens), `subscription` and `pump` (handlers), `outbox` (emit_nowait), `guard` (loops), `notices` (what
the bus says of itself).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from anyio.abc import TaskGroup

from eventcore.bus import arguments
from eventcore.bus.acks import DeliveryContext, Since
from eventcore.bus.admission import Admission
from eventcore.bus.dead_letters import DeadLetters
from eventcore.bus.durable_room import DurableRoom
from eventcore.bus.emitting import MAX_BATCH as MAX_BATCH
from eventcore.bus.emitting import Emitting
from eventcore.bus.express import forks
from eventcore.bus.guard import EMIT_RATE
from eventcore.bus.intake import HOST, KEY_WINDOW, Intake
from eventcore.bus.notices import Notices
from eventcore.bus.outbox import MAX_PENDING, Outbox
from eventcore.bus.outcome import Receipt
from eventcore.bus.places import Places
from eventcore.bus.replay import Replay, ReplayReport, Speed
from eventcore.bus.replay_job import Named, Unnamed
from eventcore.bus.staging import Staging, current_delivery, current_staging
from eventcore.bus.types import EventType
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EngineClosed, NoResponder, NotFound, StoreError, WrongProcess
from eventcore.kernel.event import Event, joined
from eventcore.kernel.ports import Clock, Faults, Ids, Metrics, Store
from eventcore.kernel.records import Batch, Guard, LogEntry

#: Answers a request: (target, params, timeout in seconds, context) -> the answer. Raises NoResponder.
Responder = Callable[[str, dict[str, Any], float, CallContext], Awaitable[Any]]


class Bus(Emitting):
    """Made by the engine; reached as `core.bus`.

    Args:
        tenant: whose bus this is when no context says otherwise.
        key_window: how long idempotency keys are remembered, in seconds.
        emit_rate: events a second that each plugin may emit; twice as many at once.
        max_pending: how many events of `emit_nowait` may wait to be committed.
        owner: names this engine where it claims durable subscriptions.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        faults: Faults,
        tenant: str,
        key_window: float = KEY_WINDOW,
        emit_rate: float = EMIT_RATE,
        max_pending: int = MAX_PENDING,
        owner: str | None = None,
    ) -> None:
        notices, outbox = Notices(self.announce), Outbox(self._take_in, max_pending)
        super().__init__(store, clock, ids, metrics, tenant, notices, outbox, emit_rate=emit_rate)
        self._intake = Intake(store, clock, ids, faults, self.types, key_window)
        self._faults, self.contributors = faults, self._intake.contributors
        self.responder: Responder | None = None
        #: The version of a plugin, for what is recorded of its failures; set by whoever knows plugins.
        self.version_of: Callable[[str], str | None] = lambda plugin: None
        self._admission = Admission(self._dispatch)
        self.durables = DurableRoom(
            store=store,
            clock=clock,
            ids=ids,
            faults=faults,
            metrics=metrics,
            commit=self.commit,
            build=self.build,
            newest=self.types.newest,
            owner=owner,
        )
        self.contributors.append(self.durables)
        #: Events that durable subscriptions gave up on.
        self.dead_letters = DeadLetters(self.durables, self.context)
        #: Where durable subscriptions stand.
        self.places = Places(self.durables, self.context)
        self._forks = self._thread = 0

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        """Begin to deliver. The caller owns both the stack and the tasks."""
        self._tasks, self._forks, self._thread = tasks, forks(), threading.get_ident()
        self._notices.start(tasks)
        tasks.start_soon(self.signals.run, name="eventcore signals")
        tasks.start_soon(self._watchdog.run, name="eventcore watchdog")
        tasks.start_soon(self._outbox.run, name="eventcore outbox")
        for subscription in self._dispatch.subscriptions:
            subscription.start(tasks)
        stack.callback(self._closed)
        stack.callback(self._store.watch(self._on_commit))
        await self.durables.look()
        stack.push_async_callback(self._outbox.close)

    def _closed(self) -> None:
        self._tasks = None
        self._express.close()
        self._notices.start(None)

    def check_open(self) -> None:
        """Raises EngineClosed or WrongProcess unless this bus may be used here and now."""
        if self._tasks is None:
            raise EngineClosed()
        if forks() != self._forks:
            raise WrongProcess(
                "this engine was opened by another process", hint="open an engine of your own after the fork"
            )
        if threading.get_ident() != self._thread:
            raise WrongProcess(
                "this engine belongs to the event loop of another thread",
                hint="in a sync handler use anyio.from_thread.run(core.bus.emit, ...)",
            )

    # -- taking in ---------------------------------------------------------------------------------------------------

    def declare(
        self,
        type: str,
        model: Any = None,
        *,
        transient: bool = False,
        max_turns: int | None = None,
        version: int = 1,
        upcast: Mapping[int, Callable[[Any], Any]] | None = None,
        blobs: bool = False,
    ) -> EventType:
        """Say what a type's payload looks like and whether it is recorded (default: any JSON, recorded).

        Args:
            model: a pydantic model that payloads must satisfy.
            transient: hand it out without recording it.
            max_turns: how often one subscriber may handle this type (of one key) in a chain of causes: permits a
                dialogue that is longer than the loop guard's 3 turns and 16 hops; at most 1,000.
            version: of the payload's schema; stored with each event.
            upcast: for each older version, a pure function that makes its payload one of the next version. The history
                and deliveries then give every event in the newest version; what is stored stays as it was.
            blobs: take payloads of up to 8 MiB; one above 256 KiB is stored beside the log, see `payload`.
        """
        return self.types.declare(
            type, model, transient=transient, max_turns=max_turns, version=version, upcast=upcast, blobs=blobs
        )

    async def payload(self, event: Event) -> Any:
        """What the event carries, also where that is too large for the log (`event.blob`).

        Raises:
            NotFound: retention has removed the event, and its blob with it.
            StoreError: the store has another payload under this hash: it is damaged.
        """
        if event.blob is None:
            return event.data
        raw = event.body or await self._store.blob(event.tenant, event.blob)
        if raw is None:
            raise NotFound(f"the payload of {event.type} {event.id} is not in the store any more", blob=event.blob)
        if hashlib.sha256(raw).hexdigest() != event.blob:
            raise StoreError(f"the payload of {event.type} {event.id} is damaged", hint="restore a backup")
        return self.types.newest(joined(event, raw)).data

    async def request(
        self,
        target: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        context: CallContext | None = None,
    ) -> Any:
        """Ask a plugin (by slug) or whoever answers an intent, and return the answer.

        What was emitted on the way is committed at once. A chain of requests is bounded like a chain of events.

        Args:
            timeout: seconds.
            context: on whose behalf; by default that of the handler this is called from, else the operator.

        Raises:
            NoResponder: nobody answers; known at once.
            LoopDetected: requests have led to this request too often.
            AccessDenied, PluginFailed, PluginTimeout: as for `core.plugins.run`.
        """
        self.check_open()
        arguments.seconds("timeout", timeout)
        arguments.text("target", target, needed=True)
        arguments.mapping("params", params)
        if self.responder is None:
            raise NoResponder(f"nobody answers {target!r}")
        context = context or self.context()
        self._guard.check_request(target, context)
        return await self.responder(target, dict(params or {}), timeout, context)

    async def announce(
        self,
        type: str,
        data: Any,
        context: CallContext,
        *,
        source: str = HOST,
        subject: str | None = None,
    ) -> Event:
        """Record an event of the host itself (a core event or a hook's)."""
        event = self.build(type, data, context, source=source, subject=subject)
        await self.commit(Batch(log=[event]))
        return event

    def build(
        self,
        type: str,
        data: Any,
        context: CallContext,
        *,
        source: str = HOST,
        subject: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
        event_id: str | None = None,
    ) -> Event:
        """An event under `context`, not yet committed. Checks the payload, not the right to emit the type."""
        if type == "plugin_error" and isinstance(data, dict):
            data = {"version": self.version_of(str(data.get("plugin"))), **data}
        return self._intake.build(type, data, context, source, subject, key, idempotency_key, event_id)

    # -- durable subscriptions ---------------------------------------------------------------------------------------

    @property
    def delivery(self) -> DeliveryContext | None:
        """The delivery that the calling handler serves: attempt, replay, `in_progress()`; None outside of one.

        For handlers of durable subscriptions, and for any handler during a replay.
        """
        return current_delivery(self)

    def staging(self) -> Staging | None:
        """Where changes made now have to go so that they are committed with the delivery's end; None: at once."""
        return current_staging(self)

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
        """Deliver the past once more to one subscription, live or durable, and return when that is done.

        The job has a cursor of its own: the subscription's stays where it is, and new events go on being delivered
        beside it. The handler sees `core.bus.delivery.replay`. What it emits is committed if it ends well; one that
        fails is counted, not retried. Cancelling ends the job after the event at hand was dropped.

        Args:
            name: of a subscription of this engine.
            since, until: half-open interval of event time: a datetime, seconds since the epoch, or a timedelta back
                from now; None: from the first event, up to the last one recorded before this call.
            speed: `instant` one after the other, or `original` with the pauses that lay between them.
            dry_run: only count.
            job: a name under which the job's place is stored. Replayed under the same name again, after a stop or a
                kill, it goes on behind the event at which it was; when it has come to its end the name is free. What a
                handler stages is committed with the place; an event without that may be delivered twice.

        Raises:
            NotFound: this engine has no such subscription.
            InvalidInput: the speed is neither, or the job's name is none.
            Conflict: another engine is at the job of that name.
        """
        self.check_open()
        subscription = self._subscription(name)
        place = Unnamed(self.commit) if job is None else Named(self.durables, self.commit, subscription.tenant, job)
        replay = Replay(
            self.durables,
            self,
            subscription,
            place,
            since=since,
            until=until,
            speed=speed,
            dry_run=dry_run,
        )
        return await replay.run()

    def check(self, event: Event) -> None:
        """Refuse an event of a handler, step or plugin that would close a loop or comes too fast, and record that.

        `emit` and its like do so by themselves; this is for those who build an event and commit it later.

        Raises:
            LoopDetected: too many hops, or the same subscriber too often in the chain of causes.
            RateLimited: a plugin emits too fast.
        """
        self._guard.check(event)

    # -- committing --------------------------------------------------------------------------------------------------

    async def commit(self, batch: Batch, guards: Sequence[Guard] = ()) -> int:
        """Commit `batch` together with what contributors add to it. Returns the first position.

        Raises:
            Conflict: a guard does not hold; nothing is stored.
            StoreError: the store cannot write; nothing is stored.
        """
        return await self._intake.commit(batch, guards)

    async def take_in(self, event: Event) -> Receipt:
        """Commit an event that was made with `build`, as `emit` does: loops refused, buffers respected."""
        self.check(event)
        return (await self._take_in([event]))[0]

    def _on_commit(self, entries: Sequence[LogEntry]) -> None:
        self._faults.reach("emit.after_commit")
        self.durables.told(entries)
        for entry in entries:
            self._dispatch.hand_out(entry)
