"""`ProcessWorker`: the host's view of one warm worker process. What the process sends is treated as hostile."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from eventcore.kernel.errors import Interrupted, PluginFailed, PluginTimeout
from eventcore.kernel.json import encode
from eventcore.kernel.ports import HostApi
from eventcore.plugins.sandbox.channel import Channel
from eventcore.plugins.sandbox.frames import MAX_FRAME, FrameError, check_from_worker
from eventcore.plugins.sandbox.inflight import InFlight, Watchdog
from eventcore.plugins.sandbox.launch import Broken, Launcher, Process, host_paths, spawn
from eventcore.plugins.sandbox.parsing import parse
from eventcore.plugins.sandbox.planning import watched
from eventcore.plugins.sandbox.reports import clean, describe_exit, failure, printed
from eventcore.plugins.sandbox.requests import Requests, Turn
from eventcore.plugins.sandbox.spec import WorkerSpec

_log = logging.getLogger(__name__)
#: Between the end of the channel and the end of the process; a process that goes on longer is killed. Seconds.
_EOF_GRACE = 1.0
#: What is kept of the process's raw output, for the message about a crash. Bytes.
_RAW_KEPT = 16 * 1024
#: How long to wait for a killed process to be gone. Seconds.
_DEATH = 5.0
#: Between two reads of raw output, so that a byte at a time is no way to keep the host busy. Seconds.
_BREATH = 0.002


class ProcessWorker:
    """A plugin's code in a process of its own. Implements `eventcore.kernel.ports.Worker`.

    Plain functions of the plugin run one at a time: the host holds a call back until the one before is answered, and
    its time starts then, so a call is never killed for having waited. Async functions run side by side.

    Use `start`, then `load`, then `call`. Works on asyncio and trio; belongs to the loop that started it.
    """

    def __init__(self, spec: WorkerSpec, process: Process) -> None:
        self.spec = spec
        self.registered: dict[str, Any] = {}
        #: Whether it was killed for breaking the channel's rules.
        self.violated = False
        self._process = process
        self._channel = Channel(process.sock, self._on_frame, self._violation)
        self._calls: dict[int, InFlight] = {}
        self._watchdog = Watchdog(self._calls.values, self._run_over)
        self._number = 0
        self._waiting = 0
        self._requests = Requests(spec.slug, spec.limits.requests_per_second)
        self._incoming: deque[tuple[InFlight, dict[str, Any], int]] = deque()
        self._arrived = anyio.Event()
        self._turn = anyio.Semaphore(1, fast_acquire=True)
        self._sync: frozenset[str] = frozenset()
        self._raw = b""
        self._raw_total = 0
        #: Why it ended, or is being ended; set before anything else then.
        self._cause: Callable[[], PluginFailed] | None = None
        self._idle: anyio.Event | None = None
        self._closing = False
        self._host: HostApi | None = None
        self._ended = anyio.Event()
        self._tasks: TaskGroup

    @classmethod
    async def start(cls, spec: WorkerSpec, tasks: TaskGroup, *, launcher: Launcher = spawn) -> ProcessWorker:
        """Start the process; it is watched by a task in `tasks`, and killed when that is cancelled.

        Raises:
            SandboxUnavailable: this machine cannot run it.
        """
        worker = cls(spec, await launcher(spec))
        try:
            await tasks.start(worker._serve)
        finally:
            if not hasattr(worker, "_tasks"):  # cancelled before its task took its first step
                with anyio.CancelScope(shield=True):
                    await worker._bury(None)
        return worker

    @property
    def alive(self) -> bool:
        """Whether it can still be called."""
        return self._cause is None and not self._closing

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def load(self, host: HostApi | None = None) -> dict[str, Any]:
        """Import the plugin, call its `initialize`, and return what it registers.

        Raises:
            PluginFailed: the code cannot be loaded; `kind` is the exception's name, `InitializeFailed` or `NoSuch...`.
        """
        spec, self._host = self.spec, host
        params = {
            "dir": str(spec.dir.absolute()),
            "module": spec.module,
            "class_name": spec.class_name,
            "entry_point": spec.entry_point,
            "config": dict(spec.config),
            "slug": spec.slug,
            "hooks": sorted(spec.hooks),
            "paths": list(host_paths() if spec.paths is None else spec.paths),
            **self._process.inside,
            "watch": watched(spec) if getattr(self._process, "confined", False) else None,
        }
        answer = await self.call("load", params, timeout=spec.limits.load, host=host)
        registered = answer["result"]
        if not isinstance(registered, dict) or not isinstance(registered.get("sync"), list):
            self._violation("its answer to load is not what a worker answers")
            raise PluginFailed(f"{spec.slug} answered load with something else", kind="ProtocolViolation")
        self.registered = registered
        self._sync = frozenset(name for name in registered["sync"] if isinstance(name, str))
        return registered

    async def call(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        timeout: float,
        host: HostApi | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Ask the worker for something and wait; see the port for the contract.

        Args:
            kind: `load`, `run` {params}, `debug` {params, breakpoints, trace}, `hook` {function, args},
                `event` {function, event}, `command` {command, args}, `health` or `cleanup`.
            params: JSON, as that kind needs it.
            timeout: seconds from when the worker gets the call, or from the last `in_progress` that the host answered;
                then the whole process group is killed.
            host: answers what the code asks through `ctx`; without one every request is refused.
            context: what `ctx` shows: `tenant`, `actor`, `permissions`, `config`.

        Raises:
            PluginFailed: the code raised; `kind`, `trace` and `details["transient"]` tell what. Of the kind
                `ProtocolViolation`: it broke the channel's rules, and the worker is dead.
            PluginTimeout: it ran over; the worker is dead.
            Interrupted: the worker died under it. `details["started"]` is False where it had not got the call.
            InvalidPayload: `params` are not JSON, or over 1 MiB.
        """
        self._check_usable()
        if self._waiting + len(self._calls) >= self.spec.limits.calls:
            raise PluginFailed(f"{self.spec.slug} has {self.spec.limits.calls} calls in hand", kind="Overloaded")
        number, body = self._encoded(kind, params, context or {})
        function = self._function(kind, params)
        turn = function in self._sync
        if turn:
            await self._wait_for_turn()
        try:
            if self._channel.full:
                await self._channel.room()
            self._check_usable()
        except BaseException:
            if turn:
                self._turn.release()
            raise
        return await self._exchange(body, InFlight(number, function or kind, host, turn, timeout))

    async def close(self, grace: float = 5.0) -> None:
        """Let running calls finish for at most `grace` seconds, call the plugin's `cleanup`, and end the process."""
        if self.alive:
            self._closing = True
            with anyio.move_on_after(grace):
                await self._finish_up(grace)
            await self._process.stop()
        await self.kill("it was closed")

    async def kill(self, reason: str = "it was killed") -> None:
        """End the process at once; calls in it are `Interrupted`. Returns when it is gone."""
        self._end(partial(Interrupted, f"the worker of {self.spec.slug} ended: {reason}", kind="Interrupted"))
        await self._ended.wait()

    async def ended(self) -> None:
        """Wait until the process is gone, for whatever reason."""
        await self._ended.wait()

    # Calls

    def _encoded(self, kind: str, params: dict[str, Any], context: Mapping[str, Any]) -> tuple[int, bytes]:
        self._number += 1
        about = context if type(context) is dict else dict(context)
        frame = {"id": self._number, "kind": kind, "params": params, "context": about}
        return self._number, encode(frame, limit=MAX_FRAME, what=f"a call of {self.spec.slug}")

    def _function(self, kind: str, params: Mapping[str, Any]) -> str:
        if kind == "run":
            return "execute" if self.spec.class_name else self.spec.entry_point
        if kind in ("hook", "event"):
            return str(params.get("function", ""))
        return {"command": "on_command", "health": "health_check"}.get(kind, kind)

    def _check_usable(self) -> None:
        if self._cause is not None or self._ended.is_set():
            raise self._not_begun("has ended")
        if self._closing:
            raise self._not_begun("is closing")

    def _not_begun(self, why: str) -> Interrupted:
        return Interrupted(f"the worker of {self.spec.slug} {why}", kind="Interrupted", started=False)

    async def _wait_for_turn(self) -> None:
        """Wait for the plain function before this one. Ends when the worker does."""
        try:
            self._turn.acquire_nowait()  # at a fifth of the cost of `acquire`
        except anyio.WouldBlock:
            self._waiting += 1
            try:
                await self._turn.acquire()
            finally:
                self._waiting -= 1

    async def _exchange(self, body: bytes, call: InFlight) -> dict[str, Any]:
        self._calls[call.id] = call
        self._watchdog.watch(call)
        call.unsent = not self._channel.send(body)
        try:
            await call.done.wait()
        except anyio.get_cancelled_exc_class():
            call.host = None  # nobody wants the answer any more, but the code still runs, and its limit still holds
            raise
        if call.failure is not None:
            raise call.failure
        if (broken := await self._process.look_first()) is not None:
            raise self._broke(broken)
        assert call.reply is not None
        return self._outcome(call.reply)

    def _run_over(self, call: InFlight) -> None:
        slug = self.spec.slug
        call.failure = PluginTimeout(
            f"{slug} did not answer {call.label} within {call.timeout:g} s; its worker was killed",
            kind="PluginTimeout",
            limit="time",
        )
        why = f"the worker of {slug} was killed, because {call.label} ran over its time limit beside this call"
        self._end(partial(Interrupted, why, kind="Interrupted"))
        self._tasks.start_soon(self._give_up, call)

    async def _give_up(self, call: InFlight) -> None:
        """Tell who waits, even where the kernel cannot end the process."""
        await anyio.sleep(_DEATH)
        self._settle(call)

    def _outcome(self, reply: dict[str, Any]) -> dict[str, Any]:
        if reply["ok"]:
            return {"result": reply["result"], **printed(reply)}
        raise failure(reply, self.spec)

    def _settle(self, call: InFlight) -> None:
        """The call is over: with its reply, or with the failure that is set."""
        if self._calls.pop(call.id, None) is None:
            return
        if call.turn:
            self._turn.release()
        call.done.ring()
        if self._idle is not None and not self._calls:
            self._idle.set()

    async def _finish_up(self, grace: float) -> None:
        if self._calls:
            self._idle = anyio.Event()
            await self._idle.wait()
        _, body = self._encoded("cleanup", {}, {})
        try:
            await self._exchange(body, InFlight(self._number, "cleanup", self._host, False, grace))
        except PluginFailed as error:
            _log.warning("cleanup of %s failed: %s", self.spec.slug, error)

    # Frames

    def _on_frame(self, body: bytes) -> None:
        if self._cause is not None:
            return  # it is being killed; what it still says does not count
        frame = parse(body)
        if check_from_worker(frame) == "request":
            self._on_request(frame, len(body))
            return
        call = self._calls.get(frame["id"])
        if call is None or call.reply is not None:
            raise FrameError(f"it answered call {frame['id']}, which is not in flight")
        call.reply = frame
        if not call.open:
            self._settle(call)

    def _on_request(self, frame: dict[str, Any], size: int) -> None:
        call = self._calls.get(frame["call"])
        if call is None or call.reply is not None:
            raise FrameError(f"it made a request for call {frame['call']}, which is not in flight")
        self._requests.admit(frame["rid"], size)
        call.open += 1
        self._incoming.append((call, frame, size))
        self._arrived.set()

    async def _dispatch(self) -> None:
        """Start a task for each request. Frames come in outside any task, where none can be started."""
        while True:
            await self._arrived.wait()
            self._arrived = anyio.Event()
            while self._incoming:
                call, frame, size = self._incoming.popleft()
                self._tasks.start_soon(self._answer, call, self._requests.turn(), frame, size)

    async def _answer(self, call: InFlight, turn: Turn, frame: dict[str, Any], size: int) -> None:
        host = call.host
        if host is not None and frame["method"] == "in_progress":
            host = partial(call.renewing, host)
        body = await self._requests.answer(turn, host, frame)
        self._channel.send(body)
        if self._channel.full:
            await self._channel.room()  # who does not read its answers gets no more of them
        self._requests.done(size)
        call.open -= 1
        if call.reply is not None and not call.open:
            self._settle(call)

    # The process

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        code: int | None = None
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._read)
                tasks.start_soon(self._drain)
                tasks.start_soon(self._dispatch)
                tasks.start_soon(self._hold)
                tasks.start_soon(self._watchdog.run)
                task_status.started()
                code = await self._process.wait()
                self._channel.read_rest()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._bury(code)

    async def _hold(self) -> None:
        if broken := await self._process.hold():
            self._broke(broken)

    def _broke(self, broken: Broken) -> PluginFailed:
        text = f"{self.spec.slug} ran into its limit of {broken.limit}: {broken.text}; its worker was killed"
        cause = partial(PluginFailed, text, kind="LimitReached", limit=broken.limit)
        self._end(cause)
        return cause()

    async def _read(self) -> None:
        await self._channel.run()
        await anyio.sleep(_EOF_GRACE)
        if not self._process.over():  # its end closes the channel too, and a busy machine may tell of it later
            self._violation("it closed its channel and went on")

    async def _drain(self) -> None:
        """Read what the process writes past its captured streams, keep the end of it, and stop a flood."""
        while True:
            await anyio.wait_readable(self._process.output)
            try:
                data = os.read(self._process.output, 64 * 1024)
            except BlockingIOError:
                continue
            if not data:
                return
            self._raw = (self._raw + data)[-_RAW_KEPT:]
            self._raw_total += len(data)
            if self._raw_total > self.spec.limits.raw_output:
                self._violation(f"it wrote more than {self.spec.limits.raw_output:,} bytes to its raw output")
                return
            await anyio.sleep(_BREATH)

    def _violation(self, what: str) -> None:
        text = f"{self.spec.slug} broke the rules of its channel: {what}; its worker was killed"
        if self._cause is None:
            self.violated = True
            _log.error("%s", text)
        self._end(partial(PluginFailed, text, kind="ProtocolViolation", limit="channel"))

    def _end(self, cause: Callable[[], PluginFailed]) -> None:
        """Kill the process; the first cause is what the calls in it are told."""
        if self._cause is None:
            self._cause = cause
        self._process.kill()

    async def _bury(self, code: int | None) -> None:
        self._process.kill()
        if code is None:
            with anyio.move_on_after(_DEATH):
                code = await self._process.wait()
        if self._cause is None:
            self._read_last_output()
            text = f"the worker of {self.spec.slug} {describe_exit(code)} with this call in it"
            trace = clean(self._raw.decode("utf-8", "backslashreplace"), _RAW_KEPT) or None
            self._cause = partial(Interrupted, text, kind="Interrupted", trace=trace)
        for call in list(self._calls.values()):
            call.failure = call.failure or (self._not_begun("has ended") if call.unsent else self._cause())
            self._settle(call)
        self._channel.end()
        await self._process.close()
        self._ended.set()

    def _read_last_output(self) -> None:
        try:
            while data := os.read(self._process.output, 64 * 1024):
                self._raw = (self._raw + data)[-_RAW_KEPT:]
        except BlockingIOError:
            pass
