"""How one key of a manifest is checked and where its value goes.

A vocabulary maps each key that a table may hold to its check. Walking a table runs the checks of the keys that are
there, so a manifest costs what it says, not what it might have said. All problems are collected; nothing stops at the
first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from eventcore.kernel.documents import Document, Path
from eventcore.kernel.errors import EventCoreError, Problem
from eventcore.kernel.names import did_you_mean

#: Checks the value at a path and puts it where it belongs.
Check: TypeAlias = Callable[["Reader", Path, Any], None]
Vocabulary: TypeAlias = Mapping[str, Check]


class Reader:
    """What has been read of one manifest so far.

    Attributes:
        fields: arguments for `PluginManifest`.
        limits, sandbox, monitoring: arguments for its parts.
        problems, warnings: what is wrong, in the order of the text.
    """

    __slots__ = ("declared", "document", "extra", "fields", "limits", "monitoring", "problems", "sandbox", "warnings")

    def __init__(self, document: Document) -> None:
        self.document = document
        self.fields: dict[str, Any] = {}
        self.limits: dict[str, float] = {}
        self.sandbox: dict[str, Any] = {}
        self.monitoring: dict[str, Any] = {}
        self.declared: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, path: Path, message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def warn(self, path: Path, message: str) -> None:
        self.warnings.append(self.document.problem(path, message, warning=True))

    def missing(self, path: Path, key: str, table: Mapping[str, Any], vocabulary: Collection[str] = ()) -> None:
        """`key` is required in the table at `path`; a misspelling of it is pointed out."""
        unknown = [word for word in table if word not in vocabulary]
        close = difflib.get_close_matches(key, unknown, n=1, cutoff=0.75)
        self.error(path, f"{key} is required" + (f"; {close[0]!r} may be a misspelling of it" if close else ""))

    def walk(self, table: Mapping[str, Any], vocabulary: Vocabulary, path: Path) -> None:
        """Run the check of every key; keep the keys that have none."""
        fields = self.fields
        for key, value in table.items():
            check = vocabulary.get(key)
            if check is None:
                self._unknown(key, value, vocabulary, path)
            elif (plain := _PLAIN.get(check)) is not None and type(value) is plain[0] and (value or plain[2]):
                fields[plain[1]] = value  # nothing more to check: this is the inner loop
            else:
                check(self, path + (key,), value)  # noqa: RUF005 - twice as fast

    def _unknown(self, key: str, value: Any, vocabulary: Vocabulary, path: Path) -> None:
        self.extra[".".join(str(part) for part in (*path, key))] = value
        if meant := misspelt(key, tuple(vocabulary)):
            self.warn((*path, key), f"is not a key that anything reads; did you mean {meant!r}?")

    def text(self, path: Path, value: Any) -> bool:
        if type(value) is str and value.strip():
            return True
        hint = f'; write it in quotes, "{value}"' if type(value) in (int, float) else ""
        self.error(path, ("must not be empty" if value == "" else "must be text") + hint)
        return False

    def texts(self, path: Path, value: Any) -> tuple[str, ...] | None:
        if type(value) is not list:
            self.error(path, "must be a list of text")
            return None
        for item in value:
            if type(item) is not str or not item:
                break
        else:
            return tuple(value)
        for index, item in enumerate(value):
            if type(item) is not str or not item:
                self.text((*path, index), item)
        return None

    def add(self, field: str, items: tuple[Any, ...]) -> None:
        """Append what is new to a field that holds a tuple."""
        if before := self.fields.get(field):
            items = (*before, *(item for item in items if item not in before))
        self.fields[field] = items

    def table(self, path: Path, value: Any) -> bool:
        if type(value) is dict:
            return True
        self.error(path, "must be a table of keys and values")
        return False


@lru_cache(maxsize=2048)
def misspelt(word: str, known: tuple[str, ...]) -> str | None:
    """The known word that `word` is most likely a misspelling of; only near misses count."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
    return found[0] if found else None


# Makers of checks

#: Checks that are content with every value of one type: the type, the field, and whether the value may be empty.
_PLAIN: dict[Check, tuple[type, str, bool]] = {}


def _plainly(check: Check, kind: type, field: str, *, empty: bool) -> Check:
    _PLAIN[check] = (kind, field, empty)
    return check


def text(field: str) -> Check:
    """Text that is not empty."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if reader.text(path, value):
            reader.fields[field] = value

    return _plainly(check, str, field, empty=False)


def prose(field: str) -> Check:
    """Text that may be empty."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if type(value) is str or reader.text(path, value):
            reader.fields[field] = value

    return _plainly(check, str, field, empty=True)


def matching(field: str, pattern: str, what: str) -> Check:
    """Text of a form; `what` ends the sentence "must be"."""
    compiled = re.compile(pattern)

    def check(reader: Reader, path: Path, value: Any) -> None:
        if type(value) is str and compiled.fullmatch(value):
            reader.fields[field] = value
        elif reader.text(path, value):
            reader.error(path, f"must be {what}, not {value[:80]!r}")

    return check


def one_of(field: str, *words: str) -> Check:
    """One of some words."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if value in words if type(value) is str else False:
            reader.fields[field] = value
        elif reader.text(path, value):
            reader.error(path, f"must be one of {', '.join(words)}{did_you_mean(value, words)}")

    return check


def named(field: str, make: Callable[[str], str]) -> Check:
    """Text that a naming rule of the kernel accepts."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if reader.text(path, value):
            try:
                reader.fields[field] = make(value)
            except EventCoreError as error:
                reader.error(path, str(error))

    return check


def flag(field: str) -> Check:
    """True or false."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if value is True or value is False:
            reader.fields[field] = value
        else:
            reader.error(path, "must be true or false")

    return _plainly(check, bool, field, empty=True)


def texts(field: str) -> Check:
    """A list of text. Several keys may feed one field; what is there already stays in front."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if (items := reader.texts(path, value)) is not None:
            reader.add(field, items)

    return check


def limit(field: str) -> Check:
    """A number above 0. Of several limits on one thing the strictest holds."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if type(value) not in (int, float):
            reader.error(path, "must be a number")
        elif value <= 0:
            reader.error(path, "must be more than 0")
        else:
            reader.limits[field] = min(value, reader.limits.get(field, value))

    return check


def schema(field: str) -> Check:
    """A JSON Schema of an object, kept as it is."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if reader.table(path, value):
            if value.get("type", "object") != "object":
                reader.error((*path, "type"), "must be object")
            reader.fields[field] = value

    return check


def block(vocabulary: Vocabulary) -> Check:
    """A table whose keys have checks of their own."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if reader.table(path, value):
            reader.walk(value, vocabulary, path)

    return check


def ignore(reader: Reader, path: Path, value: Any) -> None:
    """A key that another check has dealt with."""
