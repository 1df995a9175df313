"""The guard against events that feed on themselves: by path and hops, and by the rate of a plugin's emits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventcore.bus.types import EventTypes
from eventcore.kernel.context import MAX_HOPS, MAX_TURNS, CallContext, Cause
from eventcore.kernel.errors import InvalidInput, LoopDetected, RateLimited
from eventcore.kernel.event import Event
from eventcore.kernel.ports import Clock

#: Emits a second that one plugin may make; twice as many at once.
EMIT_RATE = 1_000.0
_BURST = 2.0
#: How often one plugin's emit rate is reported, in seconds.
_REPORT_SECONDS = 60.0
_OWNER = "plugin:"


class _Bucket:
    """A token bucket: what is left of a plugin's allowance, and when it was last reported to have none."""

    __slots__ = ("at", "reported", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens, self.at = tokens, at
        self.reported: float | None = None


class LoopGuard:
    """Refuses what would close a causal loop, and emits that come too fast.

    Args:
        notice: records `bus_loop_detected` with this data, in this context, without being waited for.
        rate: emits a second that each plugin may make; twice as many at once.

    Raises:
        InvalidInput: the rate is not above 0.
    """

    def __init__(
        self,
        types: EventTypes,
        clock: Clock,
        notice: Callable[[dict[str, Any], CallContext], None],
        rate: float = EMIT_RATE,
    ) -> None:
        if rate <= 0:
            raise InvalidInput("the emit rate is above 0")
        self._types, self._clock, self._notice, self._rate = types, clock, notice, rate
        self._buckets: dict[str, _Bucket] = {}
        #: How many emits were refused, by why: `loop` or `rate`.
        self.refused = {"loop": 0, "rate": 0}

    def check(self, event: Event) -> None:
        """Refuse an event of a handler, a step or a plugin that goes too far, and record that.

        Raises:
            LoopDetected: too many hops, or the same subscriber too often in the chain of causes.
            RateLimited: the plugin emits too fast.
        """
        if event.hops and (why := self.loop_in(Cause(hops=event.hops, path=event.path))):
            self._refuse_loop(event, why)
        if event.actor.startswith(_OWNER):
            self._spend(event)

    def check_request(self, target: str, context: CallContext) -> None:
        """Refuse a request at the end of too long a chain, and record that.

        Raises:
            LoopDetected: too many hops, or the same target too often in the chain of causes.
        """
        cause = context.cause
        if cause.hops and (why := self.loop_in(cause)):
            members = sorted({entry[0] for entry in cause.path} | {f"intent:{target}"})
            self.refused["loop"] += 1
            host = CallContext(context.tenant, "system", cause=Cause(cause.event, cause.correlation, 0))
            self._notice({"type": "plugin_called", "members": members, "why": why}, host)
            raise LoopDetected(f"a request to {target} would close a loop of {', '.join(members)}: {why}")

    def loop_in(self, cause: Cause) -> str | None:
        """Why nothing more may follow from `cause`, or None if it is no loop.

        Hops through a type that was declared with `max_turns` do not count as hops: the turns bound them.
        """
        hops = cause.hops
        if hops > MAX_HOPS and hops - sum(self._turns(what) is not None for _, what, _ in cause.path) > MAX_HOPS:
            return f"more than {MAX_HOPS} hops"
        if not cause.path:
            return None
        who, what, _ = last = cause.path[-1]
        turns = self._turns(what) or MAX_TURNS
        if len(cause.path) >= turns and cause.path.count(last) >= turns:
            return f"{who} handled {what} {turns} times in this chain of causes"
        return None

    def _turns(self, type: str) -> int | None:
        declared = self._types.get(type)
        return declared.max_turns if declared else None

    def _refuse_loop(self, event: Event, why: str) -> None:
        members = sorted({entry[0] for entry in event.path})
        self.refused["loop"] += 1
        self._notice({"type": event.type, "members": members, "why": why}, _host(event))
        raise LoopDetected(
            f"{event.type} would close a loop of {', '.join(members)}: {why}",
            hint="a longer dialogue needs declare(type, max_turns=n)",
        )

    def _spend(self, event: Event) -> None:
        now, most = self._clock.monotonic(), max(1.0, self._rate * _BURST)
        bucket = self._buckets.get(event.actor)
        if bucket is None:
            bucket = self._buckets[event.actor] = _Bucket(most, now)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return
        self.refused["rate"] += 1
        why = f"more than {self._rate:g} events a second"
        plugin = event.actor.removeprefix(_OWNER)
        if bucket.reported is None or now - bucket.reported >= _REPORT_SECONDS:
            bucket.reported = now
            self._notice({"type": event.type, "members": [plugin], "why": why}, _host(event))
        raise RateLimited(
            f"{plugin} emits {why}; {event.type} is refused", hint="emit fewer and larger events, or slow down"
        )


def _host(event: Event) -> CallContext:
    cause = Cause(event.causation_id, event.correlation_id, 0)
    return CallContext(tenant=event.tenant, actor="system", cause=cause)
