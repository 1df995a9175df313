"""What a handler of a durable subscription may say about a delivery, and how such a subscription is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import anyio

from eventcore.kernel.errors import InvalidInput

Deliver = Literal["new", "all", "since"]
Since = float | datetime | timedelta


class Nak(Exception):
    """Raised by a handler: not done, deliver it again.

    It counts as a failed attempt.

    Args:
        delay: seconds until then; None means what the subscription's backoff says.
    """

    def __init__(self, delay: float | None = None) -> None:
        super().__init__("not acknowledged" if delay is None else f"not acknowledged, again in {delay:g} s")
        self.delay = delay


class Term(Exception):
    """Raised by a handler: never deliver it again, put it into the dead letters.

    Args:
        reason: why, for the dead letter.
    """

    def __init__(self, reason: str = "the handler gave up") -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Durable:
    """A subscription whose place is kept in the store, so that it misses nothing while it is away.

    Attributes:
        deliver: where a subscription that has never been there begins: `new` after the events recorded so far, `all` at
            the first one, `since` at the first event of a time. One that has been there goes on where it was.
        since: for `deliver="since"`: a datetime, seconds since the epoch, or a timedelta back from now.
        max_deliver: how many attempts an event gets before it goes into the dead letters.
        backoff: seconds to wait after the first, second, ... failed attempt; the last one holds for all further ones.
        max_ack_pending: how many events may be in hand at once: handled now, waiting for a retry or for their key.
    """

    deliver: Deliver = "new"
    since: Since | None = None
    max_deliver: int = 5
    backoff: tuple[float, ...] = (1, 5, 30, 120)
    max_ack_pending: int = 100

    def __post_init__(self) -> None:
        if self.deliver not in ("new", "all", "since"):
            raise InvalidInput(f"deliver is new, all or since, not {self.deliver!r}")
        if (self.deliver == "since") != (self.since is not None):
            raise InvalidInput('deliver="since" and since=... belong together')
        if not 1 <= self.max_ack_pending <= 10_000 or self.max_deliver < 1:
            raise InvalidInput("max_deliver is at least 1, max_ack_pending is 1 to 10,000")
        if not self.backoff or min(self.backoff) < 0:
            raise InvalidInput("backoff has at least one wait, and none below 0 seconds")


class DeliveryContext:
    """The delivery that the running handler serves: `core.bus.delivery`.

    Attributes:
        subscription: its name.
        attempt: 1 for the first try.
        replay: the event is delivered once more because somebody asked for the past; see `Bus.replay`.
    """

    __slots__ = ("_scope", "_timeout", "attempt", "replay", "subscription")

    def __init__(self, subscription: str, attempt: int, timeout: float, *, replay: bool = False) -> None:
        self.subscription, self.attempt, self.replay = subscription, attempt, replay
        self._timeout = timeout
        self._scope: anyio.CancelScope | None = None

    def limited_by(self, scope: anyio.CancelScope) -> None:
        """The scope that ends the handler when its time is over."""
        self._scope = scope

    def in_progress(self) -> None:
        """The handler is still at it: its `timeout` begins anew."""
        if self._scope is not None:
            self._scope.deadline = anyio.current_time() + self._timeout
