"""JSON in and out."""

from __future__ import annotations

import datetime
import enum
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventcore.kernel.errors import InvalidPayload
from eventcore.kernel.json import decode, digest, encode, encode_sorted

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_round_trip(value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {"b": object()}]}, "a[1].b is a object"),
        ({1: 2}, "keys must be text"),
        ({"a": {"b": {2: 3}}}, "a.b has the key 2"),
        ([2**64], "[0] does not fit 64 bits"),
        ({"text": "\ud800"}, "text holds a lone surrogate"),
        (b"bytes", "the value itself is a bytes"),
        ({"at": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)}, "at is a datetime"),
        ({"set": {1}}, "set is a set"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        encode(value)
    assert place in caught.value.message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [1, x]}, lambda x: ({"b": x},)])
def test_non_finite_numbers_are_refused(number: float, wrap: Any) -> None:
    with pytest.raises(InvalidPayload, match="cannot hold"):
        encode(wrap(number))


def test_null_is_allowed() -> None:
    assert encode({"a": None, "null": "null"}) == b'{"a":null,"null":"null"}'


def test_deep_nesting_is_refused() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(InvalidPayload):
        encode(value)


def test_limit_counts_bytes() -> None:
    assert encode("é", limit=4) == '"é"'.encode()
    with pytest.raises(InvalidPayload, match="4 bytes as JSON; the limit is 3"):
        encode("é", limit=3)


def test_the_error_names_what_it_is_about() -> None:
    with pytest.raises(InvalidPayload, match=r"inputs\.a is a object|inputs is not JSON"):
        encode({"a": object()}, what="inputs")


@pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b"[1,]", b"1 2", b'"\xff"', b"{'a':1}", b"Infinity"])
def test_decode_refuses(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="data is not JSON"):
        decode(raw)


def test_sorted_and_digest() -> None:
    assert encode_sorted({"b": 1, "a": {"d": 1, "c": 2}}) == b'{"a":{"c":2,"d":1},"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest({"a": 1}) != digest({"a": "1"})


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    """A subclass of str."""


def test_objects_that_look_like_json() -> None:
    with pytest.raises(InvalidPayload):
        encode({"x": Text("a")})
