"""How each plugin is, as it says itself and as the host sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError, PluginTimeout
from eventcore.plugins.calls import Calls
from eventcore.plugins.registry import PluginRecord
from eventcore.plugins.sandbox.supervisor import Supervisor

#: What the reason of a plugin begins with that its own `health_check` calls unwell.
UNWELL = "unwell: "
#: How long a plugin may take to say how it is, in seconds.
PATIENCE = 5.0
_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Report:
    """How one plugin is.

    Attributes:
        plugin: its slug. version: as its manifest says.
        status: `healthy`, `unhealthy`, or `off` for one that is not in use.
        reason: why it is not healthy; empty otherwise.
        state: its state.
        worker: whether a worker was warm when it was asked.
        details: what its `health_check` answered besides.
    """

    plugin: str
    version: str
    status: str
    reason: str
    state: str
    worker: bool
    details: dict[str, Any] = field(default_factory=dict)


#: (the plugin, what is wrong or None, on whose behalf it was asked).
Told = Callable[[PluginRecord, str | None, CallContext], Awaitable[None]]


class Health:
    """Asks plugins how they are."""

    def __init__(self, calls: Calls, supervisor: Supervisor) -> None:
        self._calls, self._supervisor = calls, supervisor
        #: Told what a plugin with a `health_check` says of itself; set by whoever keeps its state.
        self.told: Told | None = None

    async def check(self, record: PluginRecord, context: CallContext) -> Report:
        """Look after one plugin.

        One that is enabled is asked by its `health_check`, or for a sign of life if its worker is warm. A cold worker
        is started only for a plugin that has a `health_check`.
        """
        warm = self._supervisor.alive(record.slug, context.tenant)
        status, reason = "healthy", ""
        details: dict[str, Any] = {}
        said_so = record.state == "degraded" and (record.reason or "").startswith(UNWELL)
        if record.state in ("failed", "degraded") and not said_so:
            status, reason = "unhealthy", f"{record.state}: {record.reason or 'no reason given'}"
        elif not record.enabled:
            status = "off"
        elif warm or (record.registered or {}).get("health"):
            status, reason, details = await self._asked(record, context)
        version = record.manifest.version if record.manifest else ""
        return Report(record.slug, version, status, reason, record.state, warm, details)

    async def _asked(self, record: PluginRecord, context: CallContext) -> tuple[str, str, dict[str, Any]]:
        try:
            status, reason, details = await self._ask(record, context)
        except PluginTimeout as error:  # it may be busy, which is nothing that a plugin says of itself
            return "unhealthy", f"its health_check failed: {error.message}"[:_MAX_REASON], {}
        if self.told is not None and (record.registered or {}).get("health"):
            await self.told(record, reason if status == "unhealthy" else None, context)
        return status, reason, details

    async def _ask(self, record: PluginRecord, context: CallContext) -> tuple[str, str, dict[str, Any]]:
        calls = self._calls
        try:
            answer = await self._supervisor.call(
                calls.spec(record, context.tenant),
                "health",
                {},
                timeout=PATIENCE,
                host=calls.services.for_call(record, context, effects=False),
                context=calls.about(record, context),
            )
        except PluginTimeout:
            raise
        except EventCoreError as error:
            return "unhealthy", f"its health_check failed: {error.message}"[:_MAX_REASON], {}
        return _judged(answer["result"])


def _judged(result: Any) -> tuple[str, str, dict[str, Any]]:
    """Status, reason and details of what a `health_check` answered: an object with `status`, or just true or false."""
    if isinstance(result, bool):
        return ("healthy", "", {}) if result else ("unhealthy", "its health_check returned False", {})
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        return "unhealthy", f"its health_check returned {result!r:.100} and no object with a status", {}
    details = {key: value for key, value in result.items() if key != "status"}
    if result["status"] in ("healthy", "ok"):
        return "healthy", "", details
    said = result.get("reason") or result.get("message") or result.get("error") or "no reason given"
    return "unhealthy", f"{result['status']}: {said}"[:_MAX_REASON], details
