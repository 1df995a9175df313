"""Templates: values, strictness, and hostile ones, bounded in time and memory."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore.kernel.errors import ExpressionError
from eventcore.workflows.expressions import MAX_SIZE, MAX_TEMPLATE, Expressions

SCOPE: dict[str, Any] = {
    "inputs": {
        "text": "Hello",
        "n": 7,
        "list": [3, 1, 2],
        "nothing": None,
        "evil": "{{ 7*7 }}",
        "items": "a key",
        "nested": {"a": [{"b": 1}]},
        "user": "[1]",
    }
}


def value(source: Any, scope: dict[str, Any] = SCOPE) -> Any:
    return Expressions().value(source)(scope)


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("{{ inputs.n }}", 7),
        ("{{ inputs.list }}", [3, 1, 2]),
        ("{{ inputs.nothing }}", None),
        (" {{ inputs.n }} ", " 7 "),
        ("{{ inputs.nested | tojson }}", '{"a":[{"b":1}]}'),
        ("{{ '<' + (inputs.list | tojson) }}", "<[3,1,2]"),
        ("{{ inputs.list | sum }}", 6),
        ("{{ '  x ' | trim }}", "x"),
        ("n is {{ inputs.n }}", "n is 7"),
        ("{{ inputs.n }}{{ inputs.n }}", "77"),
        ("{{ inputs.n }} and {{ inputs.text }}", "7 and Hello"),
        ("{{ '}}' }}", "}}"),
        ("plain", "plain"),
        (5, 5),
        (None, None),
        ({"a": ["{{ inputs.n }}", {"b": "{{ inputs.text | upper }}"}]}, {"a": [7, {"b": "HELLO"}]}),
        ("{{ inputs.n + 1 }}", 8),
        ("{{ inputs.n > 3 and inputs.text == 'Hello' }}", True),
        ("{{ inputs.text.upper() }}", "HELLO"),
        ("{{ inputs.items }}", "a key"),
        ("{{ inputs.nested.a[0].b }}", 1),
        ("{{ inputs.list | sort | first }}", 1),
        ("{{ inputs.missing | default('none') }}", "none"),
        ("{{ inputs.missing is defined }}", False),
        ("{{ [1, 2] + [3] }}", [1, 2, 3]),
        ("{{ 'yes' if inputs.n else 'no' }}", "yes"),
        ("{{ inputs.list | join(', ') }}", "3, 1, 2"),
        ("{{ inputs.text | replace('l', 'L') }}", "HeLLo"),
        ("{{ 2 ** 10 }}", 1024),
        ("{{ 7 % 4 }}", 3),
        ("{{ 2.567 | round(1) }}", 2.6),
        ("{{ '12' | int + 1 }}", 13),
        ("{{ inputs.list | map('string') | list }}", ["3", "1", "2"]),
        ("{{ inputs.list | select('in', [1, 2]) | list }}", [1, 2]),
        ("{{ inputs.nested.a | map(attribute='b') | list }}", [1]),
        ("{{ inputs.nested.a | selectattr('b', 'equalto', 1) | list | length }}", 1),
    ],
)
def test_values(source: Any, result: Any) -> None:
    assert value(source) == result


def test_nothing_is_evaluated_twice() -> None:
    assert value("{{ inputs.evil }}") == "{{ 7*7 }}"
    assert value("say {{ inputs.evil }}") == "say {{ 7*7 }}"
    assert value("{{ inputs.user }}") == "[1]"
    assert value(" {{ inputs.user }}") == " [1]"


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_that_comes_in_goes_through_unchanged(text: str) -> None:
    assert value("{{ inputs.t }}", {"inputs": {"t": text}}) == text
    assert value("<{{ inputs.t }}>", {"inputs": {"t": text}}) == f"<{text}>"


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_source_is_a_value_or_our_own_error(text: str) -> None:
    for source in (text, "{{" + text + "}}"):
        with suppress(ExpressionError):
            value(source)


_WORDS = st.sampled_from(
    "inputs inputs.list inputs.text 1 -3 0 'x' [1] {'a':1} + - * ** / // % ( ) | , . [ ] : == in not is upper "
    "list map select join replace round int sum dictsort sort float abs first tojson trim default items random "
    "defined none string length unique max reject".split()
)


@given(st.lists(_WORDS, min_size=1, max_size=12))
@settings(max_examples=600, deadline=None)
def test_any_expression_is_a_value_or_our_own_error(words: list[str]) -> None:
    with suppress(ExpressionError):
        value("{{ " + " ".join(words) + " }}")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ inputs.missing }}", "missing"),
        ("{{ inputs.missing.deeper }}", "missing"),
        ("say {{ inputs.missing }}", "missing"),
        ("{{ nobody }}", "nobody"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ inputs.text + 1 }}", ""),
        ("{{ inputs.list[9] }}", ""),
        ("{{ 5 | dictsort }}", ""),
        ("{{ inputs.n | first }}", ""),
        ("{{ inputs.list | sum(attribute='x') }}", ""),
        ("{{ inputs.list | map('string') }}", "end with `| list`"),
        ("{{ inputs.nested.a | map(attribute='x') | list }}", "not defined"),
        ("{{ inputs.n , }}", ""),
    ],
)
def test_what_cannot_be_evaluated_is_our_own_error(source: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why or "."):
        Expressions().value(source)(SCOPE)


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ inputs.__class__ }}",
    "{{ inputs['__class__'] }}",
    "{{ inputs | attr('__class__') }}",
    "{{ inputs | map(attribute='__class__') | list }}",
    "{{ [inputs.text] | map(attribute='__class__') | list }}",
    "{{ [inputs.text] | map('attr', '__class__') | list }}",
    "{{ inputs.text.format(x=1) }}",
    "{{ '{0.__class__}'.format(inputs) }}",
    "{{ ('%s' * 2) % (1, 2) }}",
    "{{ inputs.list.append(4) }}",
    "{{ inputs.update({}) }}",
    "{{ inputs.list.clear() }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ range(10) }}",
    "{{ lipsum() }}",
    "{{ cycler(1) }}",
    "{{ namespace() }}",
    "{{ dict(a=1) }}",
    "{{ caller() }}",
    "{{ loop }}",
    "{% set x = 1 %}",
    "{% for x in inputs.list %}{{ x }}{% endfor %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% macro a() %}{% endmacro %}",
    "{{ 'a' ~ 'b' }}",
    "{{ inputs.list | map('string') }}",
    "{{ inputs.items }}{% raw %}{{ x }}{% endraw %}{% if 1 %}{% endif %}",
    "{{ inputs.list | random }}",
    "{{ inputs.text | pprint }}",
    "{{ inputs.text | xmlattr }}",
    "{{ 'x' | center(10 ** 9) }}",
    "{{ 'x' | indent(10 ** 9) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ inputs.text.zfill(10) }}",
    "{{ inputs.text.ljust(1000000000) }}",
    "{{ inputs.text.replace('l', 'x' * 1000000) }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_what_is_not_available(source: str) -> None:
    with pytest.raises(ExpressionError):
        Expressions().value(source)(SCOPE)
    assert SCOPE["inputs"]["list"] == [3, 1, 2]


BOMBS = [
    "{{ 7 ** (7 ** 8) }}",
    "{{ 2 ** 2 ** 2 ** 2 ** 2 ** 2 }}",
    "{{ 'x' * 1000000000 }}",
    "{{ 1000000000 * 'x' }}",
    "{{ [1] * 1000000000 }}",
    "{{ [[1] * 1000000] * 1000000 }}",
    "{{ [['x' * 1000000] * 1000000] * 1000 }}",
    "{{ ([['x' * 1000000] * 1000] * 1000) | string }}",
    "{{ ([['x' * 1000000] * 1000] * 1000) | tojson }}",
    "say {{ [['x' * 1000000] * 1000] * 1000 }}",
    "{{ ([['x' * 100000] * 10] * 1000) | join(',') }}",
    "{{ ('x' * 1000000) | replace('x', 'y' * 1000000) }}",
    "{{ ('x' * 100000) | list | map('replace', 'x', 'y' * 100000) | list }}",
    "{{ ('x' * 100000) | list | map('replace', 'x', 'y' * 100000) | join }}",
    "{{ ('x' * 100000) | list | map('replace', 'x', 'y' * 100000) | map('upper') | last }}",
    "{{ ('x' * 1000000) | list | join('y' * 1000) }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{{ 1.5 | round(-1000000000, 'floor') }}",
    "{{ ('f' * 1000000) | int(base=16) // (('f' * 500000) | int(base=16)) }}",
    "{{ ('f' * 1000000) | int(base=16) % (('f' * 500000) | int(base=16)) }}",
    "{{ ('1' * 1000000) | int }}",
    "{{ ('x' * 1000000) | list | select('in', ('y' * 1000000) | list) | list }}",
    "{{ ('x' * 100000) | list | reject('in', 'y' * 1000000) | list }}",
    "{{ (('x' * 1000000) | list) + (('x' * 1000000) | list) + (('x' * 1000000) | list) }}",
    "{{ " + " + ".join(["'x' * 1000000"] * 20) + " }}",
    "{{ [" + ", ".join(["'x' * 1000000"] * 200) + "] }}",
    "".join(["{{ 'x' * 1000000 }}"] * 200),
    "{{ " + "(" * 1000 + "1" + ")" * 1000 + " }}",
    "{{ " + "[" * 1500 + "]" * 1500 + " }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{{ " + "not " * 900 + "1 }}",
    "{{ inputs.text | truncate(1000000000, true, 'x' * 1000000 * 1000) }}",
    "{{ " + "1 + " * 900 + "1 }}" + "x" * 4096,
    "{{ (('ab' * 500000) | list | unique | list) * 10000000 }}",
    "{{ [1, 2, 3] | sum(start=[]) }}",
    "{{ ('x' * 1000000) | list | map('int') | map('round', 1000000000, 'ceil') | list }}",
    "{{ ('x' * 1000000) | list | map('list') | map('join', 'x' * 1000000) | list | length }}",
    "{{ ('x' * 1000000).strip('y' * 1000000 + 'x') }}",
    "{{ ('x' * 1000000) | trim('y' * 1000000 + 'x') }}",
    "{{ ([[1] * 1000] * 1000) | sum(start=[]) }}",
    "{{ ('x' * 100000) | list | map(attribute='z', default=[1] * 1000000) | list == 7 }}",
    "{{ ([[1] * 1000000] * 1000) == ([[1] * 1000000] * 1000) }}",
    "{{ ('x' * 1000000) | list | map('truncate', 2, true, 'y' * 1000000, 0) | list }}",
]

_BOUNDED = """
import resource, sys, time
limit = 700 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from eventcore.kernel.errors import ExpressionError
from eventcore.workflows.expressions import Expressions
for line in sys.stdin:
    source = eval(line)
    began = time.process_time()
    try:
        result = Expressions().value(source)({"inputs": {"text": "x"}})
        size = len(repr(result)) if not isinstance(result, (str, list)) else len(result)
        said = f"value of size {size}"
    except ExpressionError as error:
        said = "refused"
    except BaseException as error:
        said = f"broke: {type(error).__name__}"
    print(f"{time.process_time() - began:.2f} {said}", flush=True)
"""


def test_bombs_are_bounded_in_time_and_memory() -> None:
    """In a process with 700 MB of address space, so that a bomb that goes off ends that process and not this one."""
    with subprocess.Popen(
        [sys.executable, "-c", _BOUNDED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        try:
            for bomb in BOMBS:
                child.stdin.write(f"{bomb!r}\n")
                child.stdin.flush()
                began = time.monotonic()
                answer = child.stdout.readline().split(maxsplit=1)
                assert answer, f"{bomb[:80]} ended the process after {time.monotonic() - began:.1f} s"
                assert float(answer[0]) < 10.0, (bomb[:80], answer)
                assert not answer[1].startswith("broke"), (bomb[:80], answer)
                if answer[1].startswith("value"):
                    assert int(answer[1].split()[-1]) <= MAX_SIZE, (bomb[:80], answer)
        finally:
            child.kill()


def test_a_template_is_at_most_four_kib() -> None:
    Expressions().compile("x" * MAX_TEMPLATE)
    with pytest.raises(ExpressionError, match="longer than 4,096"):
        Expressions().compile("x" * (MAX_TEMPLATE + 1))


def test_names_are_checked_when_it_is_compiled() -> None:
    with pytest.raises(ExpressionError, match="'evnt' is not available here; did you mean 'event'"):
        Expressions().compile("{{ evnt.data }}", frozenset({"event"}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ inputs.nmae }}", "there is no 'nmae'; did you mean 'name'?"),
        ("{{ inputs.zzz + 1 }}", "there is no 'zzz'; there is age, name"),
        ("{{ inputs.name.zzz }}", "has no attribute 'zzz'"),
        ("{{ empty.zzz }}", "there is no 'zzz'; it is empty"),
        ("{{ many.zzz }}", "there is no 'zzz'; there is k0, k1, k2, k3, k4, k5, k6, k7, ..."),
    ],
)
def test_what_is_not_there_is_told_with_what_is(source: str, message: str) -> None:
    scope = {"inputs": {"name": "Ada", "age": 3}, "empty": {}, "many": {f"k{n}": n for n in range(9)}}
    with pytest.raises(ExpressionError) as caught:
        Expressions().compile(source)(scope)
    assert str(caught.value).endswith(message)


def test_single_items_are_gone_through_for_a_bounded_time() -> None:
    """One pass over 60,000 items may cost a second; a template has room for hundreds."""
    numbers = {"inputs": {"l": list(range(60_000)), "t": "a " * 100_000}}
    for source in (
        "{{ inputs.l | map('string') | map('int') | list }}",
        "{{ inputs.l | select('odd') | map('abs') | reject('even') | map('abs') | list }}",
        "{{ inputs.l" + " | sort" * 40 + " }}",
        "{{ inputs.l" + " | tojson | from_json" * 10 + " }}",
        "{{ inputs.t" + " | title" * 100 + " }}",
        "{{ [" + ", ".join(["inputs.t.upper() | length"] * 120) + "] }}",
    ):
        with pytest.raises(ExpressionError, match="more than"):
            Expressions().compile(source)(numbers)
    ten = "{{ inputs.l[:10000]" + " | map('abs')" * 9 + " | list | length }}"
    assert Expressions().compile(ten)(numbers) == 10_000
    assert Expressions().compile("{{ inputs.t | trim | upper | lower | title | length }}")(numbers) == 199_999


def test_an_error_does_not_tell_all_of_a_large_text() -> None:
    with pytest.raises(ExpressionError) as error:
        Expressions().compile("{{ inputs.t[inputs.t] }}")({"inputs": {"t": "a" * 100_000}})
    assert len(str(error.value)) < 1000
