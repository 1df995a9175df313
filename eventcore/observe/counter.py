"""Counters that cost little to add to.

A run's step adds to three, and prometheus_client's own takes 0.8 us each: it checks labels, the sign and
exemplars. These are read by a custom collector, as `histogram.py` does it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any


class Counter:
    """One counter under its label values. Any thread may add."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._lock = threading.Lock()

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`.

        Raises:
            ValueError: it is negative; counters only grow.
        """
        if amount < 0:
            raise ValueError("counters can only be incremented by non-negative amounts")
        with self._lock:
            self.value += amount


class Counters:
    """One metric: its counters by label values, and the collector that a registry reads them through."""

    def __init__(self, prometheus: Any, name: str, help: str, labels: tuple[str, ...]) -> None:
        self._prometheus, self._name, self._help, self._labels = prometheus, name, help, labels
        self._children: dict[tuple[str, ...], Counter] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Counter:
        """The counter under these label values, in the order of the labels."""
        return self._children.setdefault(values, Counter())

    def describe(self) -> list[Any]:
        """What the registry checks for doubled names."""
        return [self._family()]

    def collect(self) -> Iterator[Any]:
        """The metric as it stands."""
        family = self._family()
        for values, counter in sorted(self._children.copy().items()):
            family.add_metric(values, counter.value)
        yield family

    def _family(self) -> Any:
        return self._prometheus.metrics_core.CounterMetricFamily(self._name, self._help, labels=self._labels)
