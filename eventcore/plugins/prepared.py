"""What every call of a plugin needs of its manifest, its grants and the metrics: looked up once, not for each call."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.context import CallContext
from eventcore.kernel.ports import Metrics
from eventcore.kernel.schemas import Schema
from eventcore.plugins.registry import PluginRecord


class Meters:
    """Where the calls of one provider are counted.

    Attributes:
        calls: counts them.
        seconds: records how long one took.
    """

    __slots__ = ("calls", "seconds")

    def __init__(self, metrics: Metrics, provider: str) -> None:
        self.calls = metrics.recorder("plugin_calls_total", plugin=provider)
        self.seconds = metrics.recorder("plugin_execution_seconds", plugin=provider)


class Prepared:
    """One plugin, as long as its manifest stays the same.

    Attributes:
        takes: the compiled schema of parameters.
        gives: the compiled schema of results.
        timeout: seconds that one call may take.
    """

    __slots__ = ("_granted", "_permissions", "gives", "manifest", "meters", "takes", "timeout")

    def __init__(self, record: PluginRecord, metrics: Metrics, timeout: float) -> None:
        self.manifest = manifest = record.described()
        self.takes = Schema(manifest.input_schema) if manifest.input_schema is not None else None
        self.gives = Schema(manifest.output_schema) if manifest.output_schema is not None else None
        self.meters = Meters(metrics, record.slug)
        self.timeout = manifest.limits.timeout_seconds or timeout
        self._granted: frozenset[Any] | None = None
        self._permissions: list[str] = []

    def about(self, record: PluginRecord, context: CallContext) -> dict[str, Any]:
        """What `ctx` tells the plugin's code about the call."""
        if record.granted is not self._granted:
            self._granted = record.granted
            self._permissions = sorted(map(str, record.granted))
        return {"tenant": context.tenant, "actor": context.actor, "permissions": self._permissions}


class Preparations:
    """All of them, by slug.

    Args:
        timeout: seconds that a call may take whose manifest says nothing.
    """

    def __init__(self, metrics: Metrics, timeout: float) -> None:
        self._metrics, self._timeout = metrics, timeout
        self._found: dict[str, Prepared] = {}
        self._host: Meters | None = None

    def of(self, record: PluginRecord) -> Prepared:
        """A plugin's; made anew where its manifest is another one.

        Raises:
            InvalidManifest: it has none.
        """
        found = self._found.get(record.slug)
        if found is None or found.manifest is not record.manifest:
            found = self._found[record.slug] = Prepared(record, self._metrics, self._timeout)
        return found

    @property
    def host(self) -> Meters:
        """Where calls of the embedder's own functions are counted."""
        if self._host is None:
            self._host = Meters(self._metrics, "host")
        return self._host
