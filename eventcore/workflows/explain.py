"""Why an event started a run, or did not."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.event import Event
from eventcore.workflows.plan import TriggerPlan
from eventcore.workflows.registry import Registry


def explain_triggers(registry: Registry, event: Event) -> list[dict[str, Any]]:
    """Every trigger that listens to the event's type, with what its condition says of this event now.

    Each has `slug`, `trigger`, `pattern`, `condition` (its text, or None), `value` (what it came to), `holds` and
    `error` (why it, or the inputs behind it, could not be worked out).
    """
    scope = {"event": event.as_dict()}
    return [{"slug": plan.slug, **_tried(trigger, scope)} for plan, trigger in registry.triggers(event.type)]


def _tried(trigger: TriggerPlan, scope: dict[str, Any]) -> dict[str, Any]:
    condition = trigger.condition
    found: dict[str, Any] = {"trigger": trigger.id, "pattern": trigger.pattern, "value": None, "error": None}
    found["condition"] = condition.source if condition is not None else None
    try:
        found["value"] = True if condition is None else condition(scope)
        found["holds"] = bool(found["value"])
        if found["holds"]:
            trigger.inputs(scope)
    except EventCoreError as error:
        found |= {"holds": False, "error": error.message}
    return found
