"""Documents: values by the YAML 1.2 core schema, lines, and inputs that mean harm."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore.kernel.documents import MAX_BYTES, MAX_DEPTH, MAX_NODES, Format, dotted, parse
from eventcore.kernel.errors import InvalidDefinition, InvalidFile, InvalidManifest

ALL: tuple[Format, ...] = ("json", "yaml", "toml")


def problem_of(text: str | bytes, format: Format) -> str:
    with pytest.raises(InvalidManifest) as caught:
        parse(text, "f", format, error=InvalidManifest)
    return str(caught.value.problems[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("tRue", "tRue"),
        ("~", None),
        ("null", None),
        ('""', ""),
        ("'true'", "true"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-31", "2024-01-31"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.0.0", "1.0.0"),
        ("!!str 1", "1"),
        ("!!int '3'", 3),
        ("!!float 3", 3.0),
        ("| \n  a\n  b\n", "a\nb\n"),
        ("-", [None]),
    ],
)
def test_yaml_scalars_follow_the_1_2_core_schema(text: str, value: object) -> None:
    result = parse(text, "f", "yaml").value
    assert result == value
    assert type(result) is type(value)


def test_yaml_on_is_a_key() -> None:
    assert parse("on: {no: yes}", "f", "yaml").value == {"on": {"no": "yes"}}


def test_empty_documents() -> None:
    assert parse("", "f", "yaml").value is None
    assert parse("# nothing", "f", "yaml").value is None
    assert parse("", "f", "toml").value == {}
    assert parse("", "f", "yaml").line(("a",)) is None
    assert "is not JSON" in problem_of("", "json")


def test_bytes_and_byte_order_mark() -> None:
    for format, text in {"json": '{"a": "é"}', "yaml": "a: é", "toml": 'a = "é"'}.items():  # noqa: A001
        assert parse(b"\xef\xbb\xbf" + text.encode(), "f", format).value == {"a": "é"}  # type: ignore[arg-type]
        assert problem_of(b"\n\n\xff", format) == "f:3 is not UTF-8 text"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format", "text", "problem"),
    [
        ("json", '{\n "a": 1,\n "b": {"c": 1,\n  "c" : 2}}', "f:4 b.c: is given twice"),
        ("json", '{"a": 1,\n "\\u0061": 2}', "f:2 a: is given twice"),
        ("yaml", "a: 1\nb:\n - c: 1\n   c: 2\n", "f:4 b[0].c: is given twice"),
        ("toml", "a = 1\nb = 2\na = 3\n", "f:3 is not TOML: Cannot overwrite a value"),
        ("json", '{\n "a": 1,,\n}', "f:2 is not JSON: unexpected character, expected a string key (column 9)"),
        ("yaml", "a: [1\nb: 2", "f:2:2 is not YAML: did not find expected ',' or ']'"),
        ("yaml", "a: 1\nb: \x01", "f:2 is not YAML: control characters are not allowed"),
        ("yaml", "a: \ud800", "f:1 holds a lone surrogate, which is not text"),
        ("yaml", "a: 1\n1: b", "f:2 the key 1 must be text; put it in quotes"),
        ("yaml", "a: 1\n? [b]\n: c", "f:2 a key must be text, not a list or table"),
        ("yaml", "a: &x {b: 1}\nc:\n  <<: *x", "f:3 merge keys (<<) are not part of YAML 1.2; write the keys out"),
        ("yaml", "a: 1\n---\nb: 2", "f:2 holds more than one document; keep the first and move the rest to files of"
         " their own"),
        ("yaml", "a: 1\nb: !!python/object:os.system x", "f:2 the tag 'tag:yaml.org,2002:python/object:os.system' is"
         " not allowed; leave it out"),
        ("yaml", "a: !env HOME", "f:1 the tag '!env' is not allowed; leave it out"),
        ("yaml", "a: !!set {b}", "f:1 the tag 'tag:yaml.org,2002:set' is not allowed; leave it out"),
        ("yaml", "a: !!int x", "f:1 'x' is no int"),
        ("yaml", "a: .inf", "f:1 .inf is no number that JSON can hold; quote it to make it text"),
        ("yaml", "a: 1e999", "f:1 1e999 is too large a number"),
        ("yaml", "a: 99999999999999999999", "f:1 the number does not fit 64 bits; quote it to make it text"),
        ("yaml", "a: *b", "f:1 the alias *b has no anchor &b above it"),
        ("yaml", "a: &b\n  - *b", "f:2 the alias *b stands inside what it names"),
        ("toml", "a = [", "f:1 is not TOML: Invalid value"),
        ("toml", "a = nan", "f a: nan is no number that JSON can hold; quote it to make it text"),
        ("toml", "a = 99999999999999999999", "f a: the number does not fit 64 bits; quote it to make it text"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(format: Format, text: str, problem: str) -> None:
    assert problem_of(text, format) == problem


def test_the_error_is_of_the_class_asked_for() -> None:
    with pytest.raises(InvalidDefinition):
        parse("{", "f", "json", error=InvalidDefinition)


def test_aliases_are_copies() -> None:
    value = parse("a: &x {b: [1]}\nc: *x\nd: [*x, *x]", "f", "yaml").value
    assert value == {"a": {"b": [1]}, "c": {"b": [1]}, "d": [{"b": [1]}, {"b": [1]}]}
    value["c"]["b"].append(2)
    assert value["a"] == {"b": [1]}


def test_billion_laughs_end_early() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
    )
    start = time.monotonic()
    assert f"holds more than {MAX_NODES:,} values" in problem_of(bomb, "yaml")
    assert time.monotonic() - start < 30  # ten thousand million values take hours


@pytest.mark.parametrize("format", ALL)
def test_depth_is_bounded(format: Format) -> None:
    opening = "a = " if format == "toml" else ""
    fits = MAX_DEPTH - 1 if format == "toml" else MAX_DEPTH
    parse(opening + "[" * fits + "]" * fits, "f", format)
    for depth in (fits + 1, 900, 50_000):
        text = opening + "[" * depth + "]" * depth
        assert f"is nested deeper than {MAX_DEPTH} levels" in problem_of(text, format)


def test_depth_through_aliases_is_bounded() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 300))
    assert f"is nested deeper than {MAX_DEPTH} levels" in problem_of(text, "yaml")


@pytest.mark.parametrize("format", ALL)
def test_size_is_bounded(format: Format) -> None:
    assert problem_of(" " * (MAX_BYTES + 1), format) == "f is larger than 1024 KiB"
    assert problem_of("é" * (MAX_BYTES // 2 + 1), format) == "f is larger than 1024 KiB"


def test_lines_of_json() -> None:
    document = parse('{\n "a": {\n  "b": [\n   1,\n   {"c": "x\\": {"}\n  ]\n },\n "d": 2\n}', "f", "json")
    places = {(): 1, ("a",): 2, ("a", "b"): 3, ("a", "b", 0): 4, ("a", "b", 1): 5, ("a", "b", 1, "c"): 5, ("d",): 8}
    assert {path: document.line(path) for path in places} == places
    assert document.line(("a", "b", 7, "z")) == 3
    assert document.line(("nowhere",)) == 1


def test_lines_of_yaml() -> None:
    document = parse("# top\na:\n  b:\n    - 1\n    - c: x\nd: &x\n  e: 1\nf: *x\n", "f", "yaml")
    places = {(): 2, ("a",): 2, ("a", "b"): 3, ("a", "b", 0): 4, ("a", "b", 1): 5, ("a", "b", 1, "c"): 5, ("d", "e"): 7}
    assert {path: document.line(path) for path in places} == places
    assert document.line(("f", "e")) == 8


def test_lines_of_toml() -> None:
    text = (
        '# x\ntop = """\na = 1\n[no]\n"""\n[plugin]\nname = "a" # [b]\nlist = [\n  1,\n  2,\n]\n'
        '[[dependencies]]\nname = "x"\n'
        "[[dependencies]]\n\"na.me\" = 'y'\n[dependencies.more]\nz = 1\n[a.b]\nc.d = {e = 1}\n"
    )
    document = parse(text, "f", "toml")
    places = {
        ("top",): 2,
        ("plugin",): 6,
        ("plugin", "name"): 7,
        ("plugin", "list"): 8,
        ("plugin", "list", 1): 8,
        ("dependencies",): 12,
        ("dependencies", 0, "name"): 13,
        ("dependencies", 1): 14,
        ("dependencies", 1, "na.me"): 15,
        ("dependencies", 1, "more", "z"): 17,
        ("a", "b", "c", "d", "e"): 19,
    }
    assert {path: document.line(path) for path in places} == places


def test_problem_of_a_document() -> None:
    document = parse("a:\n  - b: 1\n", "w.yaml", "yaml")
    assert str(document.problem(("a", 0, "b"), "must be text")) == "w.yaml:2 a[0].b: must be text"
    assert dotted(()) == ""


def test_toml_dates_are_text() -> None:
    value = parse("a = 2024-01-31\nb = [2024-01-31T10:00:00Z, 10:00:00]", "f", "toml").value
    assert value == {"a": "2024-01-31", "b": ["2024-01-31T10:00:00+00:00", "10:00:00"]}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(values, st.sampled_from([None, 1]))
def test_json_keeps_every_value(value: object, indent: int | None) -> None:
    assert parse(json.dumps(value, indent=indent), "f", "json").value == value


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{}\"'#&*!|>%=.,01\n\t \\é\x00"), st.sampled_from(ALL))
def test_any_text_is_a_value_or_an_invalid_file(text: str, format: Format) -> None:
    try:
        document = parse(text, "f", format)
    except InvalidFile:
        return
    json.dumps(document.value)
    document.line(("a", 0))
