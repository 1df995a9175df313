"""What a query matches, for backends that look at rows in Python, and the text search that all share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.event import Event
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import pattern
from eventcore.kernel.records import EventQuery

#: No page is longer than this, whatever a query asks for.
MAX_PAGE = 10_000

#: A word as it stands in plain text, and as it stands inside a JSON string; both case folded.
Word: TypeAlias = tuple[str, str]


def page_size(limit: int) -> int:
    """The limit of a query, within 0 ... `MAX_PAGE`."""
    return max(0, min(limit, MAX_PAGE))


def words_of(text: str | None) -> list[Word]:
    """The words of a search text. A quote or backslash in a word is found in payloads in its escaped form."""
    return [(word, encode(word)[1:-1].decode()) for word in (text or "").casefold().split()]


def holds_words(words: list[Word], plain: str, raw: bytes) -> bool:
    """Whether each word stands in the plain text or in the JSON document `raw`, case folded as Unicode defines it."""
    plain = plain.casefold()
    document = raw.decode(errors="replace").casefold()
    return all(word in plain or escaped in document for word, escaped in words)


def plain_text(type_: str, subject: str | None, actor: str) -> str:
    """What of an event is searched besides its payload."""
    return f"{type_}\n{subject or ''}\n{actor}"


def matcher(query: EventQuery) -> Callable[[Event], bool]:
    """A test for all conditions of a query but positions, order and limit.

    Raises:
        InvalidName: the query's pattern is none.
    """
    tests: list[Callable[[Event], bool]] = []
    if query.types:
        types = frozenset(query.types)
        tests.append(lambda event: event.type in types)
    if query.pattern is not None:
        regex = pattern(query.pattern)
        tests.append(lambda event: regex.fullmatch(event.type) is not None)
    exact = {name: getattr(query, name) for name in ("tenant", "source", "subject", "actor", "run", "correlation_id")}
    tests += [_equals(name, wanted) for name, wanted in exact.items() if wanted is not None]
    if (since := query.since) is not None:
        tests.append(lambda event: event.at >= since)
    if (until := query.until) is not None:
        tests.append(lambda event: event.at < until)
    if query.where:
        fits = where_test(query.where)
        tests.append(lambda event: fits(event.raw))
    if words := words_of(query.text):
        tests.append(lambda e: holds_words(words, plain_text(e.type, e.subject, e.actor), e.raw))
    return lambda event: all(test(event) for test in tests)


def _equals(name: str, wanted: str) -> Callable[[Event], bool]:
    return lambda event: getattr(event, name) == wanted


_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]")
_MISSING = object()


def where_test(pairs: Iterable[tuple[str, bytes]]) -> Callable[[bytes], bool]:
    """A test of payloads: whether each path leads to a value equal to the given JSON.

    Raises:
        InvalidInput: a path does not begin with `data`, or is none.
    """
    wanted = [(_steps(path), decode(raw, what=path)) for path, raw in pairs]

    def test(raw: bytes) -> bool:
        data = decode(raw)
        return all(_same(_at(data, steps), value) for steps, value in wanted)

    return test


def _steps(path: str) -> tuple[str, ...]:
    rest = path.removeprefix("data")
    steps = [name or index for name, index in _STEP.findall(rest)]
    if not path.startswith("data") or "".join(m[0] for m in _STEP.finditer(rest)) != rest:
        raise InvalidInput(f"{path!r:.80} is no path into the data", hint="write data.items[0].sku=VALUE")
    return tuple(steps)


def _at(value: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step, _MISSING)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def _same(found: Any, wanted: Any) -> bool:
    # In JSON true is not 1, though Python says it is.
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)


def status_of(raw: bytes) -> str | None:
    """The `status` of a payload that has one."""
    status = _at(decode(raw), ("status",)) if b'"status"' in raw else None
    return status if isinstance(status, str) else None


def matches_one(patterns: Iterable[str], type_: str) -> bool:
    """Whether a type matches one of the patterns."""
    return any(pattern(text).fullmatch(type_) for text in patterns)


def span_of(query: EventQuery, length: int) -> range:
    """The indexes between a query's positions."""
    start = max(0, query.after or 0)
    return range(start, length if query.before is None else max(start, min(query.before - 1, length)))
