"""The definition that a run is pinned to."""

from __future__ import annotations

import logging

from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.ports import Store
from eventcore.kernel.records import Run
from eventcore.workflows.plan import Plan
from eventcore.workflows.registry import Registry

log = logging.getLogger("eventcore.workflows")


async def plan_of(registry: Registry, store: Store, run: Run) -> Plan | None:
    """The plan of a run, from memory or from the store; None if it is gone, or cannot be read any more."""
    plan = registry.pinned(run.definition)
    if plan is None and (stored := await store.definition(run.definition)):
        try:
            plan = registry.pin(stored.raw, run.slug)
        except EventCoreError as error:  # one run's trouble must not keep the others, or the engine, from going on
            log.error("the stored definition of %s cannot be read any more: %s", run.slug, error)
    return plan
