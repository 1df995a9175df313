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


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"type": "string"}}, MANY),
        ({"type": "string"}, MANY),
        ({"items": {"anyOf": [{"pattern": r"(a*)*\1b"}, {}]}}, [LONG] * 20_000),
        ({"items": {"pattern": r"^(?=(a+)+$)b|(a*)*\1c"}}, [LONG] * 20_000),
        ({"$ref": "#"}, 1),
    ],
    ids=["many errors", "a large value", "steps back, unharmed", "steps back", "itself"],
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
