"""Filters and tests that could amplify, or that could be applied again and again: bounded before they allocate.

What they may make and look through is one budget for each evaluation; see `expressions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from jinja2 import Undefined, pass_context, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context

from eventcore.kernel.json import encode

#: The largest result, in characters and list items, nested ones included.
MAX_SIZE = 1 << 20
#: How many characters and list items one evaluation may make, or look through again and again.
BUDGET = 2 * MAX_SIZE
#: How often filters and tests may be applied to single items in one evaluation: each time costs 10 us and more.
MAX_APPLIED = 100_000
#: What a filter or method that goes through a text once draws on the budget: 1 for so many characters.
PASSED = 8
_MAX_DIGITS = 1000


class Budget(Protocol):
    """The environment of an evaluation, which keeps its budget."""

    def charge(self, amount: int) -> None:
        """Draw on it; raises SecurityError when it is used up."""

    def apply(self) -> None:
        """Count a filter or test of one item; raises SecurityError when there were too many."""


_NESTED = frozenset({list, tuple, dict})


def size_of(value: Any) -> int:
    """Characters and list items in it, nested ones as often as they are there; no more than it takes to be too much."""
    if isinstance(value, str):
        return len(value)
    total, stack = 0, [value] if isinstance(value, list | tuple | dict) else []
    while stack and total <= BUDGET:
        one = stack.pop()
        total += len(one)
        if total > BUDGET:
            break
        for item in one.values() if isinstance(one, dict) else one:
            kind = type(item)  # plain JSON has no subclasses, and this runs a million times for the largest values
            if kind is str:
                total += len(item)
            elif kind in _NESTED:
                stack.append(item)
    return total


def check_json(value: Any) -> None:
    """Raises SecurityError unless the value is plain JSON of at most MAX_SIZE."""
    stack = [value]
    if size_of(value) > MAX_SIZE:
        raise SecurityError(f"the result is larger than {MAX_SIZE:,}")
    while stack:
        one = stack.pop()
        if isinstance(one, list | tuple | dict):
            stack.extend(one.values() if isinstance(one, dict) else one)
        elif isinstance(one, Undefined):
            raise SecurityError("the result holds a value that is not defined")
        elif not isinstance(one, str | int | float | None):
            raise SecurityError(f"the result holds a {type(one).__name__}; end with `| list` to get a list")


@pass_environment
def _replace(environment: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    text, old, new = str(text), str(old), str(new)
    times = text.count(old) if count < 0 else min(count, text.count(old))
    environment.charge(len(text) + times * len(new))
    return text.replace(old, new, count)


@pass_environment
def _join(environment: Budget, items: Any, separator: str = "", attribute: str | None = None) -> str:
    parts: list[str] = []
    for item in items:
        part = item.get(attribute) if attribute and isinstance(item, dict) else item
        environment.charge(size_of(part) + len(separator) + 1)
        parts.append(str(part))
    return separator.join(parts)


@pass_context
def _map(context: Context, items: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    environment = cast(Budget, context.environment)
    for item in FILTERS["map"](context, _counted(environment, items), *args, **kwargs):
        environment.charge(size_of(item) + 1)
        yield item


def _counted(environment: Budget, items: Any) -> Iterator[Any]:
    for item in items:
        environment.apply()
        yield item


def _itemwise(name: str) -> Callable[..., Any]:
    """Jinja's filter, with its items counted."""
    plain = FILTERS[name]

    @pass_context
    def call(context: Context, items: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(context, _counted(cast(Budget, context.environment), items), *args, **kwargs)

    return call


def _charged(plain: Callable[..., Any], share: int) -> Callable[..., Any]:
    """A filter that pays for what it goes through: one can be put after the other, hundreds of times."""

    def call(environment: Budget, value: Any, *args: Any, **kwargs: Any) -> Any:
        environment.charge(length_of(value) // share)
        return plain(environment, value, *args, **kwargs)

    if getattr(plain, "jinja_pass_arg", None) is not None:  # it takes the environment itself
        return pass_environment(call)

    def without(environment: Budget, value: Any, *args: Any, **kwargs: Any) -> Any:
        environment.charge(length_of(value) // share)
        return plain(value, *args, **kwargs)

    return pass_environment(without)


def length_of(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _sum(items: Any, attribute: str | int | None = None, start: float = 0) -> Any:
    numbers = [item[attribute] if attribute is not None else item for item in items]
    for number in (start, *numbers):
        if not isinstance(number, int | float):
            raise SecurityError(f"sum adds numbers, not a {type(number).__name__}")
    return sum(numbers, start)


def _int(value: Any, default: int = 0, base: int = 10) -> Any:
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        raise SecurityError(f"a number of more than {_MAX_DIGITS:,} digits")
    return FILTERS["int"](value, default, base)


def _round(value: float, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > 100:
        raise SecurityError("round works with a precision of at most 100")
    return FILTERS["round"](value, precision, method)


@pass_environment
def _tojson(environment: Budget, value: Any) -> str:
    # Jinja's own gives `Markup`, which escapes whatever text it is put together with.
    check_json(value)
    text = encode(value).decode()
    environment.charge(len(text))
    return text


def _trim(text: Any, chars: str | None = None) -> str:
    check_trimmed(chars)
    return str(text).strip(chars)


def check_trimmed(chars: str | None = None) -> None:
    # Python looks through `chars` for every character that it takes away.
    if chars is not None and len(chars) > 100:
        raise SecurityError("at most 100 characters can be trimmed")


@pass_environment
def contains(environment: Budget, value: Any, container: Any) -> bool:
    environment.charge(len(container))
    return value in container


def bounded() -> dict[str, Callable[..., Any]]:
    """The filters to put in place of Jinja's own, by name."""
    found: dict[str, Callable[..., Any]] = {
        "replace": _replace,
        "join": _join,
        "map": _map,
        "int": _int,
        "round": _round,
        "tojson": _tojson,
        "json": _tojson,
        "sum": _charged(_sum, 1),
        "trim": _charged(_trim, PASSED),
    }
    found |= {name: _itemwise(name) for name in ("select", "selectattr", "reject", "rejectattr")}
    found |= {name: _charged(FILTERS[name], 1) for name in ("sort", "unique", "dictsort", "min", "max")}
    once = ("capitalize", "items", "lower", "reverse", "string", "title", "truncate", "upper", "wordcount")
    return found | {name: _charged(FILTERS[name], PASSED) for name in once}
