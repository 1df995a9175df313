"""How many hook calls there were, counted in plain numbers and handed to the metrics when they are read."""

from __future__ import annotations

from eventcore.kernel.ports import Metrics

_METRIC = "eventcore_hook_calls_total"


class CallTally:
    """Counts of one engine. Bounded: only declared hooks are called."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._calls: dict[tuple[str, bool], int] = {}
        metrics.collector(self._report)

    def called(self, hook: str, denied: bool) -> None:
        """A call ended."""
        key = (hook, denied)
        self._calls[key] = self._calls.get(key, 0) + 1

    def _report(self) -> None:
        calls, self._calls = self._calls, {}
        for (hook, denied), count in calls.items():
            self._metrics.count(_METRIC, count, hook=hook, outcome="denied" if denied else "ok")
