"""The circuit breaker: as a state machine, and in calls; hook files that are read again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcore import EventCore
from eventcore.hooks.breaker import Breaker
from eventcore.kernel.settings import Settings
from tests.unit.test_hook_files import write
from tests.unit.test_hooks import answering, of_type

anyio_test = pytest.mark.anyio


class HandClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.at = 1_000.0
        self.slept = anyio.Event()
        self.go = anyio.Event()

    def now(self) -> float:
        return 1_700_000_000.0 + self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds / 100)


def test_it_opens_rests_probes_and_closes() -> None:
    breaker = Breaker(failures=3, rest=60)
    assert [breaker.settled("a", 1, 0) for _ in range(3)] == [None, None, "degraded"]
    assert not breaker.allows("a", 59.9)
    assert breaker.wait("a", 20) == 40
    assert breaker.allows("b", 0)
    assert breaker.allows("a", 60)
    assert not breaker.allows("a", 61)  # one call at a time finds out
    assert breaker.settled("a", 1, 62) is None
    assert not breaker.allows("a", 121)
    assert breaker.allows("a", 122)
    assert breaker.settled("a", 0, 123) == "recovered"
    assert breaker.quiet


def test_only_failures_in_a_row_count() -> None:
    breaker = Breaker(failures=3)
    for _ in range(5):
        assert breaker.settled("a", 2, 0) is None
        assert breaker.settled("a", 0, 0) is None


def test_an_old_success_does_not_close_it() -> None:
    breaker = Breaker(failures=1)
    breaker.settled("a", 1, 0)
    assert breaker.settled("a", 0, 1) is None
    assert breaker.open("a")


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 100))))
def test_it_never_asks_within_the_rest(steps: list[tuple[int, float]]) -> None:
    breaker, now, closed_until = Breaker(failures=2, rest=60), 0.0, None
    for failed, pause in steps:
        now += pause
        allowed = breaker.allows("a", now)
        if closed_until is not None:
            assert allowed == (now - closed_until >= 60)
        if not allowed:
            continue
        change = breaker.settled("a", failed, now)
        if breaker.open("a"):
            closed_until = now
        else:
            closed_until = None
            assert change in (None, "recovered")


# -- in calls ---------------------------------------------------------------------------------------------------------

FILE = """
from eventcore.sdk import gate
bad = True

@gate("on_message")
async def check(message):
    if message["text"] == "well":
        return None
    raise ValueError("bug")

async def on_message(message):
    return {"text": "file"}
"""


@anyio_test
@pytest.mark.parametrize("policy", [False, True])
async def test_a_hook_file_that_keeps_failing_is_left_out_and_comes_back(tmp_path: Path, policy: bool) -> None:
    clock = HandClock()
    async with EventCore(clock=clock) as core:
        file = core.engine.hook_files.load("flaky", write(tmp_path / "flaky.py", FILE), policy=policy)
        core.hooks.register("on_message", answering({"text": "other"}), owner="other")
        for _ in range(5):
            await core.hooks.call("on_message", {"text": "x"})
        [degraded] = await of_type(core, "plugin_degraded")
        assert (degraded.data["plugin"], degraded.data["hook"], degraded.subject) == ("flaky", "on_message", "flaky")
        assert file.degraded
        errors = len(await of_type(core, "plugin_error"))

        outcome = await core.hooks.call("on_message", {"text": "well"})
        assert outcome.denied is policy  # the gate of a degraded owner of the policy tier denies
        assert [one.status for one in outcome.trace if one.handler.startswith("flaky")] == (
            ["skipped"] if policy else ["skipped", "skipped"]
        )
        assert outcome.replies == ([] if policy else [{"text": "other"}])
        assert len(await of_type(core, "plugin_error")) == errors  # it was said once

        clock.at += 60
        assert (await core.hooks.call("on_message", {"text": "x"})).denied is policy  # tried, and failed again
        assert (await core.hooks.call("on_message", {"text": "well"})).denied is policy
        clock.at += 60
        outcome = await core.hooks.call("on_message", {"text": "well"})
        assert {"text": "file"} in outcome.replies
        [recovered] = await of_type(core, "plugin_enabled")
        assert recovered.data["plugin"] == "flaky"
        assert file.degraded is None


@anyio_test
async def test_the_embedders_own_handlers_are_never_left_out(core: EventCore) -> None:
    async def fails(payload: Any) -> None:
        raise ValueError("bug")

    core.hooks.register("on_message", fails)
    for _ in range(8):
        outcome = await core.hooks.call("on_message", {"text": "x"})
    assert outcome.trace[0].status == "error"


# -- reading again ----------------------------------------------------------------------------------------------------


def touch(path: Path, text: str) -> None:
    """Write it with another time: two writes within the clock's grain would look like one."""
    later = path.stat().st_mtime_ns + 10_000_000_000 if path.exists() else None
    write(path, text)
    if later:
        os.utime(path, ns=(later, later))


@anyio_test
async def test_reload_swaps_all_or_nothing_and_names_what_is_gone(core: EventCore, tmp_path: Path) -> None:
    path = write(
        tmp_path / "one.py", "def on_message(m): return {'n': 1}\ndef on_startup(x): ...\nasync def on_a(e): return 1\n"
    )
    files = core.engine.hook_files
    files.load("one", path)
    touch(path, "async def on_message(m): return {'n': 2}\nasync def on_b(e): return 2\n")
    found = await files.reload("one")
    assert (found.error, found.vanished) == (None, ["one.on_a", "one.on_startup"])
    assert (await core.hooks.call("on_message", {"text": "x"})).replies == [{"n": 2}]
    assert [len(await core.bus.emit_and_wait(name)) for name in ("a", "b")] == [0, 1]
    [event] = await of_type(core, "plugin_reloaded")
    assert (event.data["plugin"], event.data["vanished"]) == ("one", ["one.on_a", "one.on_startup"])

    for broken in ("def on_message(:", "x = 1", "def on_message(m): ...\ndef on_Bad(e): ...\n"):
        touch(path, broken)
        found = await files.reload("one")
        assert found.error
        assert (await core.hooks.call("on_message", {"text": "x"})).replies == [{"n": 2}]
        assert [one.value for one in await core.bus.emit_and_wait("b")] == [2]
    assert len(await of_type(core, "plugin_failed")) == 3
    touch(path, "def on_message(m): return {'n': 3}\n")
    assert (await files.reload("one")).error is None
    assert (await core.hooks.call("on_message", {"text": "x"})).replies == [{"n": 3}]


@anyio_test
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_engine_watches_if_told_so(tmp_path: Path, anyio_backend: str) -> None:
    path = write(tmp_path / "hooks/one.py", "def on_message(m): return {'n': 1}\n")
    (tmp_path / "eventcore.toml").touch()
    reload = Settings.model_validate({"hooks": {"reload": True}})
    async with EventCore(tmp_path, store="memory:", settings=reload, clock=HandClock()) as core:
        with anyio.fail_after(30):
            async with core.bus.stream("plugin_reloaded") as events:
                touch(path, "def on_message(m): return {'n': 2}\n")
                async for event in events:
                    assert event.data["plugin"] == "one"
                    break
        assert (await core.hooks.call("on_message", {"text": "x"})).replies == [{"n": 2}]


@anyio_test
async def test_a_hook_declared_later_takes_the_functions_of_its_name(core: EventCore, tmp_path: Path) -> None:
    from eventcore.hooks.specs import HookSpec

    path = write(tmp_path / "one.py", "def on_price(p): return {'cents': 1}\nasync def on_other(e): return 1\n")
    found = core.engine.hook_files.load("one", path)
    assert found.events == ["price", "other"]
    core.hooks.declare(HookSpec("on_price"))
    assert (found.handlers, found.events) == (["one.on_price"], ["other"])
    assert (await core.hooks.call("on_price", {})).replies == [{"cents": 1}]
    assert len(await core.bus.emit_and_wait("price")) == 0
