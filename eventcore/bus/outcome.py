"""What an emit returns, and what became of a delivery."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from eventcore.kernel.event import Event

Status = Literal["ok", "error", "timeout", "skipped", "cancelled", "interrupted"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The event is committed (for a transient type: handed out).

    Attributes:
        id: the event's id.
        position: its place in the history; 0 for a transient event; None for one that is staged: it is committed
            with the end of the durable delivery or the step that emitted it, and dropped if that fails.
        duplicate: True where the idempotency key was known, and this is the receipt of the first emit.
    """

    id: str
    position: int | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event at one subscription.

    Attributes:
        subscription: its name.
        status: how it ended.
        seconds: how long the handler took.
        value: what the handler returned, if it ended well.
        error: what went wrong, or why it was skipped.
    """

    subscription: str
    status: Status
    seconds: float = 0.0
    value: Any = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the handler ended well."""
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Report:
    """One `Outcome` for each subscription that the event was for, in the order of delivery."""

    event: Event
    outcomes: list[Outcome] = field(default_factory=list)

    def __iter__(self) -> Any:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)
