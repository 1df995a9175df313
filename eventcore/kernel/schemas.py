"""JSON Schema, as manifests and workflow definitions use it.

jsonschema-rs checks them (a trivial check takes 0.3 us): schemas stand on the path of every call and every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from eventcore.kernel.errors import InvalidInput, InvalidPayload
from eventcore.kernel.schema_cost import MAX_WORK, Work

_SHOWN = 10
#: Nodes and characters. All errors of 350,000 items take 12 s and 500 MiB, and even the first one copies the value.
_SMALL, _LARGE = (1000, 64 * 1024), (20_000, 1 << 20)
#: What may be spent on telling all that is wrong, or the first thing, in parts: an error costs up to 0.2 ms.
_ALL, _ONE = 1500, 20_000
_SIZE = 1 << 16
#: Patterns take time that grows with the text alone; those with look-around, for which only the other kind will do, no
#: more than 200 steps back a character.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_SIZE)
_PATTERNS_BACK = jsonschema_rs.FancyRegexOptions(backtrack_limit=200, size_limit=_SIZE)


def _compiled(schema: dict[str, Any], back: bool, mask: str | None = None) -> jsonschema_rs.Validator:
    options = _PATTERNS_BACK if back else _PATTERNS
    return jsonschema_rs.validator_for(schema, retriever=_nowhere, pattern_options=options, mask=mask)


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
    leave the schema, patterns end after 200 steps back (what takes more does not match), what would take too much work
    is refused (`schema_cost.py`), and only of a small value all errors are told, each with the value in it; of a larger
    one the first.

    Raises:
        InvalidInput: it is no valid schema.
    """

    __slots__ = ("_back", "_schema", "_validator", "_work")

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema, self._back = schema, False
        self._work = Work(schema, back=False)
        try:
            self._validator = self._either()
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise InvalidInput(f"is no JSON Schema: {str(error).splitlines()[0]}") from None

    def _either(self) -> jsonschema_rs.Validator:
        try:
            return _compiled(self._schema, back=False)
        except (ValueError, jsonschema_rs.ValidationError):
            found = _compiled(self._schema, back=True)
        self._back, self._work = True, Work(self._schema, back=True)
        return found

    def wrong(self, value: Any) -> list[str]:
        """What is wrong with `value`, each as `field.path: why`; empty if it fits. Of a large one less."""
        if (work := self._work.of(value)) > MAX_WORK:
            return [
                f"checking it may take more than {MAX_WORK:,} steps; a smaller value, or a simpler schema, is needed"
            ]
        if self._validator.is_valid(value):
            return []
        if work > _ONE or not _is_within(value, *_LARGE):
            return [f"it does not fit the schema, and is too large to tell where (more than {_LARGE[0]:,} values)"]
        everything = work <= _ALL and _is_within(value, *_SMALL)
        errors = list(self._validator.iter_errors(value)) if everything else self._first(value)
        return [
            f"{'.'.join(map(str, error.instance_path))}: {error.message}" if error.instance_path else error.message
            for error in errors
        ]

    def _first(self, value: Any) -> list[jsonschema_rs.ValidationError]:
        try:
            _compiled(self._schema, self._back, mask="the value").validate(value)
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
