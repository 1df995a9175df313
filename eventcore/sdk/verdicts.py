"""What a hook handler may answer, beside None and (in the reply stage) a plain value."""

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


Verdict: TypeAlias = Deny | Replace | Stop
