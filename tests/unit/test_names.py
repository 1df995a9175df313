"""The grammar of names and patterns."""

from __future__ import annotations

import time

import pytest

from eventcore.kernel import names
from eventcore.kernel.errors import InvalidName


@pytest.mark.parametrize("name", ["tick", "order_created", "a1_", "my-plugin.order_created", "a.b.c", "x-y.1-2_3"])
def test_event_types(name: str) -> None:
    assert names.event_type(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "Order", "1a", "_a", "a-b", "a.", ".a", "a..b", "a b", "order_*", "é", "a\n", "a" * 129, "a._b"],
)
def test_what_is_no_event_type(name: str) -> None:
    with pytest.raises(InvalidName):
        names.event_type(name)


def test_longest_event_type() -> None:
    assert names.event_type("a" * 128)


def test_aliases_with_a_dot() -> None:
    assert names.event_type("workflow.started") == "workflow_started"
    assert names.event_type("bus.dead_letter") == "bus_dead_letter"
    assert names.pattern("step.completed").fullmatch("step_completed")
    assert names.event_type("order.created") == "order.created"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("workflow_*", ["workflow_started", "workflow_"], ["workflow", "my.workflow_started", "workflow_x.y"]),
        ("my-plugin.*", ["my-plugin.saved"], ["my-plugin.a.b", "my-plugin", "other.saved"]),
        ("*", ["tick", "bus_overflow"], ["a.b"]),
        ("*.saved", ["a.saved"], ["saved", "a.b.saved"]),
        ("**", ["tick", "a.b.c", "business"], ["bus_overflow", "bus_dead_letter"]),
        ("tick", ["tick"], ["ticks", "tic"]),
        ("a.b", ["a.b"], ["a_b", "axb"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    regex = names.pattern(pattern)
    assert [name for name in yes if not regex.fullmatch(name)] == []
    assert [name for name in no if regex.fullmatch(name)] == []


@pytest.mark.parametrize("pattern", ["", "A*", "a b", "a..b", "a.", "***.b ", "[a]", "a?", "a" * 129])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidName):
        names.pattern(pattern)


def test_is_literal_and_hook_events() -> None:
    assert names.is_literal("tick")
    assert not names.is_literal("tick_*")
    assert names.is_hook_event("on_message")
    assert not names.is_hook_event("only")


@pytest.mark.parametrize("name", ["MyAwesomePlugin", "My awesome plugin", "my_awesome_plugin", " my--awesome plugin "])
def test_slugs(name: str) -> None:
    assert names.slug(name) == "my-awesome-plugin"


def test_slug_of_capitals() -> None:
    assert names.slug("HTTPServer2Go") == "http-server2-go"


@pytest.mark.parametrize("name", ["", "***", "a" * 129])
def test_what_gives_no_slug(name: str) -> None:
    with pytest.raises(InvalidName):
        names.slug(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a.b", "a" * 129])
def test_what_is_no_workflow_slug(name: str) -> None:
    with pytest.raises(InvalidName):
        names.workflow_slug(name)


def test_workflow_slug() -> None:
    assert names.workflow_slug("triage_message-2") == "triage_message-2"


def test_suggestions() -> None:
    assert names.nearest("on_mesage", ["on_message", "on_command"]) == "on_message"
    assert names.nearest("zzz", ["on_message"]) is None
    assert names.did_you_mean("on_mesage", ["on_message"]) == "; did you mean 'on_message'?"
    assert names.did_you_mean("zzz", ["on_message"]) == ""


@pytest.mark.parametrize(
    ("text", "fits", "fits_not"),
    [
        ("a*b*c", ["abc", "axbxc", "abbc", "abcbc"], ["abcb", "a.b.c", "ac"]),
        ("*a*.b*", ["a.b", "xax.bx"], ["x.b", "a.a.b"]),
        ("**a", ["a", "ba"], ["a.a"]),
    ],
)
def test_stars_within_a_segment(text: str, fits: list[str], fits_not: list[str]) -> None:
    assert [one for one in [*fits, *fits_not] if names.pattern(text).fullmatch(one)] == fits


def test_a_pattern_takes_no_time_whatever_its_stars() -> None:
    began = time.process_time()
    assert names.pattern("*a" * 40 + "*b").fullmatch("a" * 128) is None  # tried in all ways it would take years
    assert time.process_time() - began < 1.0
