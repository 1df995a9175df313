"""What handlers may answer: of hooks, beside None and (in the reply stage) a plain value; and of durable events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Deny:
    """A gate's no. Nothing after the gates sees the payload.

    Attributes:
        reason: why, in words that the caller may read.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Replace:
    """A filter's answer: go on with this payload instead.

    Attributes:
        value: the new payload, JSON.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class Stop:
    """A reply's answer that ends the stage: no later handler is asked.

    Attributes:
        value: the reply, JSON.
    """

    value: Any


class Nak(Exception):
    """Raised or returned by a handler of durable events: not done, deliver it again.

    It counts as a failed attempt, and what the handler emitted is dropped.

    Args:
        delay: seconds until then, at most 30 days; None: what the subscription's backoff says.
    """

    def __init__(self, delay: float | None = None) -> None:
        super().__init__("not acknowledged")
        self.delay = delay


class Term(Exception):
    """Raised or returned by a handler of durable events: never deliver it again, put it into the dead letters.

    Args:
        reason: why, for the dead letter.
    """

    def __init__(self, reason: str = "the handler gave up") -> None:
        super().__init__(reason)
        self.reason = reason


Verdict: TypeAlias = Deny | Replace | Stop
