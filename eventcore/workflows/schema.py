"""The JSON Schema of workflow files, for editors: completion, descriptions and mistakes while one types."""

from __future__ import annotations

from typing import Any

from eventcore.workflows.definition import STEP_KINDS, TRIGGER_KINDS, UNDO_KINDS, Workflow

_DURATION = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^(\d+d)?(\d+h)?(\d+m)?([\d.]+s)?(\d+ms)?$"},
    ],
    "description": "Seconds, or a text such as 500ms, 30s, 1h30m, 2d.",
}
_DURATIONS = {
    "Retry": ("initial", "max"),
    "WaitFor": ("timeout",),
    "Approve": ("timeout",),
    "Compensate": ("timeout",),
    "Step": ("sleep", "timeout", "total_timeout"),
    "Trigger": ("window", "jitter"),
    "Rate": ("per",),
}
_ONE_OF = {"Step": STEP_KINDS, "Trigger": TRIGGER_KINDS, "Compensate": UNDO_KINDS}


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a workflow file, made from the model that reads it."""
    schema = Workflow.model_json_schema(by_alias=True, mode="validation")
    models = schema["$defs"]
    for name, keys in _DURATIONS.items():
        for key in keys:
            old = models[name]["properties"][key]
            kept = {one: old[one] for one in ("default", "title") if one in old}
            models[name]["properties"][key] = {**_DURATION, **kept}
    for name, kinds in _ONE_OF.items():
        models[name]["oneOf"] = [{"required": [kind]} for kind in kinds]
    # `approve: "Ship it?"` and `approve: true` are short forms.
    approve = models["Step"]["properties"]["approve"]
    approve["anyOf"] = [{"type": "string"}, {"const": True}, *approve["anyOf"]]
    for model in (schema, *models.values()):
        for shown in model.get("properties", {}).values():
            shown.pop("title", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "EventCore workflow"}
