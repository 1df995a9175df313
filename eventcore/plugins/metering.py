"""Metrics without the series of plugins that want none (`monitoring.enable_metrics: false`)."""

from __future__ import annotations

from collections.abc import Callable

from eventcore.kernel.ports import Metrics
from eventcore.plugins.registry import PluginRegistry


class Metered:
    """Hands on what is measured, but for that of such plugins. Implements the port `Metrics`."""

    def __init__(self, metrics: Metrics, registry: PluginRegistry) -> None:
        self._metrics, self._registry = metrics, registry

    def _muted(self, labels: dict[str, str]) -> bool:
        record = self._registry.records.get(labels.get("plugin", ""))
        return record is not None and record.manifest is not None and not record.manifest.monitoring.enable_metrics

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        if not self._muted(labels):
            self._metrics.count(name, amount, **labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        if not self._muted(labels):
            self._metrics.observe(name, value, **labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        if not self._muted(labels):
            self._metrics.gauge(name, value, **labels)

    def recorder(self, name: str, **labels: str) -> Callable[[float], None]:
        return _drop if self._muted(labels) else self._metrics.recorder(name, **labels)

    def collector(self, collect: Callable[[], None]) -> None:
        self._metrics.collector(collect)

    def text(self) -> str:
        return self._metrics.text()


def _drop(value: float) -> None:
    return None
