"""Metrics and logging."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.ports import Metrics
from eventcore.observe.logging import Redactor, configure
from eventcore.observe.metrics import METRICS, NullMetrics, PrometheusMetrics

REPOSITORY = Path(__file__).resolve().parents[2]


def samples(metrics: Metrics, name: str) -> dict[str, float]:
    """Lines of the text that are about `name`, as `{labels}` -> value."""
    found = {}
    for line in metrics.text().splitlines():
        if line.startswith((name + " ", name + "{")):
            series, _, value = line.rpartition(" ")
            found[series.removeprefix(name)] = float(value)
    return found


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics(strict=True)


def record_one_of_each(metrics: Metrics) -> None:
    for metric in METRICS:
        record = {"counter": metrics.count, "gauge": metrics.gauge, "histogram": metrics.observe}[metric.kind]
        record(metric.name, 1, **dict.fromkeys(metric.labels, "x"))


def test_every_declared_metric_shows_under_its_name(metrics: PrometheusMetrics) -> None:
    record_one_of_each(metrics)
    for metric in METRICS:
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        labels = ",".join(f'{label}="x"' for label in sorted(metric.labels))
        assert samples(metrics, name) == {f"{{{labels}}}" if labels else "": 1.0}
        assert f"# TYPE {metric.name} {metric.kind}\n" in metrics.text()
        assert metric.kind != "counter" or metric.name.endswith("_total")
    assert "_created" not in metrics.text()


def test_null_metrics_take_the_same_calls_and_keep_nothing() -> None:
    metrics: Metrics = NullMetrics()
    record_one_of_each(metrics)
    assert metrics.text() == ""


def test_counters_gauges_and_histograms(metrics: PrometheusMetrics) -> None:
    for _ in range(3):
        metrics.count("plugin_calls_total", plugin="greeter")
    metrics.count("plugin_calls_total", 2, plugin="greeter")
    metrics.count("plugin_calls_total", plugin="other-one")
    assert samples(metrics, "plugin_calls_total") == {'{plugin="greeter"}': 5, '{plugin="other-one"}': 1}
    for value in (5, 3):
        metrics.gauge("eventcore_subscription_backlog", value, subscription="s")
    assert samples(metrics, "eventcore_subscription_backlog") == {'{subscription="s"}': 3}
    for value in (0.004, 0.2, 1000):
        metrics.observe("eventcore_commit_seconds", value)
    assert samples(metrics, "eventcore_commit_seconds_sum") == {"": 1000.204}
    buckets = samples(metrics, "eventcore_commit_seconds_bucket")
    assert (buckets['{le="0.005"}'], buckets['{le="60.0"}'], buckets['{le="+Inf"}']) == (1, 2, 3)


def test_the_order_of_labels_does_not_matter(metrics: PrometheusMetrics) -> None:
    metrics.count("plugin_failures_total", plugin="a", reason="b")
    metrics.count("plugin_failures_total", reason="b", plugin="a")
    metrics.count("plugin_failures_total", reason="a", plugin="b")
    found = samples(metrics, "plugin_failures_total")
    assert found == {'{plugin="a",reason="b"}': 2, '{plugin="b",reason="a"}': 1}


def test_two_engines_share_nothing() -> None:
    first, second = PrometheusMetrics(), PrometheusMetrics()
    first.count("eventcore_emits_total", type="tick")
    assert samples(first, "eventcore_emits_total") == {'{type="tick"}': 1}
    assert samples(second, "eventcore_emits_total") == {}


def test_label_sets_are_bounded() -> None:
    metrics = PrometheusMetrics(strict=True, max_series=10)
    for _ in range(2):
        for number in range(100):
            metrics.count("plugin_failures_total", plugin=f"p{number}", reason="r")
    found = samples(metrics, "plugin_failures_total")
    assert len(found) == 11
    assert found['{plugin="p9",reason="r"}'] == 2
    assert found['{plugin="other",reason="other"}'] == 180
    assert len(metrics._fast) == 10


def test_long_values_are_cut_and_memory_stays_bounded() -> None:
    metrics = PrometheusMetrics(strict=True, max_series=10)
    for number in range(100):
        metrics.count("eventcore_emits_total", type="x" * 300 + str(number))
    assert samples(metrics, "eventcore_emits_total") == {f'{{type="{"x" * 200}"}}': 100}
    assert len(metrics._fast) == 0


def test_strange_label_values_are_escaped(metrics: PrometheusMetrics) -> None:
    metrics.count("eventcore_emits_total", type='a"\n\\b')
    assert samples(metrics, "eventcore_emits_total") == {'{type="a\\"\\n\\\\b"}': 1}


WRONG = [
    ("count", "eventcore_emit_total", {"type": "x"}, "did you mean 'eventcore_emits_total'"),
    ("observe", "eventcore_emits_total", {"type": "x"}, "is a counter, not a histogram"),
    ("gauge", "eventcore_emits_total", {"type": "x"}, "is a counter, not a gauge"),
    ("count", "eventcore_emits_total", {}, "has the labels"),
    ("count", "eventcore_emits_total", {"type": "x", "tenant": "t"}, "has the labels"),
]


@pytest.mark.parametrize(("method", "name", "labels", "words"), WRONG)
def test_undeclared_is_an_error_in_tests(
    metrics: PrometheusMetrics, method: str, name: str, labels: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        getattr(metrics, method)(name, 1, **labels)


@pytest.mark.parametrize(("method", "name", "labels", "words"), WRONG)
def test_undeclared_is_dropped_with_one_warning_in_production(
    caplog: pytest.LogCaptureFixture, method: str, name: str, labels: dict[str, str], words: str
) -> None:
    metrics = PrometheusMetrics()
    for _ in range(3):
        getattr(metrics, method)(name, 1, **labels)
    [record] = caplog.records
    assert words in record.getMessage()
    assert samples(metrics, name) == {}


def test_any_thread_may_record(metrics: PrometheusMetrics) -> None:
    def record() -> None:
        for number in range(2000):
            metrics.count("eventcore_emits_total", type=f"t{number % 50}")

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(samples(metrics, "eventcore_emits_total").values()) == {160.0}


def test_prometheus_is_loaded_only_by_who_keeps_metrics() -> None:
    code = "import sys, eventcore.observe.metrics as m; m.NullMetrics(); sys.exit('prometheus_client' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("eventcore")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield logging.getLogger("eventcore.test")
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


def test_lines_of_text(log: logging.Logger) -> None:
    out = io.StringIO()
    configure("info", stream=out)
    log.debug("not shown")
    log.warning("%s is slow", "greeter", extra={"plugin": "greeter", "run": "r-1"})
    time, _, rest = out.getvalue().partition(" ")
    assert rest == "WARNING eventcore.test greeter is slow plugin=greeter run=r-1\n"
    assert time.endswith("Z")
    assert len(time) == len("2026-01-02T03:04:05.678Z")


def test_lines_of_json(log: logging.Logger) -> None:
    out = io.StringIO()
    configure("debug", json=True, stream=out)
    log.debug("two\nlines", extra={"plugin": "greeter", "calls": 3, "path": Path("/x"), "message_id": None})
    try:
        raise ValueError("oh")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "debug",
        "logger": "eventcore.test",
        "message": "two\nlines",
        "plugin": "greeter",
        "calls": 3,
        "path": "/x",
        "message_id": None,
    }
    assert second["trace"].startswith("Traceback")
    assert second["trace"].endswith("ValueError: oh")


def test_text_from_outside_cannot_forge_a_line_or_drive_a_terminal(log: logging.Logger) -> None:
    out = io.StringIO()
    configure(stream=out)
    log.info("a\n2026 ERROR eventcore forged\x1b[2J\x9b\u2028\ud800", extra={"plugin": "x\ny"})
    [line] = out.getvalue().splitlines()
    assert r"a\n2026 ERROR eventcore forged\x1b[2J\x9b\u2028\ud800 plugin=x\ny" in line


@pytest.mark.parametrize("as_json", [False, True])
def test_secrets_are_masked_everywhere(log: logging.Logger, as_json: bool) -> None:
    out = io.StringIO()
    redact = Redactor(["hunter2", 'qu"ote', ""])
    configure("info", json=as_json, stream=out, redact=redact)
    redact.add("hunter2-long")
    try:
        raise ValueError("no hunter2 here")
    except ValueError:
        log.exception("with %s and %s", "hunter2-long", 'qu"ote', extra={"config": {"key": "hunter2"}})
    text = out.getvalue()
    assert "with *** and ***" in text
    assert "no *** here" in text
    for part in ("hunter2", "-long", "ote", "qu"):
        assert part not in text


def test_configuring_again_replaces_only_our_handler(log: logging.Logger) -> None:
    root = logging.getLogger("eventcore")
    theirs = logging.NullHandler()
    root.addHandler(theirs)
    first, second = io.StringIO(), io.StringIO()
    old = configure("info", stream=first)
    new = configure("ERROR", stream=second)
    assert theirs in root.handlers
    assert old not in root.handlers
    assert new in root.handlers
    log.info("hidden")
    log.error("shown")
    assert first.getvalue() == ""
    assert second.getvalue().count("shown") == 1


def test_it_writes_to_standard_error_by_default(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    log.info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("INFO eventcore.test hello\n")


def test_an_unknown_level(log: logging.Logger) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'warning'"):
        configure("warnin")


def test_importing_configures_nothing() -> None:
    code = (
        "import logging, eventcore.observe.logging, eventcore.observe.metrics, eventcore.home.control\n"
        "logger = logging.getLogger('eventcore')\n"
        "assert not logger.handlers and logger.level == 0 and logger.propagate and not logging.getLogger().handlers"
    )
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)
