"""What comes of a hook call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from eventcore.hooks.registry import Stage
from eventcore.kernel.event import Event

CallStatus = Literal["ok", "denied", "replaced", "error", "timeout", "skipped"]


@dataclass(slots=True)
class Trace:
    """What one handler did in one call."""

    handler: str
    stage: Stage
    status: CallStatus
    seconds: float
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        body = {"handler": self.handler, "stage": self.stage, "status": self.status, "ms": round(self.seconds * 1e3, 3)}
        return {**body, "error": self.error} if self.error else body


@dataclass(slots=True)
class HookOutcome:
    """What came of a hook call.

    Attributes:
        hook: its name.
        value: the payload as observers saw it; None if the call was denied.
        denied, reason, by: whether, why and by which handler it was denied.
        replies: what reply handlers answered, in order.
        repliers: the handler of each reply.
        event: the recorded event; None if the call was denied, or its hook records none.
        trace: one entry a handler, in the order of the call.
    """

    hook: str
    value: dict[str, Any] | None = None
    denied: bool = False
    reason: str | None = None
    by: str | None = None
    replies: list[Any] = field(default_factory=list)
    repliers: list[str] = field(default_factory=list)
    event: Event | None = None
    trace: list[Trace] = field(default_factory=list)


class Denied(Exception):
    """A call ends here: `handler` said no, or failed where that means no."""

    def __init__(self, handler: str, reason: str) -> None:
        self.handler, self.reason = handler, reason
