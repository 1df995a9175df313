"""Errors that come over the control socket: of the class that was raised, with all that it said."""

from __future__ import annotations

import json

import pytest

from eventcore.home.remote_errors import remote_error
from eventcore.kernel import errors
from eventcore.kernel.errors import (
    AccessDenied,
    Conflict,
    EventCoreError,
    InvalidManifest,
    PluginFailed,
    PluginTimeout,
    Problem,
    RemoteError,
    UnknownIntent,
)

OWN = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EventCoreError)]


def sent(error: EventCoreError) -> RemoteError:
    return remote_error(json.loads(json.dumps(error.as_dict())))


@pytest.mark.parametrize("kind", OWN)
def test_each_class_comes_through(kind: type[EventCoreError]) -> None:
    made = kind([Problem("a", 1, "k", "bad")]) if issubclass(kind, errors.InvalidFile) else kind("oh")  # type: ignore[arg-type]
    error = sent(made)
    assert isinstance(error, kind)
    assert isinstance(error, RemoteError)
    assert (error.code, error.message) == (kind.code, made.message)


def test_hint_details_kind_and_problems_come_through() -> None:
    failed = sent(PluginTimeout("too slow", kind="CpuLimit", hint="raise it", limit="cpu"))
    assert isinstance(failed, PluginFailed)
    assert (failed.kind, failed.hint, failed.details, failed.trace) == ("CpuLimit", "raise it", {"limit": "cpu"}, None)
    problem = Problem("plugin.toml", 3, "name", "is missing", warning=True)
    refused = sent(InvalidManifest([problem]))
    assert isinstance(refused, InvalidManifest)
    assert [row.as_dict() for row in refused.problems] == [problem.as_dict()]
    conflict = sent(Conflict("no", guard=object()))
    assert isinstance(conflict, Conflict)
    assert conflict.guard is None
    assert not isinstance(sent(UnknownIntent("x")), AccessDenied)


@pytest.mark.parametrize("body", [{}, {"code": "internal_error", "message": "ZeroDivisionError: oh", "more": 1}])
def test_what_is_none_of_ours_is_a_plain_remote_error(body: dict[str, object]) -> None:
    error = remote_error(body)
    assert type(error) is RemoteError
    assert error.code == body.get("code", "remote_error")
    assert error.details == ({"more": 1} if body else {})
