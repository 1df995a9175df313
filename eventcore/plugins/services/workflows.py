"""Starting workflows, for plugins whose manifest sets `enable_external_workflow`."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.host_api import CallApi, Service


def table() -> dict[str, Service]:
    """The service `workflows.start`."""
    return {"workflows.start": start}


async def start(call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
    """Stage the start of a run; returns its id."""
    slug, plugin = str(params.get("slug", "")), call.record.slug
    if not call.record.described().enable_external_workflow:
        await call.refuse(f"{plugin} may not start {slug}: its manifest does not set enable_external_workflow")
    await call.may_change(f"start {slug}")
    inputs = params.get("inputs") or {}
    if not isinstance(inputs, dict):
        raise InvalidInput(f"the inputs of {slug} are an object, not {type(inputs).__name__}")
    batch, guards, run = call.services.starter.stage_start(slug, inputs, call.context)
    call.staged.add(batch)
    call.guards.extend(guards)
    return {"run": run, "slug": slug}
