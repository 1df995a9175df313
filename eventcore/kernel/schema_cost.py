"""How much work a JSON Schema may make of a value at the most, told before it is done.

A schema of a hundred lines can ask for 2^50 checks of a single number: parts that are named twice by `$ref`, and again,
and again. So the work is bounded beforehand. A schema is a graph: its parts are joined by keywords that look at the
same value (`allOf`, `$ref`) and by keywords that go into it (`items`, `properties`). How often each part is come to at
one depth of the value follows from how often it is at the depth above; each value there costs no more than their sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from eventcore.kernel.errors import InvalidInput

#: Parts of one schema, patterns among them, and where counting ends. A part costs some 0.1 us at a value.
MAX_PARTS, MAX_PATTERNS, MAX_WORK = 2000, 200, 2_000_000
#: Values in a schema, aliases of YAML included, and `unevaluated...` among its keys: what it takes to read it.
_MAX_NODES, _MAX_UNEVALUATED = 20_000, 50
#: What a character costs with a pattern, in parts: 0.3 us at the worst, or 2 us where it may go back.
_CHARACTER, _CHARACTER_BACK = 3, 20
#: What is known to be fetched from nowhere: the drafts themselves.
_DRAFT, _PARTS_OF_A_DRAFT = ("http://json-schema.org/", "https://json-schema.org/"), 500
_SAME_ONE = ("not", "if", "then", "else")
_SAME_MANY = ("allOf", "anyOf", "oneOf")
_SAME_NAMED = ("dependentSchemas", "dependencies")
_INTO_ONE = ("items", "additionalItems", "contains", "propertyNames", "additionalProperties")
_INTO_NAMED = ("properties", "patternProperties")
_UNEVALUATED = ("unevaluatedItems", "unevaluatedProperties")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
#: To tell what is left, all that looks at the same value is looked at anew, at each level of it.
_AGAIN = 4


class Work:
    """The bound of one schema.

    Args:
        back: whether its patterns may go back, as those with look-around do.

    Raises:
        InvalidInput: it has too many parts, or names one by what is no path and no anchor in it.
    """

    def __init__(self, schema: Mapping[str, Any], *, back: bool) -> None:
        self._character = _CHARACTER_BACK if back else _CHARACTER
        self._root = schema
        self._parts: list[Any] = []
        self._place: dict[int, int] = {}
        self._same: list[list[tuple[int, int]]] = []
        self._into: list[list[int]] = []
        self._own: list[tuple[int, int]] = []
        self._anchors: dict[str, list[Any]] = {}
        self._patterns = 0
        self._find_anchors()
        self._add(schema)
        done = 0
        while done < len(self._parts):
            self._join(done)
            done += 1
        self._order = self._ordered()
        self._reached = {0: 1}
        #: By depth: what each value costs, and each character.
        self._levels: list[tuple[int, int]] = []
        #: What any value costs, where the schema looks neither into it nor at its characters, as many do not.
        self._whatever = 0
        if not any(self._into) and not self._level(0)[1]:
            self._whatever = self._level(0)[0]

    def of(self, value: Any) -> int:
        """The parts that `value` may be looked at with, at the most; where it is more than MAX_WORK, not how much."""
        if self._whatever:
            return self._whatever
        work, depth, level = 0, 0, [value]
        while level:
            a_value, a_character = self._level(depth)
            room, text = MAX_WORK - work, 0
            below: list[Any] = []
            if a_value == 0:  # nothing looks so deep
                return work
            if len(level) * a_value > room:
                return MAX_WORK + 1
            for one in level:
                if isinstance(one, str):
                    text += len(one)
                elif isinstance(one, dict):
                    text += sum(map(len, one)) if a_character else 0
                    below += one.values()
                elif isinstance(one, list | tuple):
                    below += one
            work += len(level) * a_value + text * a_character
            if work > MAX_WORK:
                return MAX_WORK + 1
            depth, level = depth + 1, below
        return work

    # -- the graph ---------------------------------------------------------------------------------------------------

    def _find_anchors(self) -> None:
        left: list[Any] = [self._root]
        nodes = unevaluated = 0
        while left:
            one = left.pop()
            nodes += 1
            if nodes + len(left) > _MAX_NODES or unevaluated > _MAX_UNEVALUATED:
                raise InvalidInput("is no JSON Schema that can be checked here: it is too large")
            if isinstance(one, dict):
                unevaluated += sum(name in one for name in _UNEVALUATED)
                if one is not self._root and isinstance(one.get("$id", one.get("id")), str):
                    raise InvalidInput("is no JSON Schema that can be checked here: a part of it has an $id of its own")
                for name in ("$anchor", "$dynamicAnchor"):
                    if isinstance(one.get(name), str):
                        self._anchors.setdefault(one[name], []).append(one)
                left += one.values()
            elif isinstance(one, list):
                left += one

    def _add(self, part: Any) -> int:
        if (found := self._place.get(id(part))) is not None:
            return found
        if len(self._parts) >= MAX_PARTS:
            raise InvalidInput(f"is no JSON Schema that can be checked here: it has more than {MAX_PARTS:,} parts")
        self._place[id(part)] = len(self._parts)
        self._parts.append(part)
        self._same.append([])
        self._into.append([])
        self._own.append((0, 0))
        return len(self._parts) - 1

    def _join(self, place: int) -> None:
        part = self._parts[place]
        if not isinstance(part, dict):
            self._own[place] = (1, 0)
            return
        again = _AGAIN if any(name in part for name in _UNEVALUATED) else 1
        self._same[place] = [(self._add(one), again) for one in self._same_value(part)]
        self._into[place] = [self._add(one) for one in _inner(part)]
        patterns = int("pattern" in part) + 2 * len(_named(part, "patternProperties"))
        self._patterns += patterns
        if self._patterns > MAX_PATTERNS:
            raise InvalidInput(f"is no JSON Schema that can be checked here: it has more than {MAX_PATTERNS} patterns")
        patterns += int("format" in part)  # some are patterns, and that of a pattern makes one
        a_draft = any(str(part.get(name, "")).startswith(_DRAFT) for name in _REFERENCES)
        # Names of properties and values of `enum` are compared one by one.
        compared = len(_list(part, "enum")) + len(_named(part, "properties")) + len(_list(part, "required"))
        self._own[place] = (1 + patterns + compared // 4 + (_PARTS_OF_A_DRAFT if a_draft else 0), patterns)

    def _same_value(self, part: dict[str, Any]) -> Iterator[Any]:
        yield from (part[name] for name in _SAME_ONE if isinstance(part.get(name), dict))
        for name in _SAME_MANY:
            yield from (one for one in _list(part, name) if isinstance(one, dict))
        for name in _SAME_NAMED:
            yield from (one for one in _named(part, name).values() if isinstance(one, dict))
        for name in _REFERENCES:
            if isinstance(part.get(name), str):
                yield from self._named_by(part[name], wherever=name != "$ref")

    def _named_by(self, reference: str, *, wherever: bool) -> list[Any]:
        found = list(self._anchors.get(reference.removeprefix("#"), []))
        own = str(self._root.get("$id", self._root.get("id", ""))).rstrip("#")
        text = reference.removeprefix(own) if own else reference
        if text in ("", "#"):
            found.append(self._root)
        elif text.startswith("#/"):
            found.append(self._at(text))
        elif text.startswith("#"):
            found += self._anchors.get(text[1:], [])
        elif text.startswith(_DRAFT):
            return found
        if wherever:  # whichever has the name, by how it was come to
            found += [self._root, *(one for many in self._anchors.values() for one in many)]
        if not found:
            raise InvalidInput(f"is no JSON Schema: {reference[:80]!r} is not in the schema, and nothing is fetched")
        return found

    def _at(self, pointer: str) -> Any:
        from_here: Any = self._root
        for step in pointer[2:].split("/"):
            name = _unquoted(step)
            try:
                from_here = from_here[int(name)] if isinstance(from_here, list) else from_here[name]
            except (LookupError, TypeError, ValueError):
                raise InvalidInput(f"is no JSON Schema: {pointer[:80]!r} is not in it") from None
        return from_here

    def _ordered(self) -> list[int] | None:
        """The parts, each before those that it joins at the same value; None if they go round without an end."""
        waiting = [0] * len(self._parts)
        for row in self._same:
            for target, _ in row:
                waiting[target] += 1
        ready = [place for place, count in enumerate(waiting) if not count]
        for place in ready:
            for target, _ in self._same[place]:
                waiting[target] -= 1
                if not waiting[target]:
                    ready.append(target)
        return ready if len(ready) == len(self._parts) else None

    # -- how often ---------------------------------------------------------------------------------------------------

    def _level(self, depth: int) -> tuple[int, int]:
        while len(self._levels) <= depth:
            self._levels.append(self._next_level())
        return self._levels[depth]

    def _next_level(self) -> tuple[int, int]:
        if self._order is None:
            return MAX_WORK + 1, MAX_WORK
        reached, below = self._reached, dict[int, int]()
        a_value = a_pattern = 0
        for place in self._order:
            times = reached.get(place)
            if not times:
                continue
            parts, patterns = self._own[place]
            a_value, a_pattern = a_value + times * parts, a_pattern + times * patterns
            for target, again in self._same[place]:
                reached[target] = min(reached.get(target, 0) + times * again, MAX_WORK)
            for target in self._into[place]:
                below[target] = min(below.get(target, 0) + times, MAX_WORK)
        self._reached = below
        return min(a_value, MAX_WORK + 1), min(a_pattern * self._character, MAX_WORK)


def _list(part: dict[str, Any], name: str) -> list[Any]:
    found = part.get(name)
    return found if isinstance(found, list) else []


def _named(part: dict[str, Any], name: str) -> dict[str, Any]:
    found = part.get(name)
    return found if isinstance(found, dict) else {}


def _inner(part: dict[str, Any]) -> Iterator[Any]:
    """What goes into the value."""
    yield from (part[name] for name in (*_INTO_ONE, *_UNEVALUATED) if isinstance(part.get(name), dict))
    for name in ("items", "prefixItems"):
        yield from (one for one in _list(part, name) if isinstance(one, dict))
    for name in _INTO_NAMED:
        yield from (one for one in _named(part, name).values() if isinstance(one, dict))


def _unquoted(step: str) -> str:
    return unquote(step).replace("~1", "/").replace("~0", "~")
