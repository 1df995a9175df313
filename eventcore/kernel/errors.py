"""Every error EventCore raises on purpose, as one tree.

::

    EventCoreError
    ├── InvalidInput                what came in is wrong; says what, where and what to do
    │   ├── InvalidName             an event type, pattern or slug that breaks the grammar
    │   ├── InvalidPayload          data that is not JSON, too large, or refused by its model
    │   ├── InvalidDefinition       a workflow definition, with file, line and key
    │   ├── InvalidManifest         a plugin manifest, with file, line and key
    │   ├── InvalidSettings         eventcore.toml, with file, line and key
    │   ├── PackageRefused          a plugin's archive or folder holds something that is not allowed
    │   └── ExpressionError         a template that cannot be evaluated within its bounds
    ├── NotFound                    no such event, run, plugin, workflow or home
    │   ├── UnknownIntent
    │   └── UnknownWorkflow
    ├── AccessDenied                the caller's roles do not suffice
    ├── PermissionDenied            the plugin was not granted what it tried
    ├── Conflict                    a guard of a commit no longer holds; recompute and try again
    ├── IdempotencyConflict         the same key again, with other type or data
    ├── LoopDetected                an emit that would close a causal loop
    ├── BusOverflow                 a full buffer whose policy is to refuse
    ├── HookFailed                  a hook whose error rule is `raise` had a failing handler
    ├── PluginFailed                a plugin raised, timed out, crashed or broke the channel's rules
    │   ├── PluginTimeout
    │   ├── Interrupted             the worker was killed for a neighbour's fault
    │   └── SandboxUnavailable      this machine cannot give the sandbox that was asked for
    ├── RunFailed                   `run.result()` of a run that did not complete
    ├── HomeError                   a home that cannot be opened
    │   └── HomeInUse               another engine owns it
    ├── StoreError                  the store cannot do its work (full, read-only, corrupt, newer schema)
    │   └── StoreClosed
    ├── RemoteError                 a running engine refused what was asked of it through its socket
    ├── EngineClosed                used before `async with` or after it
    └── WrongProcess                used in a forked child, or in another event loop

The message of an error raised without one is the first line of its class's docstring.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EventCoreError(Exception):
    """EventCore could not do what was asked."""

    #: A stable word for programs (JSON output, the control socket, later REST).
    code = "error"

    def __init__(self, message: str | None = None, *, hint: str | None = None, **details: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        self.details: dict[str, Any] = details
        super().__init__(self.message if hint is None else f"{self.message} ({hint})")

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON: `code`, `message`, and `hint` and `details` where there are any."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            body["hint"] = self.hint
        if self.details:
            body["details"] = {key: str(value) if not _plain(value) else value for key, value in self.details.items()}
        return body


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)


class InvalidInput(EventCoreError):
    """The input is not valid."""

    code = "invalid_input"


class InvalidName(InvalidInput):
    """The name does not follow the grammar of names."""

    code = "invalid_name"


class InvalidPayload(InvalidInput):
    """The data is not acceptable as an event's payload."""

    code = "invalid_payload"


class PackageRefused(InvalidInput):
    """A package is not installed: something in it is not allowed."""

    code = "package_refused"


class InvalidFile(InvalidInput):
    """A file has errors; each is `(file, line, key, message)`."""

    code = "invalid_file"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    def as_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "problems": [p.as_dict() for p in self.problems]}


class Problem:
    """One thing wrong in a file: `file:line:column key: message`.

    Args:
        file: the path as the user knows it.
        line: 1-based, or None where the format gives none.
        key: dotted path of the field, or the empty string for the file as a whole.
        message: what is wrong and what to do, without a full stop.
        warning: True where the file is usable all the same.
        column: 1-based, of workflows in YAML; else None.
    """

    __slots__ = ("column", "file", "key", "line", "message", "warning")

    def __init__(
        self,
        file: str,
        line: int | None,
        key: str,
        message: str,
        *,
        warning: bool = False,
        column: int | None = None,
    ) -> None:
        self.file, self.line, self.key, self.message, self.warning = file, line, key, message, warning
        self.column = column

    def __str__(self) -> str:
        place = ":".join(str(one) for one in (self.file, self.line, self.column) if one is not None)
        text = f"{self.key}: {self.message}" if self.key else self.message
        return f"{place} {'warning: ' if self.warning else ''}{text}"

    def __repr__(self) -> str:
        return f"Problem({str(self)!r})"

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "key": self.key,
            "message": self.message,
            "severity": "warning" if self.warning else "error",
        }


class InvalidDefinition(InvalidFile):
    """The workflow definition has errors."""

    code = "invalid_definition"


class InvalidManifest(InvalidFile):
    """The plugin manifest has errors."""

    code = "invalid_manifest"


class InvalidSettings(InvalidFile):
    """The settings have errors."""

    code = "invalid_settings"


class ExpressionError(InvalidInput):
    """The expression cannot be evaluated."""

    code = "expression_error"


class NotFound(EventCoreError):
    """There is no such thing."""

    code = "not_found"


class UnknownIntent(NotFound):
    """No enabled plugin and no in-process function answers this intent."""

    code = "unknown_intent"


class NoResponder(NotFound):
    """Nobody answers the request."""

    code = "no_responder"


class UnknownWorkflow(NotFound):
    """No workflow has this slug."""

    code = "unknown_workflow"


class AccessDenied(EventCoreError):
    """The caller's roles do not allow this call."""

    code = "access_denied"


class PermissionDenied(EventCoreError):
    """The plugin was not granted the permission that this needs."""

    code = "permission_denied"


class Conflict(EventCoreError):
    """A guard of the commit does not hold any more; nothing of the batch was stored."""

    code = "conflict"

    def __init__(self, message: str | None = None, *, guard: object = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.guard = guard


class IdempotencyConflict(EventCoreError):
    """The idempotency key was used before with another type or other data."""

    code = "idempotency_conflict"


class LoopDetected(EventCoreError):
    """The emit would close a causal loop."""

    code = "loop_detected"


class RateLimited(EventCoreError):
    """The plugin emits more events a second than it may."""

    code = "rate_limited"


class BusOverflow(EventCoreError):
    """A subscription's buffer is full and its policy refuses the emit."""

    code = "bus_overflow"


class HookFailed(EventCoreError):
    """A handler of a hook failed, and the hook's rule is to raise."""

    code = "hook_failed"


class PluginFailed(EventCoreError):
    """The plugin failed."""

    code = "plugin_failed"

    def __init__(
        self,
        message: str | None = None,
        *,
        kind: str = "PluginFailed",
        trace: str | None = None,
        output: Mapping[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        #: The name of the exception class that the plugin raised; retry rules match on it.
        self.kind = kind
        #: The plugin's traceback. For the operator only: never shown to a plain `user`.
        self.trace = trace
        #: What the call printed before it failed: `{"stdout": ..., "stderr": ...}`.
        self.output = dict(output or {})

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"kind": self.kind}


class PluginTimeout(PluginFailed):
    """The plugin did not answer within its time limit; its worker was killed."""

    code = "plugin_timeout"


class Interrupted(PluginFailed):
    """The worker ended while this call was in it, through no fault of the call."""

    code = "interrupted"


class SandboxUnavailable(PluginFailed):
    """This machine cannot give the sandbox that the plugin needs."""

    code = "sandbox_unavailable"


class RequestFailed(EventCoreError):
    """What a plugin asked of the world outside could not be done: nobody answered, or too slowly, or too much."""

    code = "request_failed"


class RunFailed(EventCoreError):
    """The run did not complete."""

    code = "run_failed"

    @classmethod
    def of(cls, slug: str, run: str, status: str, error: Mapping[str, Any]) -> RunFailed:
        """How a run ended badly; what could not be undone is named, for somebody has to see to it by hand."""
        message = f"{slug} {status}: {error.get('message', 'no reason given')}"
        if left := error.get("compensation_failed"):
            message += f"; could not be undone: {', '.join(left[:10])}{' and more' if len(left) > 10 else ''}"
        return cls(message, run=run, status=status, step=error.get("step"), error=dict(error))


class HomeError(EventCoreError):
    """The home cannot be opened."""

    code = "home_error"


class HomeInUse(HomeError):
    """Another engine owns this home."""

    code = "home_in_use"


class StoreError(EventCoreError):
    """The store cannot do its work."""

    code = "store_error"


class StoreClosed(StoreError):
    """The store is closed."""

    code = "store_closed"


class RemoteError(EventCoreError):
    """The running engine refused the request."""

    code = "remote_error"


class EngineClosed(EventCoreError):
    """The engine is not open; use it inside `async with`."""

    code = "engine_closed"


class WrongProcess(EventCoreError):
    """An engine belongs to the process and the event loop that opened it."""

    code = "wrong_process"
