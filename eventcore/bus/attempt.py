"""One call of a handler for one event, with what it did kept aside: in durable deliveries and in replays."""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import Any, NamedTuple

import anyio

from eventcore.bus.acks import DeliveryContext, Nak, Term
from eventcore.bus.calling import describe
from eventcore.bus.host import Host
from eventcore.bus.ledger import Ack, Ended, Failed, Verdict
from eventcore.bus.outcome import Outcome, Status
from eventcore.bus.staging import Delivering, Staging
from eventcore.bus.subscription import Subscription
from eventcore.kernel.errors import EngineClosed, Interrupted, LoopDetected
from eventcore.kernel.event import Event
from eventcore.kernel.quick import maker

log = logging.getLogger("eventcore.bus")


#: What most handlers say.
ACK = Ack()

_outcome = maker(Outcome)


class Attempt(NamedTuple):
    """What the handler made of the event; the verdict is None if it was interrupted."""

    verdict: Verdict | None
    outcome: Outcome


#: How often a delivery may be interrupted before that counts as a failed attempt. It may be its own doing: a plugin
#: whose worker dies of an event.
MAX_INTERRUPTIONS = 3


class Interruptions:
    """Counts them by position, so that a handler that ends its own worker each time does not go on for ever.

    Args:
        in_hand: positions that are still in hand; others are forgotten.
    """

    def __init__(self, in_hand: Container[int]) -> None:
        self._in_hand = in_hand
        self._counts: dict[int, int] = {}

    def count(self, position: int, outcome: Outcome) -> Failed | None:
        """One more; the verdict, if it was one too many."""
        self._counts = {at: count for at, count in self._counts.items() if at in self._in_hand}
        self._counts[position] = self._counts.get(position, 0) + 1
        if self._counts[position] <= MAX_INTERRUPTIONS:
            return None
        del self._counts[position]
        return Failed(f"interrupted more than {MAX_INTERRUPTIONS} times: {outcome.error}")


async def attempt(
    bus: object, host: Host, subscription: Subscription, event: Event, delivery: DeliveryContext, staging: Staging
) -> Attempt:
    """Call the handler, if its filter still wants the event. Whatever it does, an attempt comes back."""
    began = host.clock.monotonic()
    verdict: Verdict | None = ACK
    status: Status = "ok"
    value, error = None, None
    try:
        # The store has it as it was recorded, maybe in an older version; an upcast that fails is a failed delivery.
        event = host.newest(event)
        if Subscription.wants(subscription, event):
            with Delivering(bus, subscription, event, delivery, staging):
                handled = (
                    subscription.handler(event) if subscription.at_once else _limited(subscription, event, delivery)
                )
                value = await handled
    except _TimedOut:
        status, error = "timeout", f"ran over its {subscription.timeout:g} s"
        verdict = Failed(error)
    except (Interrupted, EngineClosed) as why:
        verdict, status, error = None, "interrupted", describe(why)
    except Exception as why:
        verdict, status, error = _verdict_of(why), "error", describe(why)
        if not isinstance(why, Nak | Term):
            log.warning("%s failed on %s %s", subscription.name, event.type, event.id, exc_info=why)
    finally:
        # Before anything of it is committed: what came after that would be lost, with a receipt given for it.
        staging.seal()
    return Attempt(verdict, _outcome(subscription.name, status, host.clock.monotonic() - began, value, error))


class _TimedOut(Exception):
    """The handler was cut off."""


async def _limited(subscription: Subscription, event: Event, delivery: DeliveryContext) -> Any:
    with anyio.move_on_after(subscription.timeout) as limit:
        delivery.limited_by(limit)
        return await subscription.handler(event)
    raise _TimedOut


def _verdict_of(error: Exception) -> Verdict:
    if isinstance(error, Nak):
        return Failed(str(error), error.delay)
    if isinstance(error, Term):
        return Ended(error.reason)
    # Delivered again, the handler would only try to close the same loop.
    if isinstance(error, LoopDetected):
        return Ended(describe(error))
    return Failed(describe(error))
