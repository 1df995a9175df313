"""Payload filters: a function of the event, or a mapping from dotted paths to the values that must stand there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypedDict

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.names import is_literal

Where: TypeAlias = Callable[[Event], bool] | Mapping[str, Any]

#: What of an event a path may begin with.
_FIELDS = frozenset(
    {"id", "type", "source", "subject", "tenant", "actor", "data", "key", "run", "correlation_id", "causation_id"}
)
_MISSING = object()


def as_filter(where: Where | None) -> Callable[[Event], bool] | None:
    """`where` as a function of the event; None for everything.

    A mapping holds for an event where every path leads to an equal value: `{"data.order.amount": 5, "key": "a"}`. A
    number in a path is an index of a list. A path that leads nowhere equals nothing, not even None. True is not 1.

    Raises:
        InvalidInput: it is neither, or a path does not begin with a field of events.
    """
    if where is None or callable(where):
        return where
    if not isinstance(where, Mapping):
        raise InvalidInput(f"where is a function of the event or a mapping of paths to values, not {where!r:.60}")
    wanted = []
    for path, value in where.items():
        head, *rest = str(path).split(".")
        if head not in _FIELDS or (rest and head != "data"):
            raise InvalidInput(
                f"the path {path!r} leads to nothing in an event",
                hint="data.amount, or one of " + ", ".join(sorted(_FIELDS)),
            )
        wanted.append((head, tuple(rest), value))
    if not wanted:
        return None
    return lambda event: all(_same(_at(getattr(event, head), rest), value) for head, rest, value in wanted)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part, _MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _MISSING
    return value


def _same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)


class Selection(TypedDict):
    """The conditions of an `EventQuery` that select a pattern."""

    types: tuple[str, ...]
    pattern: str | None


def selects(pattern: str) -> Selection:
    """How a query asks for the events of a pattern: by type where it is one, which the store has an index for."""
    literal = is_literal(pattern)
    return {"types": (pattern,) if literal else (), "pattern": None if literal or pattern == "**" else pattern}
