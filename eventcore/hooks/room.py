"""What every hook call of one engine uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from eventcore.bus.bus import Bus
from eventcore.hooks.breaker import Breaker, Change
from eventcore.kernel.ports import Clock, Metrics
from eventcore.kernel.records import Batch


@dataclass(slots=True)
class Room:
    """What every call of one engine uses.

    Attributes:
        keep_denied: record the payload of denied calls too (an operator's policy); else only its hash.
        owners: asked, when the breaker opens or closes on an owner, for what has to be stored with that.
    """

    bus: Bus
    clock: Clock
    metrics: Metrics
    breaker: Breaker = field(default_factory=Breaker)
    keep_denied: bool = False
    owners: list[Callable[[str, Change, str], Batch | None]] = field(default_factory=list)
