"""Errors of an engine in another process: of the class that was raised there, and a `RemoteError` too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from eventcore.kernel.errors import Conflict, EventCoreError, InvalidFile, PluginFailed, Problem, RemoteError

_OWN = frozenset({"code", "message", "hint", "details", "kind", "problems"})


def remote_error(body: Mapping[str, Any]) -> RemoteError:
    """The error that an error's JSON speaks of: `except NotFound` catches it wherever the engine runs.

    Its `code`, `message`, `hint`, `details` and, for files, `problems` are those of the JSON; further keys are added to
    the details. One whose code is none of ours is a plain `RemoteError` with that code.
    """
    message, hint = body.get("message"), body.get("hint")
    details = dict(body.get("details") or {}) | {key: body[key] for key in body.keys() - _OWN}
    kind = _kinds().get(str(body.get("code")), RemoteError)
    error = kind.__new__(kind)
    EventCoreError.__init__(error, str(message) if message else None, hint=str(hint) if hint else None, **details)
    error.code = str(body.get("code") or RemoteError.code)
    if isinstance(error, PluginFailed):
        error.kind, error.trace, error.output = str(body.get("kind") or "PluginFailed"), None, {}
    if isinstance(error, Conflict):
        error.guard = None
    if isinstance(error, InvalidFile):
        error.problems = [_problem(row) for row in body.get("problems") or ()]
    return error


@cache
def _kinds() -> dict[str, type[RemoteError]]:
    """By code, a class that is both the error's own and `RemoteError`."""
    found: dict[str, type[RemoteError]] = {}
    todo: list[type[EventCoreError]] = [EventCoreError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__ == EventCoreError.__module__ and not issubclass(RemoteError, kind):
            found[kind.code] = type(kind.__name__, (RemoteError, kind), {"__doc__": kind.__doc__, "code": kind.code})
    return found


def _problem(row: Mapping[str, Any]) -> Problem:
    return Problem(
        str(row.get("file")),
        row.get("line"),
        str(row.get("key") or ""),
        str(row.get("message")),
        warning=row.get("severity") == "warning",
    )
