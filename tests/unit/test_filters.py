"""The filters that are ours: what they give, and that nothing makes them run long or fill memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore.kernel.errors import ExpressionError
from eventcore.workflows.expressions import MAX_SIZE, Expressions


def value(text: str, **scope: Any) -> Any:
    return Expressions().compile("{{ " + text + " }}")(scope)


@pytest.mark.parametrize(
    ("text", "given", "result"),
    [
        ("v | json", {"a": [1, "x"]}, '{"a":[1,"x"]}'),
        ("v | from_json", '{"a": [1, null]}', {"a": [1, None]}),
        ("v | date", 0, "1970-01-01"),
        ("v | date('Asia/Tokyo')", "2026-01-31T20:00:00Z", "2026-02-01"),
        ("v | date(format='%d.%m.%Y')", "2026-01-31", "31.01.2026"),
        ("v | time('Europe/Berlin')", "2026-03-29T00:59:59Z", "01:59:59"),
        ("v | time('Europe/Berlin')", "2026-03-29T01:00:00Z", "03:00:00"),
        ("v | datetime('Europe/Berlin')", "2026-07-01T07:00:00Z", "2026-07-01T09:00:00+02:00"),
        ("v | timestamp('Europe/Berlin')", "1970-01-01T01:00:00", 0.0),
        ("v | hash", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("v | hash('md5')", "abc", "900150983cd24fb0d6963f7d28e17f72"),
        ("v | slug", "  Größe: Déjà vu!", "grosse-deja-vu"),
        ("v | slug('_')", "Hello, World", "hello_world"),
        ("v | path('a.b[1].c')", {"a": {"b": [0, {"c": 7}]}}, 7),
        ("v | path('a[-1]')", {"a": [1, 2]}, 2),
        ("v | path('a.x', none)", {"a": {}}, None),
        ("v | path('a[3]', 'd')", {"a": []}, "d"),
    ],
)
def test_each_filter(text: str, given: Any, result: Any) -> None:
    assert value(text, v=given) == result


@pytest.mark.parametrize(
    ("text", "given", "words"),
    [
        ("v | path('a.x')", {"a": {}}, "nothing at 'a.x'"),
        ("v | path('items')", [1], "nothing at 'items'"),
        ("v | path('a[')", {"a": 1}, "no path"),
        ("v | path('__class__')", {}, "nothing at"),
        ("v | from_json", "{", "JSON"),
        ("v | date('Mars/Base')", 0, "no time zone"),
        ("v | date('../../etc/passwd')", 0, "no time zone"),
        ("v | date(format='%999999999d')", 0, "no format"),
        ("v | date", "yesterday", "no time"),
        ("v | date", 1e300, "no time"),
        ("v | hash('crc32')", "a", "sha256"),
        ("v | hash", {"a": 1}, "json"),
    ],
)
def test_what_does_not_fit_is_told(text: str, given: Any, words: str) -> None:
    with pytest.raises(ExpressionError, match=words):
        value(text, v=given)


def test_text_of_users_is_never_evaluated() -> None:
    for text in ("[1]", "{{ 7 * 7 }}", "{% for x in y %}", "__import__('os')", "{$secret: x}"):
        assert value("v", v=text) == text
        assert value("v | json | from_json", v=text) == text


_ATOMS = st.one_of(
    st.sampled_from(["v", "n", "'x'", "9", "9999999", "[v, v]", "{'a': v}", "-1", "none", "0.5", "true"]),
    st.integers(-(10**12), 10**12).map(str),
)
_NAMES = st.sampled_from(
    "json from_json date time datetime timestamp hash slug path upper list length replace('a', v) join(v) int "
    "title sort unique reverse trim string sum max wordcount truncate(9999999)".split(" ")
)


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from(["*", "**", "+", "%", "//", "in", "and", "<"]), inner)
    return st.one_of(
        binary.map(lambda one: f"({one[0]} {one[1]} {one[2]})"),
        st.tuples(inner, _NAMES).map(lambda one: f"({one[0]} | {one[1]})"),
        st.tuples(inner, inner).map(lambda one: f"{one[0]}[{one[1]}]"),
        st.tuples(inner, inner).map(lambda one: f"({one[0]} | path({one[1]}))"),
    )


@settings(max_examples=250, deadline=None)
@given(st.recursive(_ATOMS, _grow, max_leaves=12), st.text(max_size=60))
def test_whatever_is_written_ends_soon_and_small(text: str, user: str) -> None:
    scope = {"v": user * 50, "n": 10**9}
    tracemalloc.start()
    began = time.process_time()
    try:
        result = value(text, **scope)
    except ExpressionError:
        result = None
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 10.0, text
    assert peak < 64 * MAX_SIZE, text
    json.dumps(result)
