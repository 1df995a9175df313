"""A denied payload is nowhere: not with filters, replies, observers, triggers, subscribers, logs, or in the store."""

from __future__ import annotations

import logging
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.hooks.specs import HookSpec
from eventcore.sdk import Deny, Replace
from eventcore.storage.memory import MemoryStore

TURNS = 2_000 if os.environ.get("EVENTCORE_PROVE") else 60


class Case:
    """One random set of handlers on an engine, one call whose payload holds the marker, and who got to see it."""

    def __init__(self, core: EventCore, rng: random.Random, number: int) -> None:
        self.core, self.rng, self.hook = core, rng, f"on_case{number}"
        self.marker = f"Marker{rng.getrandbits(96):024x}"
        self.reached: list[str] = []
        on_error = rng.choice(["skip", "deny"])
        core.hooks.declare(HookSpec(self.hook, timeout=0.02, on_error=on_error))  # type: ignore[arg-type]
        for index in range(rng.randint(1, 8)):
            stage = rng.choice(["gate", "gate", "filter", "reply", "observe"])
            tier = rng.choice(["policy", "plugin", "observer"])
            owner = f"case{number}-{index}"
            handler = self._gate() if stage == "gate" else self._other(stage)
            core.hooks.register(
                self.hook,
                handler,
                stage=stage,  # type: ignore[arg-type]
                tier=tier,  # type: ignore[arg-type]
                owner=owner,
                priority=rng.randint(-1, 1),
            )
        core.hooks.register(self.hook, self._deny, stage="gate", owner=f"case{number}-no", priority=rng.randint(-1, 1))
        core.workflows.define(
            {"slug": f"case{number}", "triggers": [{"event": self.hook}], "steps": [{"id": "a", "emit": "seen"}]}
        )

    def _gate(self) -> Callable[[Any], Awaitable[Any]]:
        """A gate that looks the payload over and then fails in one of the ways there are, quoting it, or passes it."""
        way = self.rng.choice(["pass", "deny", "raise", "hang", "text", "false", "replace", "group"])

        async def gate(payload: Any) -> Any:
            text = payload["text"]
            if way == "raise":
                raise ValueError(f"cannot read {text!r}")
            if way == "group":
                raise ExceptionGroup(text, [KeyError(text)])
            if way == "hang":
                await anyio.sleep_forever()
            answers = {"deny": Deny("no"), "text": text, "false": False, "replace": Replace({"text": text})}
            return answers.get(way)

        return gate

    async def _deny(self, payload: Any) -> Deny:
        return Deny("not allowed")

    def _other(self, stage: str) -> Callable[[Any], Awaitable[Any]]:
        async def handler(payload: Any) -> None:
            self.reached.append(stage)

        return handler

    async def run(self) -> None:
        payload = {"text": self.marker, "deep": [{"again": self.marker}]}
        outcome = await self.core.hooks.call(self.hook, payload)
        assert outcome.denied, outcome
        assert self.marker not in repr(outcome)
        assert self.reached == []


async def play(core: EventCore, seed: int) -> list[str]:
    seen: list[Any] = []
    core.bus.subscribe("**", lambda event: seen.append(event.raw) if b"Marker" in event.raw else None)
    rng = random.Random(seed)
    markers = []
    for number in range(TURNS):
        case = Case(core, rng, number)
        await case.run()
        markers.append(case.marker)
    await core.drain()
    assert seen == []
    assert [run async for run in runs(core)] == []
    assert len(markers) == TURNS
    return markers


async def runs(core: EventCore) -> Any:
    async for event in core.history.query(type="workflow_started"):
        yield event


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_not_in_sqlite_and_not_in_a_log(
    anyio_backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with EventCore(store=f"sqlite:///{tmp_path}/events.db") as core:
        await play(core, 11)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert b"hook_completed" in b"".join(path.read_bytes() for path in files)
    for path in files:
        assert b"Marker" not in path.read_bytes(), path
    assert caplog.records
    assert "Marker" not in caplog.text


def dump(value: Any, seen: set[int]) -> list[str]:
    """Everything that can be reached from `value`, in words."""
    if id(value) in seen or isinstance(value, type) or callable(value):
        return []
    seen.add(id(value))
    if isinstance(value, dict):
        return [line for pair in value.items() for part in pair for line in dump(part, seen)]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [line for part in value for line in dump(part, seen)]
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    names = [*getattr(value, "__dict__", {}), *(name for name in slots if hasattr(value, name))]
    return [repr(value), *(line for name in names for line in dump(getattr(value, name), seen))]


@pytest.mark.anyio
async def test_not_in_memory(anyio_backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with EventCore(store=store) as core:
        await play(core, 12)
        tables = "\n".join(dump(store, set()))
    assert "hook_completed" in tables
    assert "Marker" not in tables
    assert "Marker" not in caplog.text
