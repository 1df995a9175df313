"""Text documents as values with line numbers: JSON (RFC 8259), YAML 1.2 (core schema) and TOML 1.0.

What comes out is made of dict with text keys, list, str, int (64 bit), finite float, bool and None, whatever the
format; a TOML date comes out as its ISO text. Duplicate keys are errors in every format. Lines are looked for only when
somebody asks, which is when something is wrong: the good case pays for one parse.

YAML is read from the event stream of PyYAML's C parser, not from its constructors: those follow YAML 1.1, where `on`,
`yes` and `no` are booleans, they let duplicate keys pass, and aliases can expand without bound. The scalar rules are
those of chapter 10.3.2 of the YAML 1.2.2 specification, less the floats that JSON cannot hold.
"""

from __future__ import annotations

import datetime
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

import orjson
import yaml

from eventcore.kernel.errors import InvalidFile, Problem

Format: TypeAlias = Literal["json", "yaml", "toml"]
Path: TypeAlias = tuple[str | int, ...]

#: The largest document, in bytes of UTF-8.
MAX_BYTES = 1024 * 1024
#: How deep lists and tables may nest.
MAX_DEPTH = 100
#: How many values a YAML document may hold once its aliases are expanded.
MAX_NODES = 100_000

FORMATS: dict[str, Format] = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Document:
    """A parsed text.

    Attributes:
        value: what it says.
        file: how problems name it.
    """

    __slots__ = ("_columns", "_error", "_format", "_lines", "_text", "file", "value")

    def __init__(self, value: Any, text: str, file: str, format: Format, error: type[InvalidFile]) -> None:
        self.value, self.file = value, file
        self._text, self._format, self._error = text, format, error
        self._lines: dict[Path, int] | None = None
        self._columns: dict[Path, int] | None = None

    def line(self, path: Path = ()) -> int | None:
        """The 1-based line of the key or list item at `path`.

        Of a path that is not there, the line of what should have held it; None if the document is empty. The lines
        inside an alias are those of the place where it is used; inside a TOML value, those of its key.
        """
        if self._lines is None:
            self._lines = self._find_lines()
        while path not in self._lines and path:
            path = path[:-1]
        return self._lines.get(path)

    def column(self, path: Path) -> int | None:
        """The 1-based column of the key or list item at `path`, in YAML; as `line` does of one that is not there."""
        if self._format != "yaml":
            return None
        if self._columns is None:
            self._columns = self._read_again().columns
        while path not in self._columns and path:
            path = path[:-1]
        return self._columns.get(path)

    def problem(self, path: Path, message: str, *, warning: bool = False) -> Problem:
        """A `Problem` at `path`."""
        return Problem(self.file, self.line(path), dotted(path), message, warning=warning)

    def _find_lines(self) -> dict[Path, int]:
        if self._format == "json":
            return _JsonScan(self._text).lines
        if self._format == "toml":
            return _toml_lines(self._text)
        return self._read_again().lines or {}

    def _read_again(self) -> _YamlBuilder:
        builder = _YamlBuilder(self.file, self._error, lines={})
        builder.read(self._text)
        return builder


def parse(
    text: str | bytes,
    file: str,
    format: Format,
    *,
    error: type[InvalidFile] = InvalidFile,
) -> Document:
    """Read a document.

    Args:
        text: the text, or its UTF-8 bytes; a byte order mark is skipped. An empty YAML document is None, an empty TOML
            document an empty table.
        file: how error messages name it.
        format: `json`, `yaml` or `toml`.
        error: which kind of `InvalidFile` to raise.

    Raises:
        InvalidFile: or the subclass given; with the line where it is known.
    """
    text = _decode(text, file, error)
    if format == "json":
        value = _parse_json(text, file, error)
    elif format == "yaml":
        value = _YamlBuilder(file, error).read(text)
    else:
        value = _parse_toml(text, file, error)
    return Document(value, text, file, format, error)


def dotted(path: Path) -> str:
    """`("steps", 0, "with")` as `steps[0].with`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _decode(text: str | bytes, file: str, error: type[InvalidFile]) -> str:
    # A character is one to four bytes: only near the limit is it worth counting.
    size = len(text) if isinstance(text, bytes) or len(text) * 4 <= MAX_BYTES else len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        _fail(error, file, None, f"is larger than {MAX_BYTES // 1024} KiB")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as why:
        _fail(error, file, text[: why.start].count(b"\n") + 1, "is not UTF-8 text")


def _fail(error: type[InvalidFile], file: str, line: int | None, message: str, key: str = "") -> NoReturn:
    raise error([Problem(file, line, key, message)])


# JSON

#: Every key of a document matches once; a string that ends in an escaped quote and a colon may match as well.
_JSON_KEY = re.compile(r'"\s*:')
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def _parse_json(text: str, file: str, error: type[InvalidFile]) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as why:
        if "depth limit" in why.msg:
            _fail(error, file, None, f"is nested deeper than {MAX_DEPTH} levels")
        _fail(error, file, why.lineno, f"is not JSON: {why.msg.split(': line ')[0]} (column {why.colno})")
    if text.count("{") + text.count("[") > MAX_DEPTH and _count_keys(value, 1) < 0:
        _fail(error, file, None, f"is nested deeper than {MAX_DEPTH} levels")
    if _may_repeat(text, value) and (twice := _JsonScan(text).duplicates):
        raise error([Problem(file, line, dotted(path), "is given twice") for path, line in twice])
    return value


def _may_repeat(text: str, value: Any) -> bool:
    """Whether a key may stand twice in one table; False is certain.

    orjson keeps the last of two equal keys, so the other one's quotes are missing from the value. Without escapes,
    quotes can be counted; with them, keys are.
    """
    if "\\" not in text:
        return text.count('"') != orjson.dumps(value).count(b'"')
    return len(_JSON_KEY.findall(text)) != _count_keys(value, 1)


def _count_keys(value: Any, depth: int) -> int:
    """How many keys there are in all tables of `value`; -1 if it is nested too deeply."""
    if depth > MAX_DEPTH:
        return -1
    count, items = 0, value
    if isinstance(value, dict):
        count, items = len(value), value.values()
    elif not isinstance(value, list):
        return 0
    for item in items:
        if type(item) is dict or type(item) is list:
            inner = _count_keys(item, depth + 1)
            if inner < 0:
                return -1
            count += inner
    return count


class _JsonScan:
    """Where everything stands in a text that is known to be JSON, and which keys stand there twice."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self.duplicates: list[tuple[Path, int]] = []
        self._stack: list[_Frame] = []
        line, seen = 1, 0
        for match in _JSON_TOKEN.finditer(text):
            line += text.count("\n", seen, match.start())
            seen = match.start()
            self._token(match[0], line)

    def _token(self, piece: str, line: int) -> None:
        frame = self._stack[-1] if self._stack else None
        if piece == ":":
            return
        if piece in "}]":
            self._stack.pop()
        elif piece == ",":
            if frame is not None:
                frame.next()
        elif frame is not None and frame.wants_key:
            self._key(frame, orjson.loads(piece), line)
        else:
            self.lines.setdefault(self._path(), line)
            if piece in "{[":
                self._stack.append(_Frame(is_table=piece == "{"))

    def _key(self, frame: _Frame, key: str, line: int) -> None:
        frame.key = key
        path = self._path()
        if path in self.lines:
            self.duplicates.append((path, line))
        self.lines[path] = line

    def _path(self) -> Path:
        return tuple(frame.place for frame in self._stack)


@dataclass(slots=True)
class _Frame:
    """A list or table that is being read."""

    is_table: bool
    key: str | None = None
    index: int = 0

    @property
    def wants_key(self) -> bool:
        return self.is_table and self.key is None

    @property
    def place(self) -> str | int:
        return (self.key or "") if self.is_table else self.index

    def next(self) -> None:
        self.key = None
        self.index += 1


# YAML

_YAML_TAG = "tag:yaml.org,2002:"
_YAML_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_YAML_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_YAML_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_YAML_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
#: What a tag may turn a scalar into, and what has to come of it.
_YAML_SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(slots=True)
class _Node:
    """A list or table under construction, or an anchored value.

    Attributes:
        size: how many values it holds, itself included.
        height: how many levels it holds, itself included; 0 for a scalar.
    """

    value: Any
    anchor: str | None = None
    key: str | None = None
    has_key: bool = False
    size: int = 1
    height: int = 1


class _YamlBuilder:
    """Builds the value from parser events, without recursion, so that depth is ours to bound."""

    def __init__(self, file: str, error: type[InvalidFile], lines: dict[Path, int] | None = None) -> None:
        self.lines, self.columns = lines, dict[Path, int]()
        self._file, self._error = file, error
        self._stack: list[_Node] = []
        self._anchors: dict[str, _Node] = {}
        self._nodes = 0
        self._documents = 0
        self._root: Any = None
        self._line = self._column = 1

    def read(self, text: str) -> Any:
        try:
            for event in self._events(text):
                self._take(event)
        except yaml.MarkedYAMLError as why:
            self._not_yaml(text, why)
        except yaml.reader.ReaderError as why:
            self._fail(f"is not YAML: {why.reason}", text.count("\n", 0, why.position) + 1)
        except UnicodeError:
            self._fail("holds a lone surrogate, which is not text")
        return self._root

    def _not_yaml(self, text: str, why: yaml.MarkedYAMLError) -> NoReturn:
        mark, reason = why.problem_mark or why.context_mark, why.problem or why.context
        if mark is None:
            self._fail(f"is not YAML: {reason}")
        line = "".join(text.split("\n")[mark.line : mark.line + 1])
        if "\t" in line[: mark.column + 1] and not line[: mark.column].strip(" \t-"):
            reason = "a tab at the beginning of a line; use spaces"
        raise self._error([Problem(self._file, mark.line + 1, "", f"is not YAML: {reason}", column=mark.column + 1)])

    @staticmethod
    def _events(text: str) -> Iterator[Any]:
        yield from yaml.parse(text, Loader=_LOADER)

    def _take(self, event: Any) -> None:
        self._line, self._column = event.start_mark.line + 1, event.start_mark.column + 1
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._open(event, {}, "map")
            case yaml.SequenceStartEvent():
                self._open(event, [], "seq")
            case yaml.CollectionEndEvent():
                self._close()
            case yaml.AliasEvent():
                self._alias(event.anchor or "")
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._fail("holds more than one document; keep the first and move the rest to files of their own")
            case _:
                pass

    def _scalar(self, event: Any) -> None:
        self._count(1)
        value = self._resolve(event)
        if event.anchor:
            self._anchors[event.anchor] = _Node(value, height=0)
        self._put(value, 1, 0)

    def _resolve(self, event: Any) -> Any:
        text, tag = event.value, event.tag
        if tag is None:
            return self._plain(text) if event.implicit[0] else text
        if tag in ("!", f"{_YAML_TAG}str"):
            return text
        wanted = _YAML_SCALAR_TAGS.get(tag.removeprefix(_YAML_TAG)) if tag.startswith(_YAML_TAG) else None
        if wanted is None:
            self._fail(f"the tag {tag!r} is not allowed; leave it out")
        value = self._plain(text)
        if type(value) not in wanted:
            self._fail(f"{text!r} is no {tag.removeprefix(_YAML_TAG)}")
        return float(value) if tag.endswith("float") else value

    def _plain(self, text: str) -> Any:
        if text in _YAML_CONSTANTS:
            return _YAML_CONSTANTS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _YAML_INT.fullmatch(text):
            return self._integer(text)
        if _YAML_FLOAT.fullmatch(text):
            if math.isfinite(number := float(text)):
                return number
            self._fail(f"{text} is too large a number")
        if _YAML_NOT_FINITE.fullmatch(text):
            self._fail(f"{text} is no number that JSON can hold; quote it to make it text")
        return text

    def _integer(self, text: str) -> int:
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        # The length first: turning a very long text into a number takes quadratic time.
        if len(text) > 100 or not -(2**63) <= (number := int(text, base)) < 2**64:
            self._fail("the number does not fit 64 bits; quote it to make it text")
        return number

    def _open(self, event: Any, value: Any, kind: str) -> None:
        self._count(1)
        if event.tag not in (None, "!", f"{_YAML_TAG}{kind}"):
            self._fail(f"the tag {event.tag!r} is not allowed; leave it out")
        if self._wants_key():
            self._fail("a key must be text, not a list or table")
        self._limit_depth(1)
        self._mark()
        node = _Node(value, event.anchor)
        if event.anchor:
            self._anchors[event.anchor] = node
        self._stack.append(node)

    def _close(self) -> None:
        node = self._stack.pop()
        node.anchor = None
        self._put(node.value, node.size, node.height, marked=True)

    def _alias(self, name: str) -> None:
        node = self._anchors.get(name)
        if node is None:
            self._fail(f"the alias *{name} has no anchor &{name} above it")
        if node.anchor is not None:
            self._fail(f"the alias *{name} stands inside what it names")
        self._count(node.size)
        self._limit_depth(node.height)
        # A copy: whoever changes one place of the document must not change the others.
        self._put(_copy(node.value), node.size, node.height)

    def _put(self, value: Any, size: int, height: int, *, marked: bool = False) -> None:
        if not self._stack:
            self._root = value
            self._mark()
            return
        if self._wants_key():
            self._key(value)
            return
        if not marked:
            self._mark()
        parent = self._stack[-1]
        parent.size += size
        parent.height = max(parent.height, height + 1)
        if isinstance(parent.value, list):
            parent.value.append(value)
        else:
            parent.value[parent.key] = value
            parent.has_key = False

    def _key(self, key: Any) -> None:
        parent = self._stack[-1]
        if not isinstance(key, str):
            self._fail(f"the key {key!r} must be text; put it in quotes")
        if key == "<<":
            self._fail("merge keys (<<) are not part of YAML 1.2; write the keys out")
        parent.size += 1
        parent.key, parent.has_key = key, True
        if key in parent.value:
            self._fail("is given twice", key=dotted(self._path()))
        self._mark()

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and not self._stack[-1].has_key

    def _mark(self) -> None:
        if self.lines is not None:
            self.lines.setdefault(self._path(), self._line)
            self.columns.setdefault(self._path(), self._column)

    def _path(self) -> Path:
        return tuple(len(n.value) if isinstance(n.value, list) else n.key or "" for n in self._stack)

    def _count(self, more: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            self._fail(f"holds more than {MAX_NODES:,} values, aliases included")

    def _limit_depth(self, more: int) -> None:
        if len(self._stack) + more > MAX_DEPTH:
            self._fail(f"is nested deeper than {MAX_DEPTH} levels")

    def _fail(self, message: str, line: int | None = None, key: str = "") -> NoReturn:
        _fail(self._error, self._file, line or self._line, message, key)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


# TOML

_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_TOML_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}'  # long strings may end in one or two quotes of their own
    r'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|\#[^\n]*|\n|[\[\]{}=.,]|[^\s\[\]{}=.,"\'\#]+',
    re.DOTALL,
)


def _parse_toml(text: str, file: str, error: type[InvalidFile]) -> Any:
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as why:
        place = _TOML_PLACE.search(str(why))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        _fail(error, file, line, f"is not TOML: {_TOML_PLACE.sub('', str(why))}")
    except RecursionError:
        _fail(error, file, None, f"is nested deeper than {MAX_DEPTH} levels")
    except ValueError as why:  # a number of more digits than Python turns into an int
        _fail(error, file, None, f"is not TOML: {why}")
    return _plain_toml(value, (), file, error)


def _plain_toml(value: Any, path: Path, file: str, error: type[InvalidFile]) -> Any:
    """`value` with dates as text; refuses what JSON cannot hold."""
    if len(path) >= MAX_DEPTH and isinstance(value, dict | list):
        _fail(error, file, None, f"is nested deeper than {MAX_DEPTH} levels")
    match value:
        case dict():
            return {key: _plain_toml(item, (*path, key), file, error) for key, item in value.items()}
        case list():
            return [_plain_toml(item, (*path, index), file, error) for index, item in enumerate(value)]
        case float() if not math.isfinite(value):
            _fail(error, file, None, f"{value} is no number that JSON can hold; quote it to make it text", dotted(path))
        case int() if not -(2**63) <= value < 2**64:
            _fail(error, file, None, "the number does not fit 64 bits; quote it to make it text", dotted(path))
        case datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return value


def _toml_lines(text: str) -> dict[Path, int]:
    """The lines of tables and keys in a text that is known to be TOML."""
    lines: dict[Path, int] = {(): 1} if text.strip() else {}
    table: Path = ()
    counts: dict[Path, int] = {}
    for line, statement in _toml_statements(text):
        if statement[0] == "[":
            is_array = statement[:2] == ["[", "["]
            table = _toml_path((), [piece for piece in statement if piece not in "[]"], counts)
            if is_array:
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, line)
                table = (*table, counts[table])
            path = table
        else:
            path = _toml_path(table, statement[: statement.index("=")], counts)
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], line)
    return lines


def _toml_path(start: Path, tokens: list[str], counts: dict[Path, int]) -> Path:
    """The full path of a dotted key: a name of an array of tables stands for its last table so far."""
    path = start
    names = [piece for piece in tokens if piece != "."]
    for place, piece in enumerate(names):
        path = (*path, next(iter(tomllib.loads(f"{piece} = 0"))))
        if path in counts and place < len(names) - 1:
            path = (*path, counts[path])
    return path


def _toml_statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each statement as its line and its tokens, a value's line breaks included."""
    statement: list[str] = []
    line, start, depth, seen = 1, 1, 0, 0
    for match in _TOML_TOKEN.finditer(text):
        piece = match[0]
        line += text.count("\n", seen, match.start())
        seen = match.start()
        if piece == "\n":
            if statement and depth == 0:
                yield start, statement
                statement = []
        elif piece[0] != "#":
            start = start if statement else line
            depth += (piece in "[{") - (piece in "]}")
            statement.append(piece)
    if statement:
        yield start, statement
