"""Keeps one warm worker for each tenant and plugin, and starts it again when it dies."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup

from eventcore.kernel.clock import SystemClock
from eventcore.kernel.context import DEFAULT_TENANT
from eventcore.kernel.errors import EngineClosed, EventCoreError, Interrupted, PluginFailed, SandboxUnavailable
from eventcore.kernel.ports import Clock, HostApi
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.cpu_budget import within
from eventcore.plugins.sandbox.inline import InlineWorker
from eventcore.plugins.sandbox.launch import Launcher, spawn
from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import WorkerSpec
from eventcore.plugins.sandbox.tiers import Tiers

_log = logging.getLogger(__name__)

AnyWorker: TypeAlias = ProcessWorker | InlineWorker

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
#: How often a call that its worker had not begun is handed to the next worker.
_HAND_OVERS = 3
#: So often a plugin may break the rules of its channel.
_STRIKES = 3
#: What the reason of a plugin's state says when it has.
QUARANTINE = "is in quarantine"
#: Workers for one call each that run at the same time.
_FRESH = 16


class _Start:
    """A start under way, shared by all who wait for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: EventCoreError | None = None


class _Slot:
    """One tenant's plugin."""

    def __init__(self, spec: WorkerSpec, strikes: int) -> None:
        self.spec = spec
        self.worker: AnyWorker | None = None
        self.starting: _Start | None = None
        self.failures = 0
        self.strikes = strikes
        self.not_before = 0.0
        self.retired = False


class Supervisor:
    """Warm workers, one for each (tenant, plugin slug), started at the first call.

    A worker that dies without having been told to is a failure, and so is one that cannot load its plugin. After n
    failures in a row the next start waits 0.1 s * 2^(n-1), at most 30 s; after `max_failures` there is none until
    `stop` or a changed spec. An answered call ends the row. Three workers that broke the rules of their channel, at any
    time, put the plugin into quarantine, which only `stop` or a changed spec ends; and neither of them where somebody
    keeps the strikes (`strikes_of`).

    Args:
        clock: measures the delays.
        launcher: starts the processes.
        max_failures: how many in a row turn the plugin degraded.
    """

    def __init__(self, *, clock: Clock | None = None, launcher: Launcher = spawn, max_failures: int = 10) -> None:
        self._clock: Clock = clock or SystemClock()
        self._launcher = launcher
        self._max_failures = max_failures
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._tasks: TaskGroup | None = None
        #: Answers what a plugin asks while it is loaded, begins and ends: outside of any call.
        self.host_of: Callable[[WorkerSpec], HostApi | None] = lambda spec: None
        #: How many strikes of a plugin are known from before, and who is told of each one more.
        self.strikes_of: Callable[[WorkerSpec], int] = lambda spec: 0
        self.struck: Callable[[WorkerSpec, int], Coroutine[Any, Any, None]] | None = None
        #: Told once when a plugin comes into quarantine, with a sentence.
        self.quarantined: Callable[[WorkerSpec, str], Coroutine[Any, Any, None]] | None = None
        self._fresh = anyio.CapacityLimiter(_FRESH)

    async def machine(self) -> Machine | None:
        """What this machine's sandbox enforces; None where workers run without."""
        return await self._launcher.machine() if isinstance(self._launcher, Sandbox | Tiers) else None

    async def start(self, stack: AsyncExitStack) -> None:
        """Be ready; `stack`, which the caller owns, closes it and every worker."""
        self._tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.push_async_callback(self.close)

    async def call(
        self,
        spec: WorkerSpec,
        kind: str,
        params: dict[str, Any],
        *,
        timeout: float,
        host: HostApi | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call the plugin, starting its worker where none is warm; arguments and errors as for `ProcessWorker.call`.

        A call that its worker had not begun when it died goes to the next one; a call that had begun is Interrupted.

        Raises:
            PluginFailed: of the kind `Degraded`: it failed too often in a row; of the kind `Restarting`: the delay
                before the next start is longer than `timeout`; of the kind `Quarantined`: it broke the rules of its
                channel three times.
        """
        if spec.allow.isolation == "call":
            async with self._fresh_worker(spec, timeout) as worker:
                return await self._asked(worker, worker.call(kind, params, timeout=timeout, host=host, context=context))
        for last in range(_HAND_OVERS, -1, -1):
            slot = self._slot(spec)
            if slot.worker is not None and slot.worker.alive:
                worker = slot.worker
            else:
                slot, worker = await self._warm(spec, timeout)
            try:
                answer = await self._asked(
                    worker, worker.call(kind, params, timeout=timeout, host=host, context=context)
                )
            except Interrupted as error:
                if error.details.get("started", True) or not last:
                    raise
            except PluginFailed:
                if worker.alive:
                    slot.failures = 0  # its code raised, as code may; the worker is well
                raise
            else:
                slot.failures = 0
                return answer
        raise AssertionError("unreachable: the last turn of the loop returns or raises")

    async def aside(
        self,
        spec: WorkerSpec,
        kind: str,
        params: dict[str, Any],
        *,
        timeout: float,
        host: HostApi | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """As `call`, but in a fresh worker that serves nothing else; a warm one goes on undisturbed."""
        async with self._fresh_worker(spec, timeout) as worker:
            return await worker.call(kind, params, timeout=timeout, host=host, context=context)

    def _asked(
        self, worker: ProcessWorker | InlineWorker, call: Coroutine[Any, Any, dict[str, Any]]
    ) -> Awaitable[dict[str, Any]]:
        """The call, within its CPU seconds where there is such a limit; the host's own process has none."""
        if isinstance(worker, InlineWorker) or not (limit := worker.spec.limits.cpu):
            return call
        return within(limit, worker, call, self._clock)

    async def registered(self, spec: WorkerSpec, *, timeout: float = 30) -> dict[str, Any]:
        """What the plugin registered when it was loaded; starts the worker where none is warm."""
        if spec.allow.isolation == "call":
            async with self._fresh_worker(spec, timeout) as worker:
                return worker.registered
        _, worker = await self._warm(spec, timeout)
        return worker.registered

    def alive(self, slug: str, tenant: str = DEFAULT_TENANT) -> bool:
        """Whether a worker is warm."""
        slot = self._slots.get((tenant, slug))
        return slot is not None and slot.worker is not None and slot.worker.alive

    async def stop(self, slug: str, *, tenant: str = DEFAULT_TENANT, grace: float = 5.0) -> None:
        """Close the plugin's worker, if there is one, and forget its failures."""
        slot = self._slots.pop((tenant, slug), None)
        if slot is not None:
            await self._retire(slot, grace)

    async def close(self, grace: float = 5.0) -> None:
        """Close every worker, all at once, within `grace` seconds."""
        tasks, self._tasks = self._tasks, None
        slots = list(self._slots.values())
        self._slots.clear()
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as closing:
                for slot in slots:
                    closing.start_soon(self._retire, slot, grace)
        if tasks is not None:
            tasks.cancel_scope.cancel()

    # Starting

    @asynccontextmanager
    async def _fresh_worker(self, spec: WorkerSpec, timeout: float) -> AsyncIterator[AnyWorker]:
        """A worker of one call's own."""
        slot = self._slot(spec)
        self._check_health(slot, timeout)
        if self._tasks is None:
            raise EngineClosed("the supervisor of the plugins is not running")
        async with self._fresh:
            worker = await _started(spec, self._tasks, self._launcher)
            try:
                await worker.load(self.host_of(slot.spec))
                yield worker
                await worker.close()
            finally:
                with anyio.CancelScope(shield=True):
                    await worker.kill("its call is over")
                self._judge(slot, worker)

    async def _warm(self, spec: WorkerSpec, timeout: float) -> tuple[_Slot, AnyWorker]:
        while True:
            slot = self._slot(spec)
            worker = slot.worker
            if worker is not None and worker.alive:
                return slot, worker
            if worker is not None:
                await worker.ended()
                self._note_death(slot, worker)
                continue
            starting = slot.starting or self._begin_start(slot, timeout)
            await starting.done.wait()
            if starting.error is not None:
                # A copy, because several callers may raise it, and each adds a traceback of its own.
                raise copy.copy(starting.error)

    def _slot(self, spec: WorkerSpec) -> _Slot:
        if self._tasks is None:
            raise EngineClosed("the supervisor of the plugins is not running")
        key = (spec.tenant, spec.slug)
        slot = self._slots.get(key)
        if slot is None or (slot.spec is not spec and slot.spec != spec):
            if slot is not None:
                self._tasks.start_soon(self._retire, slot, 5.0)
            slot = self._slots[key] = _Slot(spec, self.strikes_of(spec))
        return slot

    def _begin_start(self, slot: _Slot, timeout: float) -> _Start:
        delay = self._check_health(slot, timeout)
        if self._tasks is None:
            raise EngineClosed("the supervisor of the plugins is not running")
        slot.starting = _Start()
        # In a task of its own: the callers share it, and one who is cancelled must not take it from the others.
        self._tasks.start_soon(self._start, self._tasks, slot, slot.starting, delay)
        return slot.starting

    def _check_health(self, slot: _Slot, timeout: float) -> float:
        """Seconds to wait before the next start, at most `timeout`."""
        slug = slot.spec.slug
        if slot.strikes >= _STRIKES:
            raise PluginFailed(_quarantine(slot), kind="Quarantined", limit="channel")
        if slot.failures >= self._max_failures:
            raise PluginFailed(f"{slug} is degraded: its worker failed {slot.failures} times in a row", kind="Degraded")
        delay = slot.not_before - self._clock.monotonic()
        if delay > timeout:
            raise PluginFailed(f"{slug} is restarted in {delay:.1f} s, after a failure", kind="Restarting")
        return delay

    async def _start(self, tasks: TaskGroup, slot: _Slot, starting: _Start, delay: float) -> None:
        starting.error = EngineClosed(f"the start of {slot.spec.slug} was given up: the engine is closing")
        try:
            if delay > 0:
                await self._clock.sleep(delay)
            worker = await _started(slot.spec, tasks, self._launcher)
            try:
                await worker.load(self.host_of(slot.spec))
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await worker.kill("it could not load its plugin")
                self._judge(slot, worker)
                raise
            if slot.retired:
                await worker.close()
                return
            slot.worker, starting.error = worker, None
            tasks.start_soon(self._watch, slot, worker)
        except EventCoreError as error:
            starting.error = error
            self._failed(slot, told=isinstance(error, SandboxUnavailable))
        finally:
            slot.starting = None
            starting.done.set()

    async def _watch(self, slot: _Slot, worker: AnyWorker) -> None:
        await worker.ended()
        self._note_death(slot, worker)

    def _note_death(self, slot: _Slot, worker: AnyWorker) -> None:
        """Count a death once, whoever sees it first."""
        if slot.worker is worker:
            slot.worker = None
            self._judge(slot, worker)
            self._failed(slot)

    def _judge(self, slot: _Slot, worker: AnyWorker) -> None:
        """Count whether it broke the rules of its channel."""
        if not worker.violated or self._tasks is None:
            return
        slot.strikes += 1
        if self.struck is not None:
            self._tasks.start_soon(self.struck, slot.spec, slot.strikes)
        if slot.strikes == _STRIKES and self.quarantined is not None:
            self._tasks.start_soon(self.quarantined, slot.spec, _quarantine(slot))

    def _failed(self, slot: _Slot, *, told: bool = False) -> None:
        slot.failures += 1
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (slot.failures - 1))
        slot.not_before = self._clock.monotonic() + delay
        if not told:  # the machine's lack is no fault of the plugin; the caller is told of it
            _log.warning("the worker of %s failed, %d in a row", slot.spec.slug, slot.failures)

    async def _retire(self, slot: _Slot, grace: float) -> None:
        slot.retired = True
        if slot.starting is not None:
            with anyio.move_on_after(grace):
                await slot.starting.done.wait()
        worker, slot.worker = slot.worker, None
        if worker is not None:
            await worker.close(grace)


def _quarantine(slot: _Slot) -> str:
    return f"{slot.spec.slug} {QUARANTINE}: {slot.strikes} of its workers broke the rules of their channel"


async def _started(spec: WorkerSpec, tasks: TaskGroup, launcher: Launcher) -> AnyWorker:
    """A worker of the tier that the spec asks for, not loaded yet."""
    if spec.inline:
        return InlineWorker(spec, tasks)
    return await ProcessWorker.start(spec, tasks, launcher=launcher)
