"""JSON Schema, as manifests and workflow definitions use it.

jsonschema-rs checks them (a trivial check takes 0.3 us): schemas stand on the path of every call and every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from eventcore.kernel.errors import InvalidInput, InvalidPayload

_SHOWN = 10


def defaults(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `default` of each of an object's properties that has one. Schemas only describe; who fills in calls this."""
    properties = (schema or {}).get("properties", {})
    return {name: one["default"] for name, one in properties.items() if isinstance(one, dict) and "default" in one}


class Schema:
    """A compiled JSON Schema.

    Raises:
        InvalidInput: it is no valid schema.
    """

    __slots__ = ("_validator",)

    def __init__(self, schema: dict[str, Any]) -> None:
        try:
            self._validator = jsonschema_rs.validator_for(schema)
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise InvalidInput(f"is no JSON Schema: {str(error).splitlines()[0]}") from None

    def wrong(self, value: Any) -> list[str]:
        """What is wrong with `value`, each as `field.path: why`; empty if it fits."""
        if self._validator.is_valid(value):
            return []
        return [
            f"{'.'.join(map(str, error.instance_path))}: {error.message}" if error.instance_path else error.message
            for error in self._validator.iter_errors(value)
        ]

    def check(self, value: Any, what: str) -> None:
        """Raise InvalidPayload, naming each field, unless `value` fits."""
        if wrong := self.wrong(value):
            raise self.refusal(wrong, what)

    def refusal(self, wrong: list[str], what: str) -> InvalidPayload:
        """The error for what `wrong` found."""
        return InvalidPayload(f"{what}: {'; '.join(wrong[:_SHOWN])}")
