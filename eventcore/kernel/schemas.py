"""JSON Schema, as manifests and workflow definitions use it.

jsonschema-rs checks them (a trivial check takes 0.3 us): schemas stand on the path of every call and every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from eventcore.kernel.errors import InvalidInput, InvalidPayload

_SHOWN = 10
#: Nodes and characters. All errors of 350,000 items take 12 s and 500 MiB, and even the first one copies the value.
_SMALL, _LARGE = (1000, 64 * 1024), (20_000, 1 << 20)
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=1000, size_limit=1 << 18)


def _compiled(schema: dict[str, Any], mask: str | None = None) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, retriever=_nowhere, pattern_options=_PATTERNS, mask=mask)


def _nowhere(uri: str) -> Any:
    """By itself the library would ask the network, and open files of this machine."""
    raise ValueError(f"{uri} is not in the schema, and nothing is fetched")


def _is_within(value: Any, most_nodes: int, most_text: int) -> bool:
    nodes, text, left = 0, 0, [value]
    while left:
        one = left.pop()
        nodes += 1
        if isinstance(one, str):
            text += len(one)
        elif isinstance(one, dict):
            text += sum(map(len, one))
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
        if nodes + len(left) > most_nodes or text > most_text:
            return False
    return True


def defaults(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `default` of each of an object's properties that has one. Schemas only describe; who fills in calls this."""
    properties = (schema or {}).get("properties", {})
    return {name: one["default"] for name, one in properties.items() if isinstance(one, dict) and "default" in one}


class Schema:
    """A compiled JSON Schema.

    Schemas and values come from strangers, and are looked at in the event loop, so both are bounded: references do not
    leave the schema, patterns end after 1,000 steps back (what takes more does not match), and only of a small value
    all errors are told, each with the value in it; of a larger one the first.

    Raises:
        InvalidInput: it is no valid schema.
    """

    __slots__ = ("_schema", "_validator")

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        try:
            self._validator = _compiled(schema)
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise InvalidInput(f"is no JSON Schema: {str(error).splitlines()[0]}") from None

    def wrong(self, value: Any) -> list[str]:
        """What is wrong with `value`, each as `field.path: why`; empty if it fits. Of a large one less."""
        if self._validator.is_valid(value):
            return []
        if not _is_within(value, *_LARGE):
            return [f"it does not fit the schema, and is too large to tell where (more than {_LARGE[0]:,} values)"]
        errors = list(self._validator.iter_errors(value)) if _is_within(value, *_SMALL) else self._first(value)
        return [
            f"{'.'.join(map(str, error.instance_path))}: {error.message}" if error.instance_path else error.message
            for error in errors
        ]

    def _first(self, value: Any) -> list[jsonschema_rs.ValidationError]:
        try:
            _compiled(self._schema, mask="the value").validate(value)
        except jsonschema_rs.ValidationError as error:
            return [error]
        return []

    def check(self, value: Any, what: str) -> None:
        """Raise InvalidPayload, naming each field, unless `value` fits."""
        if wrong := self.wrong(value):
            raise self.refusal(wrong, what)

    def refusal(self, wrong: list[str], what: str) -> InvalidPayload:
        """The error for what `wrong` found."""
        return InvalidPayload(f"{what}: {'; '.join(wrong[:_SHOWN])}")
