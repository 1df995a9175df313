"""What the bus counts. Kept as plain numbers and handed to the metrics when they are read: a call of the metrics port
for each delivery would cost more than the delivery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from eventcore.bus.outcome import Outcome
from eventcore.bus.subscription import Subscription
from eventcore.kernel.ports import Metrics

#: Distinct event types and subscriptions kept apart; what comes after is counted as `other`.
_MOST = 1_000
_OTHER = "other"


class Tally:
    """Counts of one bus.

    Args:
        subscriptions: the live ones.
        refused: how many emits the loop guard refused, by why.
        pending: how many events wait to be committed.
    """

    def __init__(
        self,
        metrics: Metrics,
        subscriptions: Callable[[], Iterator[Subscription]],
        refused: dict[str, int],
        pending: Callable[[], int],
    ) -> None:
        self._metrics, self._subscriptions, self._refused, self._pending = metrics, subscriptions, refused, pending
        self._emits: dict[str, int] = {}  # no Counter, which takes twice as long to count one
        #: Told before a report: whoever counts by himself hands over what he has.
        self.before_report: Callable[[], object] | None = None
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._overflows: Counter[tuple[str, str]] = Counter()
        self._reported: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._gauged: set[str] = set()
        metrics.collector(self.report)

    def emitted(self, type: str, count: int = 1) -> None:
        """Events were taken in."""
        emits = self._emits
        if type in emits:
            emits[type] += count
        else:
            name = type if len(emits) < _MOST else _OTHER
            emits[name] = emits.get(name, 0) + count

    def settled(self, subscription: Subscription, outcome: Outcome) -> None:
        """A delivery ended otherwise than well; those that end well are counted by the subscription."""
        if outcome.status != "ok":
            _add(self._outcomes, (subscription.label, outcome.status))

    def overflowed(self, subscription: Subscription) -> None:
        """A full buffer could not take an event."""
        _add(self._overflows, (subscription.label, subscription.overflow))

    def gone(self, subscription: Subscription) -> None:
        """A subscription ended; what it handled stays counted."""
        _add(self._outcomes, (subscription.label, "ok"), subscription.handled)

    def report(self) -> None:
        """Hand over what was counted since the last time."""
        if self.before_report is not None:
            self.before_report()
        outcomes, backlog = Counter(self._outcomes), Counter[str]()
        for one in self._subscriptions():
            outcomes[one.label, "ok"] += one.handled
            backlog[one.label] += one.backlog
        for name, count in self._emits.items():
            self._count("eventcore_emits_total", count, type=name)
        for (name, outcome), count in outcomes.items():
            self._count("eventcore_deliveries_total", count, subscription=name, outcome=outcome)
        for (name, policy), count in self._overflows.items():
            self._count("eventcore_overflows_total", count, subscription=name, policy=policy)
        for why, count in self._refused.items():
            self._count("eventcore_loops_total", count, reason=why)
        for name in self._gauged - backlog.keys():
            self._metrics.gauge("eventcore_subscription_backlog", 0, subscription=name)
        for name, waiting in backlog.items():
            self._metrics.gauge("eventcore_subscription_backlog", waiting, subscription=name)
        self._gauged = set(backlog)
        self._metrics.gauge("eventcore_pending_emits", self._pending())

    def _count(self, metric: str, total: int, **labels: str) -> None:
        key = (metric, tuple(labels.items()))
        if new := total - self._reported[key]:
            self._reported[key] = total
            self._metrics.count(metric, new, **labels)


def _add(counter: Counter[tuple[str, str]], key: tuple[str, str], count: int = 1) -> None:
    counter[key if key in counter or len(counter) < _MOST else (_OTHER, key[1])] += count
