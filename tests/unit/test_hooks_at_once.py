"""Handlers that cannot wait are called without a time limit; all others have one."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.bus.calling import never_waits
from eventcore.hooks.specs import HookSpec
from eventcore.sdk.verdicts import Deny

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


async def numbers() -> AsyncIterator[int]:
    yield 1


async def plain(payload: Any) -> Any:
    return {"n": list(range(3))}


async def awaits(payload: Any) -> Any:
    await anyio.sleep(60)


async def enters(payload: Any) -> Any:
    async with nothing():
        return None


async def loops(payload: Any) -> Any:
    async for _ in numbers():
        return None


async def comprehends(payload: Any) -> Any:
    return [n async for n in numbers()]


def wraps(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapped(*args: Any) -> Any:
        return await function(*args)

    return wrapped


class Handlers:
    async def plain(self, payload: Any) -> Any:
        return None

    async def __call__(self, payload: Any) -> Any:
        return None


@pytest.mark.parametrize("function", [plain, Handlers().plain])
def test_what_cannot_wait(function: Callable[..., Any]) -> None:
    assert never_waits(function)


@pytest.mark.parametrize(
    "function",
    [awaits, enters, loops, comprehends, wraps(plain), Handlers(), functools.partial(plain, 1), len, numbers],
)
def test_what_may_wait_or_cannot_be_told(function: Callable[..., Any]) -> None:
    assert not never_waits(function)


async def test_only_the_one_that_waits_is_cut_off() -> None:
    async with EventCore() as core:
        core.hooks.declare(HookSpec("on_question", record="never", timeout=0.05))
        for owner, function in (("a", plain), ("b", awaits), ("c", plain)):
            core.hooks.register("on_question", function, owner=owner)
        outcome = await core.hooks.call("on_question", {})
    assert [(one.handler, one.status) for one in outcome.trace] == [
        ("a.plain", "ok"),
        ("b.awaits", "timeout"),
        ("c.plain", "ok"),
    ]
    assert outcome.trace[1].error == "ran over its 0.05 s"


async def test_one_that_raises_is_that_handlers_error() -> None:
    async def breaks(payload: Any) -> Any:
        raise ValueError("no")

    async with EventCore() as core:
        core.hooks.declare(HookSpec("on_question", record="never"))
        core.hooks.register("on_question", breaks, owner="a")
        core.hooks.register("on_question", plain, owner="b")
        outcome = await core.hooks.call("on_question", {})
    assert [one.status for one in outcome.trace] == ["error", "ok"]


async def test_calls_are_counted_by_outcome() -> None:
    async def no(payload: Any) -> Any:
        return Deny("no") if payload["n"] else None

    async with EventCore() as core:
        core.hooks.declare(HookSpec("on_question", record="never"))
        core.hooks.register("on_question", no, stage="gate")
        for n in (0, 0, 1):
            await core.hooks.call("on_question", {"n": n})
        for _ in range(2):
            text = core.metrics.text()
            assert 'eventcore_hook_calls_total{hook="on_question",outcome="ok"} 2.0' in text
            assert 'eventcore_hook_calls_total{hook="on_question",outcome="denied"} 1.0' in text
