"""Where a definition puts secrets into what a step is given, and what stands there until the step is called.

`{{ secrets.token }}` comes to the mark `{"$secret": "token"}`, and with text around it, as in
`Bearer {{ secrets.token }}`, to `{"$secret": ["Bearer ", {"$secret": "token"}, ""]}`. Marks are stored in place of the
values. What is filled in, and where, is told by the definition alone: a mark that comes with data, with an event for
one, is data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from eventcore.kernel.documents import Path

MARK = "$secret"
_SECRET = re.compile(r"\{\{\s*secrets\.(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Place:
    """One text with secrets in it.

    Attributes:
        path: where it is in what the step is given.
        parts: its parts in their order: names of secrets, and None for the text between them.
    """

    path: Path
    parts: tuple[str | None, ...]


def marked(source: Any, at: Path = ()) -> tuple[Any, tuple[Place, ...]]:
    """What a step is given, as it is to be evaluated, and where in it secrets stand.

    Args:
        source: as the definition has it.
        at: where that is.
    """
    if isinstance(source, str):
        return _marked_text(source, at)
    if not isinstance(source, dict | list):
        return source, ()
    pairs = source.items() if isinstance(source, dict) else enumerate(source)
    found = {key: marked(value, (*at, key)) for key, value in pairs}
    places = tuple(place for _, inner in found.values() for place in inner)
    values = {key: value for key, (value, _) in found.items()}
    return (values if isinstance(source, dict) else [*values.values()]), places


def _marked_text(source: str, at: Path) -> tuple[Any, tuple[Place, ...]]:
    if alone := _SECRET.fullmatch(source.strip()):
        return source, (Place(at, (alone[1],)),)
    texts, names, end = list[str](), list[str | None](), 0
    for one in _SECRET.finditer(source):
        texts += [source[end : one.start()], one[0]]
        names += [None, one[1]]
        end = one.end()
    if not names:
        return source, ()
    return {MARK: [*texts, source[end:]]}, (Place(at, (*names, None)),)


def names_of(places: Iterable[Place]) -> frozenset[str]:
    """The secrets in them."""
    return frozenset(name for place in places for name in place.parts if name is not None)


def filled(value: Any, places: Iterable[Place], look_up: Callable[[str], str]) -> Any:
    """A copy of the value with secrets in these places.

    Args:
        value: what `marked` has made, evaluated.
        look_up: the value of a secret; may raise.
    """
    for place in places:
        value = _with(value, place.path, place.parts, look_up)
    return value


def _with(value: Any, path: Path, parts: tuple[str | None, ...], look_up: Callable[[str], str]) -> Any:
    if path:
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        copy[path[0]] = _with(value[path[0]], path[1:], parts, look_up)
        return copy
    texts = value[MARK] if len(parts) > 1 else parts
    return "".join(str(text) if name is None else look_up(name) for text, name in zip(texts, parts, strict=True))
