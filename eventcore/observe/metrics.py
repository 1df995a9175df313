"""Metrics in the Prometheus data model: every metric there is, in one table, and two implementations of the port."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.names import did_you_mean
from eventcore.observe.counter import Counters
from eventcore.observe.histogram import Histograms

_log = logging.getLogger("eventcore.observe")

#: Sets of label values that one metric may have; what comes after is counted under `OTHER`.
MAX_SERIES = 1_000
#: Longest label value kept, in characters.
MAX_LABEL = 200
#: The label value of what came after the limit.
OTHER = "other"

Kind = Literal["counter", "gauge", "histogram"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0)
_SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is scraped; a counter's ends in `_total`.
        kind: counter, gauge or histogram.
        help: one line that says what is measured, with the unit.
        labels: names of its labels. Values come from a bounded set: slugs, types, outcomes; never ids or tenants.
        buckets: upper bounds of a histogram, ascending.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: Every metric that EventCore records.
METRICS: tuple[Metric, ...] = (
    Metric("eventcore_emits_total", "counter", "Events emitted and taken in.", ("type",)),
    Metric("eventcore_pending_emits", "gauge", "Events of emit_nowait that wait to be committed."),
    Metric("eventcore_deliveries_total", "counter", "Settled deliveries.", ("subscription", "outcome")),
    Metric("eventcore_subscription_backlog", "gauge", "Events waiting for a subscription.", ("subscription",)),
    Metric(
        "eventcore_overflows_total", "counter", "Events that a full buffer had no room for.", ("subscription", "policy")
    ),
    Metric("eventcore_loops_total", "counter", "Emits refused by the loop guard.", ("reason",)),
    Metric("eventcore_retries_total", "counter", "Failed attempts that are made again.", ("subscription",)),
    Metric("eventcore_dead_letters_total", "counter", "Events put into the dead letters.", ("subscription",)),
    Metric("eventcore_commit_group_size", "histogram", "Batches in one commit of the store.", (), _SIZES),
    Metric("eventcore_commit_seconds", "histogram", "Duration of one commit of the store.", (), _SECONDS),
    Metric("eventcore_pruned_total", "counter", "Events, step events and finished runs that were pruned.", ("kind",)),
    Metric("eventcore_hook_calls_total", "counter", "Hook calls.", ("hook", "outcome")),
    Metric("eventcore_hook_seconds", "histogram", "Duration of a hook call.", ("hook",), _SECONDS),
    Metric("eventcore_hook_failures_total", "counter", "Hook handlers that did not answer.", ("plugin", "outcome")),
    Metric("eventcore_hook_degraded", "gauge", "Whether a plugin's hook handlers are not asked, 1 or 0.", ("plugin",)),
    Metric("eventcore_plugin_healthy", "gauge", "What a plugin's health_check said last: 1 well, 0 not.", ("plugin",)),
    Metric("eventcore_runs_total", "counter", "Runs that ended.", ("slug", "status")),
    Metric("eventcore_run_seconds", "histogram", "Time from a run's start to its end.", ("slug",), _LONG_SECONDS),
    Metric("eventcore_steps_total", "counter", "Step attempts that ended.", ("slug", "outcome")),
    Metric("plugin_calls_total", "counter", "Calls of a plugin, failed ones included.", ("plugin",)),
    Metric("plugin_failures_total", "counter", "Failed calls of a plugin.", ("plugin", "reason")),
    Metric("plugin_execution_seconds", "histogram", "Duration of a plugin call.", ("plugin",), _SECONDS),
    Metric("permission_denied_total", "counter", "What a plugin, or a caller of it, was refused.", ("plugin",)),
    Metric("plugin_http_requests_total", "counter", "Requests of ctx.http.", ("plugin", "outcome")),
    Metric("plugin_programs_total", "counter", "Programs run by ctx.run.", ("plugin", "outcome")),
    Metric("memory_writes_total", "counter", "Memories written by a plugin.", ("plugin",)),
    Metric("embedding_requests_total", "counter", "Requests to the embeddings service.", ("outcome",)),
    Metric("plugin_import_error_total", "counter", "Plugin files that failed to load.", ("plugin", "module", "error")),
)


class NullMetrics:
    """Metrics that nobody wants: nothing is kept."""

    __slots__ = ()

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""

    def recorder(self, name: str, **labels: str) -> Callable[[float], None]:
        """What does nothing."""
        return _drop

    def collector(self, collect: Callable[[], None]) -> None:
        """Do nothing."""

    def text(self) -> str:
        """The empty text, which is valid in the Prometheus format."""
        return ""


class PrometheusMetrics:
    """Metrics kept by prometheus_client, in a registry of its own: two engines share nothing. Any thread may record.

    Args:
        strict: raise on a metric or label that the table does not declare; for tests. Otherwise it is dropped, with
            one warning for each metric, because a wrong metric must not stop the work that it counts.
        metrics: what is declared.
        max_series: sets of label values kept for each metric.
    """

    def __init__(
        self, *, strict: bool = False, metrics: tuple[Metric, ...] = METRICS, max_series: int = MAX_SERIES
    ) -> None:
        # Imported here for start-up: it costs as much as all the rest, and only an engine that keeps metrics needs it.
        import prometheus_client as prometheus

        self._strict = strict
        self._max_series = max_series
        self._registry = prometheus.CollectorRegistry(auto_describe=True)
        self._generate = prometheus.generate_latest
        self._families = {metric.name: _Family(metric, _make(prometheus, metric, self._registry)) for metric in metrics}
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._collectors: list[Callable[[], None]] = []
        # What is recorded often goes through this: (name, labels as given) -> bound method of the child.
        self._fast: dict[tuple[str, Kind, tuple[tuple[str, str], ...]], Callable[[float], None]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to the counter `name`."""
        (self._fast.get((name, "counter", tuple(labels.items()))) or self._find(name, "counter", labels))(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record a value (seconds, bytes) in the histogram `name`."""
        (self._fast.get((name, "histogram", tuple(labels.items()))) or self._find(name, "histogram", labels))(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set the gauge `name`."""
        (self._fast.get((name, "gauge", tuple(labels.items()))) or self._find(name, "gauge", labels))(value)

    def recorder(self, name: str, **labels: str) -> Callable[[float], None]:
        """What records in the metric `name` under these labels."""
        family = self._families.get(name)
        return self._find(name, family.metric.kind if family is not None else "counter", labels)

    def collector(self, collect: Callable[[], None]) -> None:
        """Call `collect` before each reading, on the thread that reads. One that fails is logged."""
        self._collectors.append(collect)

    def text(self) -> str:
        """Everything in the Prometheus text format, version 0.0.4."""
        for collect in tuple(self._collectors):
            try:
                collect()
            except Exception:
                _log.exception("metrics could not be collected")
                if self._strict:
                    raise
        text: bytes = self._generate(_WithoutCreated(self._registry))
        return text.decode()

    def _find(self, name: str, kind: Kind, labels: dict[str, str]) -> Callable[[float], None]:
        """What records under these labels; remembers it, unless they are past the limit."""
        if problem := self._problem(name, kind, labels):
            return self._refuse(name, problem)
        family = self._families[name]
        values = tuple(str(labels[label])[:MAX_LABEL] for label in family.metric.labels)
        with self._lock:
            record, within = family.record(values, self._max_series)
            # A shortened value is not remembered: endlessly many long ones could come down to one short one.
            if within and set(values) == set(labels.values()):
                self._fast[name, kind, tuple(labels.items())] = record
        return record

    def _problem(self, name: str, kind: Kind, labels: dict[str, str]) -> str | None:
        family = self._families.get(name)
        if family is None:
            return f"no metric {name!r} is declared{did_you_mean(name, self._families)}"
        metric = family.metric
        if metric.kind != kind:
            return f"the metric {name!r} is a {metric.kind}, not a {kind}"
        if labels.keys() != set(metric.labels):
            return f"the metric {name!r} has the labels {sorted(metric.labels)}, not {sorted(labels)}"
        return None

    def _refuse(self, name: str, problem: str) -> Callable[[float], None]:
        if self._strict:
            raise InvalidInput(problem)
        with self._lock:
            # Bounded as well: names ought to be literals in our code, but this set must not grow if one is not.
            is_new = name not in self._warned and len(self._warned) < self._max_series
            self._warned.add(name) if is_new else None
        if is_new:
            _log.warning("dropped: %s", problem)
        return _drop


class _Family:
    """One metric and its children by label values."""

    def __init__(self, metric: Metric, collector: Any) -> None:
        self.metric = metric
        self._collector = collector
        self._records: dict[tuple[str, ...], Callable[[float], None]] = {}
        self._other: Callable[[float], None] | None = None

    def record(self, values: tuple[str, ...], limit: int) -> tuple[Callable[[float], None], bool]:
        """What records under `values`, and whether they are within `limit` sets of values."""
        if found := self._records.get(values):
            return found, True
        if len(self._records) >= limit:
            self._other = self._other or self._child((OTHER,) * len(values))
            return self._other, False
        found = self._records[values] = self._child(values)
        return found, True

    def _child(self, values: tuple[str, ...]) -> Callable[[float], None]:
        child = self._collector.labels(*values) if values or self.metric.kind != "gauge" else self._collector
        method: Callable[[float], None] = getattr(child, _METHODS[self.metric.kind])
        return method


_METHODS: dict[Kind, str] = {"counter": "inc", "gauge": "set", "histogram": "observe"}


class _WithoutCreated:
    """A registry without the `_created` samples: they double the series, and only a process-wide switch stops them."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Any]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _make(prometheus: Any, metric: Metric, registry: Any) -> Any:
    if metric.kind == "histogram":
        histograms = Histograms(prometheus, metric.name, metric.help, metric.labels, metric.buckets or _SECONDS)
        registry.register(histograms)
        return histograms
    if metric.kind == "counter":
        counters = Counters(prometheus, metric.name, metric.help, metric.labels)
        registry.register(counters)
        return counters
    return prometheus.Gauge(metric.name, metric.help, metric.labels, registry=registry)


def _drop(value: float) -> None:
    return None
