"""Our histograms read as prometheus_client's own do."""

from __future__ import annotations

import threading

import prometheus_client
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore.observe.metrics import Metric, PrometheusMetrics

BOUNDS = (0.5, 1.0, 2.5, 30.0)
NAMES = st.sampled_from(["alpha", "beta", 'a "quoted\\ one"'])


def ours(labels: tuple[str, ...] = ("hook",)) -> PrometheusMetrics:
    return PrometheusMetrics(strict=True, metrics=(Metric("took_seconds", "histogram", "Took.", labels, BOUNDS),))


def theirs(values: list[tuple[str, float]]) -> str:
    registry = prometheus_client.CollectorRegistry()
    histogram = prometheus_client.Histogram("took_seconds", "Took.", ("hook",), registry=registry, buckets=BOUNDS)
    for name, value in values:
        histogram.labels(name).observe(value)
    text = prometheus_client.generate_latest(registry).decode()
    return "\n".join(sorted(line for line in text.splitlines() if "_created" not in line))


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.sampled_from([0.0, 0.5, 0.50001, 1.0, 2.0, 30.0, 31.0, 1e9]))))
def test_the_text_is_that_of_the_library(values: list[tuple[str, float]]) -> None:
    metrics = ours()
    for name, value in values:
        metrics.observe("took_seconds", value, hook=name)
    assert "\n".join(sorted(metrics.text().splitlines())) == theirs(values)


def test_one_without_labels_is_there_before_its_first_value() -> None:
    metrics = ours(())
    assert "took_seconds_count 0.0" in metrics.text()
    metrics.observe("took_seconds", 0.7)
    assert 'took_seconds_bucket{le="0.5"} 0.0\ntook_seconds_bucket{le="1.0"} 1.0' in metrics.text()


def test_no_value_is_lost_between_threads() -> None:
    metrics = ours(())

    def record() -> None:
        for _ in range(2_000):
            metrics.observe("took_seconds", 1.0)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "took_seconds_count 8000.0\ntook_seconds_sum 8000.0" in metrics.text()
