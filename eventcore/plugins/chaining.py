"""Chaining: a successful call starts the workflow that the plugin's manifest names, in the commit that records it."""

from __future__ import annotations

from typing import Any

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.ports import Invocation, WorkflowStarter
from eventcore.plugins.registry import HostIntent, PluginRecord


def reports_failure(result: Any) -> bool:
    """Whether a handler returned a failure instead of raising one: it counts as one, and is never chained."""
    return isinstance(result, dict) and result.get("success") is False


def chain(
    target: HostIntent | PluginRecord, done: Invocation, context: CallContext, starter: WorkflowStarter, bus: Bus
) -> None:
    """Stage the start of the workflow that the manifest chains to a successful call.

    Args:
        context: the caller's, with the call as the cause. A workflow that cannot start is told by `trigger_failed`.
    """
    manifest = target.manifest if isinstance(target, PluginRecord) else None
    if manifest is None or not manifest.enable_external_workflow or not manifest.workflow_slug:
        return
    if reports_failure(done.result):
        return
    slug = manifest.workflow_slug
    inputs = done.result if isinstance(done.result, dict) else {"result": done.result}
    try:
        batch, guards, _ = starter.stage_start(slug, inputs, context)
    except EventCoreError as error:
        data = {"slug": slug, "plugin": done.provider, "trigger": "workflow_slug", **error.as_dict()}
        done.effects.log.append(bus.build("trigger_failed", data, context.acting_as("system", ()), source="/plugins"))
        return
    done.effects.add(batch)
    done.guards = (*done.guards, *guards)
