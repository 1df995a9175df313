"""Runs calls: finds the handler, binds `ctx`, catches everything, and answers."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
from collections.abc import Awaitable, Mapping
from typing import Any

from eventcore.plugins.sandbox.frames import MAX_FRAME, NotJSON, encode
from eventcore.plugins.sandbox.worker.about import About
from eventcore.plugins.sandbox.worker.channel import Future, HostChannel
from eventcore.plugins.sandbox.worker.failures import MAX_MESSAGE, kind_of, message_of, trace_of
from eventcore.plugins.sandbox.worker.loader import LoadError, Plugin, load
from eventcore.plugins.sandbox.worker.output import Capture, printable
from eventcore.plugins.sandbox.worker.watch import LOGGER, Watch
from eventcore.plugins.sandbox.worker.watched import debug
from eventcore.sdk import Answer, Deny, Event, Nak, PluginError, Replace, Stop, Term, TransientError, bound
from eventcore.sdk.binding import bind_for_good

#: What most plain functions return: nothing that could be awaited.
_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})


class Call(About):
    """One call from the host: what `ctx` speaks for, and where its output goes."""

    # fmt: off
    __slots__ = (
        "_channel", "_stderr", "_stdout", "blocking", "id", "kind", "over", "params", "waiting",
    )
    # fmt: on

    def __init__(self, channel: HostChannel, frame: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        super().__init__(frame["context"], config)
        self.id: int = frame["id"]
        self.kind: str = frame["kind"]
        self.params: dict[str, Any] = frame["params"]
        self.blocking = True
        self.over = False
        self.waiting: set[Future] = set()
        self._stdout: Capture | None = None
        self._stderr: Capture | None = None
        self._channel = channel

    @property
    def stdout(self) -> Capture:
        self._stdout = self._stdout or Capture()
        return self._stdout

    @property
    def stderr(self) -> Capture:
        self._stderr = self._stderr or Capture()
        return self._stderr

    def printed(self) -> tuple[str, str]:
        """What was written to stdout and to stderr."""
        return self._stdout.text() if self._stdout else "", self._stderr.text() if self._stderr else ""

    def ask(self, method: str, params: dict[str, Any]) -> Answer[Any]:
        if self.over:
            raise PluginError("the call is over: its handler has returned, so ctx cannot act for it any more")
        return self._channel.ask(self, method, params)

    def tell(self, level: str, message: str, logger: str = "") -> None:
        if not self.over:
            line = printable(str(message)[: 4 * MAX_MESSAGE])
            self._channel.tell(self.id, {"level": str(level).lower(), "message": line, "logger": logger})


class Runtime:
    """The worker's state: one plugin, and the calls in it."""

    def __init__(self, channel: HostChannel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._plugin: Plugin | None = None
        self._all_plain = False
        self._config: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: Watch | None = None

    def handle(self, frame: dict[str, Any]) -> bool:
        """Take a call: answer it, or start the task of an async handler. Returns whether code of the plugin has run."""
        if frame["kind"] == "load":
            self._config = frame["params"]["config"]
        if self._watch is not None:
            self._watch.begin()
        call = Call(self._channel, frame, self._config)
        # Each call has a context of its own, copied from an empty one: what a handler sets, no other call sees.
        return contextvars.copy_context().run(self._begin, call)

    def plain(self) -> bool:
        """Whether nothing needs the loop: the plugin has plain functions alone, and neither tasks nor threads; nor has
        it left anything in the loop, as a module may that is imported, which is due now or later."""
        if not self._all_plain or self._tasks or threading.active_count() != 1:
            return False
        # The loop has no public way to ask; one of another kind is taken for empty.
        return not (getattr(self._loop, "_ready", ()) or getattr(self._loop, "_scheduled", ()))

    def _begin(self, call: Call) -> bool:
        bind_for_good(call)
        try:
            pending = self._start(call)
            waits = type(pending) not in _PLAIN and inspect.isawaitable(pending)
        except BaseException as error:  # noqa: BLE001 - SystemExit in a handler must not end the worker
            self._fail(call, error)
            return True
        if not waits:
            self._succeed(call, pending)
            return True
        call.blocking = False
        task = self._loop.create_task(self._finish(call, pending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return False

    def _start(self, call: Call) -> Any:
        """The result of a plain function, or the awaitable of an async one."""
        if call.kind == "load":
            return self._load(call)
        if self._plugin is None:
            raise LoadError("NotLoaded", "the worker has not loaded its plugin")
        if call.kind == "debug":
            return debug(self._plugin, call.params, self._outside_loop)
        if call.kind == "event":
            call.params["event"] = Event(call.params["event"])
        found = self._plugin.handler(call.kind, call.params)
        if found is None:
            return {"status": "healthy"} if call.kind == "health" else None
        handler, args = found
        if not handler.blocking:
            return handler(args)
        return self._outside_loop(handler, args)

    def _outside_loop(self, handler: Any, args: list[Any]) -> Any:
        """Run a plain function. The loop is put out of its sight, so that it may call `asyncio.run` as ever."""
        asyncio._set_running_loop(None)
        try:
            return handler(args)
        finally:
            asyncio._set_running_loop(self._loop)

    def _load(self, call: Call) -> Any:
        if (rules := call.params.get("watch")) is not None:
            self._watch = Watch(rules, _denied)
            sys.addaudithook(self._watch)
        plugin = load(call.params)
        initialize = plugin.handler("initialize", {})
        if initialize is None:
            return self._ready(plugin, True)
        handler, args = initialize
        ready = self._outside_loop(handler, args) if handler.blocking else handler(args)
        return self._ready_later(plugin, ready) if inspect.isawaitable(ready) else self._ready(plugin, ready)

    async def _ready_later(self, plugin: Plugin, ready: Awaitable[Any]) -> dict[str, Any]:
        return self._ready(plugin, await ready)

    def _ready(self, plugin: Plugin, ready: Any) -> dict[str, Any]:
        if ready is False:
            raise LoadError("InitializeFailed", "initialize returned False")
        self._plugin = plugin
        self._all_plain = plugin.plain and not asyncio.all_tasks(self._loop)
        return plugin.describe()

    async def _finish(self, call: Call, pending: Any) -> None:
        try:
            result = await pending
            if call.waiting:
                await asyncio.wait(call.waiting)  # what was asked without await is part of the call all the same
        except BaseException as error:  # noqa: BLE001 - as in _begin
            self._fail(call, error)
        else:
            self._succeed(call, result)

    def _succeed(self, call: Call, result: Any) -> None:
        value = verdict_of(result) if call.kind in ("hook", "event") else result
        call.over = True
        try:
            out, err = call.printed()
            body = b'{"id":%d,"ok":true,"result":%s,"stdout":%s,"stderr":%s}' % (
                call.id,
                encode(value),
                encode(out) if out else b'""',
                encode(err) if err else b'""',
            )
        except NotJSON as error:
            self._fail(call, LoadError("ResultNotJSON", f"the result is not JSON: {error}"))
            return
        except Exception as error:  # noqa: BLE001 - a dict subclass of the plugin may do anything when it is read
            self._fail(call, error)
            return
        if len(body) > MAX_FRAME:
            text = f"the answer is {len(body):,} bytes; the limit is {MAX_FRAME:,}"
            self._fail(call, LoadError("ResultTooLarge", text))
            return
        self._channel.reply(body)

    def _fail(self, call: Call, error: BaseException) -> None:
        if call.kind == "event" and isinstance(error, Nak | Term):
            self._succeed(call, error)
            return
        call.over = True
        stdout, stderr = call.printed()
        body = {
            "id": call.id,
            "ok": False,
            "error": {
                "kind": kind_of(error),
                "message": message_of(error),
                "trace": "" if isinstance(error, LoadError) else trace_of(error),
                "transient": isinstance(error, TransientError),
            },
            "stdout": stdout,
            "stderr": stderr,
        }
        self._channel.reply(encode(body))


def _denied(permission: str, what: str) -> None:
    if (call := bound()) is not None:
        call.tell("warning", f"{permission} {what}", LOGGER)


def verdict_of(result: Any) -> dict[str, Any]:
    match result:
        case Deny(reason):
            return {"verdict": "deny", "reason": str(reason)}
        case Replace(value):
            return {"verdict": "replace", "value": value}
        case Stop(value):
            return {"verdict": "stop", "value": value}
        case Nak(delay=delay):
            return {"verdict": "nak", "delay": delay}
        case Term(reason=reason):
            return {"verdict": "term", "reason": str(reason)}
        case _:
            return {"value": result}
