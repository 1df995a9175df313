"""JSON Schemas of strangers, for values of strangers: bounded in time, in memory, and in what they reach."""

from __future__ import annotations

import socket
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from eventcore.kernel.errors import InvalidInput, InvalidPayload
from eventcore.kernel.schemas import Schema


def test_of_a_small_value_everything_wrong_is_told() -> None:
    schema = Schema({"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}})
    assert schema.wrong({"a": "x", "b": 1}) == []
    assert sorted(schema.wrong({"a": 1, "b": "y"})) == [
        'a: 1 is not of type "string"',
        'b: "y" is not of type "integer"',
    ]


MANY: list[Any] = [[] for _ in range(349_000)]
LONG = "a" * 40 + "!"


#: 2^40 checks of one number, in forty lines.
DOUBLED: dict[str, Any] = {
    "$defs": {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)} | {"a40": {"type": "string"}},
    "allOf": [{"$ref": "#/$defs/a0"}],
}
FORKED: dict[str, Any] = {"type": "array", "anyOf": [{"items": {"$ref": "#/$defs/t"}}] * 2, "minItems": 1}
DEEP: list[Any] = []
for _ in range(60):
    DEEP = [DEEP]
UNEVALUATED: dict[str, Any] = {"type": "string"}
for _ in range(20):
    UNEVALUATED = {"anyOf": [{"$comment": "twice"}, UNEVALUATED, {}], "unevaluatedProperties": {"not": {"const": 5}}}
for _ in range(8):
    UNEVALUATED = {"allOf": [UNEVALUATED], "unevaluatedProperties": {"not": {}}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"type": "string"}}, MANY),
        ({"type": "string"}, MANY),
        ({"items": {"anyOf": [{"pattern": r"(a*)*\1b"}, {}]}}, [LONG] * 20_000),
        ({"items": {"pattern": r"^(?=(a+)+$)b|(a*)*\1c"}}, [LONG] * 20_000),
        ({"$ref": "#"}, 1),
        (DOUBLED, 1),
        ({"$defs": DOUBLED["$defs"], "items": DOUBLED["allOf"][0]}, [0] * 100),
        ({"$defs": {"t": FORKED}, "$ref": "#/$defs/t"}, DEEP),
        (UNEVALUATED, {"a": 1, "b": 2}),
        ({"pattern": "(?=(a+)+$)b"}, "a" * 1_000_000),
        ({"patternProperties": {f"a{i}b?c": {} for i in range(100)}}, {f"k{i}": 0 for i in range(60_000)}),
        ({"items": {"anyOf": [{"pattern": f"^a*b{i}$"} for i in range(100)]}}, ["a" * 1000] * 1000),
    ],
    ids=[
        *("many errors", "a large value", "steps back, unharmed", "steps back", "itself"),
        *(
            "twice as many at each name",
            "the same for items",
            "twice as many at each depth",
            "what is left, in what is left",
        ),
        *("a long text", "names by names", "texts by patterns"),
    ],
)
def test_a_check_is_quick_and_small_whatever_it_finds(schema: dict[str, Any], value: Any) -> None:
    checked = Schema(schema)
    began = time.thread_time()
    wrong = checked.wrong(value)
    assert time.thread_time() - began < 5.0  # without any bound it is 12 s and more; here it is 0.1 s
    tracemalloc.start()
    try:
        checked.wrong(value)
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()
    assert sum(map(len, wrong)) < 1000


def test_a_large_value_is_refused_with_the_first_thing_that_is_wrong() -> None:
    items = Schema({"items": {"type": "string"}})
    with pytest.raises(InvalidPayload, match=r'parameters: 0: the value is not of type "string"$'):
        items.check(MANY[:5000], "parameters")
    with pytest.raises(InvalidPayload, match="parameters: it does not fit the schema, and is too large to tell where"):
        items.check(MANY, "parameters")


def test_references_leave_the_schema_neither_for_files_nor_for_the_network(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.json"
        for uri in (address, (tmp_path / "other.json").as_uri()):
            with pytest.raises(InvalidInput, match="nothing is fetched"):
                Schema({"$ref": uri})
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert Schema({"$ref": "https://json-schema.org/draft/2020-12/schema"}).wrong({}) == []


def test_what_people_write_is_checked_as_before() -> None:
    tree = Schema({"type": "object", "properties": {"n": {"type": "integer"}, "of": {"items": {"$ref": "#"}}}})
    leaves: Any = {"n": 1}
    for _ in range(50):
        leaves = {"n": 1, "of": [leaves, {"n": 2}]}
    assert tree.wrong(leaves) == []
    assert tree.wrong({"of": [{"n": "x"}]}) == ['of.0.n: "x" is not of type "integer"']
    word = Schema({"properties": {"word": {"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d).{8,}$"}}})
    assert word.wrong({"word": "Abcdefg1", "text": "a" * 50_000}) == []
    assert word.wrong({"word": "abcdefgh"}) != []
    named = Schema({"$id": "https://a.b/c", "$defs": {"x": {"$anchor": "y", "type": "null"}}, "$ref": "#y"})
    assert named.wrong(None) == []
    assert named.wrong(1) != []
    rows = Schema({"items": {"properties": {f"p{i}": {"type": "integer"} for i in range(20)}, "required": ["p0"]}})
    assert rows.wrong([{f"p{i}": i for i in range(20)}] * 500) == []


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"allOf": [{"type": "string"}] * 1 + [{"const": i} for i in range(2000)]}, "more than 2,000 parts"),
        ({"properties": {f"p{i}": {"pattern": f"a{i}"} for i in range(201)}}, "more than 200 patterns"),
        ({"enum": list(range(20_001))}, "too large"),
        ({"$defs": {"a": {"$id": "x"}}, "$ref": "x"}, "an \\$id of its own"),
        ({"$ref": "#/$defs/none"}, "is not in it"),
    ],
)
def test_a_schema_that_cannot_be_bounded_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        Schema(schema)
