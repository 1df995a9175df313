"""SIGKILL while durable subscriptions work: nothing is lost, and effects are there exactly when their ack is."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from eventcore.kernel.event import Event
from eventcore.kernel.faults import FAULT_POINTS, FaultPlan
from eventcore.kernel.records import EventQuery
from eventcore.storage.sqlite import SqliteStore

pytestmark = [pytest.mark.violent, pytest.mark.timeout(900)]

DRIVER = Path(__file__).with_name("durable_driver.py")
POINTS = [point for point in FAULT_POINTS if point.startswith(("delivery.", "emit.", "store."))]


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("durable_driver", DRIVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Found:
    """What is on the disk: events, and by subscriber its cursor and the positions that are settled above it."""

    events: list[Event] = field(default_factory=list)
    cursors: dict[str, int] = field(default_factory=dict)
    settled: dict[str, set[int]] = field(default_factory=dict)

    def jobs(self) -> dict[int, int]:
        """Number -> position."""
        return {event.data["n"]: event.position for event in self.events if event.type == "job"}

    def acknowledged(self, name: str) -> set[int]:
        at, above = self.cursors.get(name, 0), self.settled.get(name, set())
        return {number for number, position in self.jobs().items() if position <= at or position in above}

    def effects(self, name: str) -> Counter[int]:
        return Counter(event.data["n"] for event in self.events if event.type == f"{name}_done")


class Place:
    def __init__(self, worker: ModuleType, folder: Path) -> None:
        self.worker, self.folder = worker, folder
        self.home, self.log = folder / "home", folder / "log"
        self.home.mkdir(parents=True)
        (self.home / "eventcore.toml").touch()
        self.log.touch()

    def command(self) -> list[str]:
        return [sys.executable, str(DRIVER), str(self.home), str(self.log)]

    def die(self, fault: str) -> int:
        env = {**os.environ, "EVENTCORE_FAULT": fault}
        return subprocess.run(self.command(), env=env, timeout=240, stdout=subprocess.DEVNULL).returncode

    def finish(self) -> None:
        assert subprocess.run(self.command(), timeout=240, stdout=subprocess.DEVNULL).returncode == 0

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.log.read_text().splitlines()) if line["kind"] == kind]

    def found(self) -> Found:
        """Read from a copy: reading tidies up SQLite's log, which is for the next engine to do."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in (self.home / ".eventcore").glob("eventcore.db*"):
            shutil.copy(file, copy)
        return anyio.run(read, copy / "eventcore.db", list(self.worker.SUBSCRIBERS))

    def check(self) -> None:
        """What holds at every moment, after any kill."""
        found = self.found()
        for receipt in self.lines("receipt"):
            assert found.jobs()[receipt["n"]] == receipt["position"], "an acknowledged emit is gone"
        for name in self.worker.SUBSCRIBERS:
            handled = {line["n"] for line in self.lines("handled") if line["by"] == name}
            acknowledged = found.acknowledged(name)
            assert acknowledged <= handled, f"the cursor of {name} has passed what was not handled"
            # All of an acknowledgement's effects, and no other, once.
            assert found.effects(name) == Counter(acknowledged), f"effects of {name} do not fit its acknowledgements"

    def check_finished(self) -> None:
        self.check()
        found = self.found()
        for name in self.worker.SUBSCRIBERS:
            assert found.acknowledged(name) == set(range(self.worker.JOBS))
            assert not found.settled[name], "rows are left behind"
            by_key: dict[str, list[int]] = {}
            for line in self.lines("handled"):
                if line["by"] == name and line["n"] not in by_key.setdefault(line["key"], []):
                    by_key[line["key"]].append(line["n"])
            for key, numbers in by_key.items():
                assert numbers == sorted(numbers), f"{name} got {key} out of order"


async def read(path: Path, names: list[str]) -> Found:
    found = Found()
    async with AsyncExitStack() as stack:
        store = SqliteStore(path)
        await store.start(stack)
        after = 0
        while page := await store.events(EventQuery(after=after, limit=500)):
            found.events += page
            after = page[-1].position
        for name in names:
            cursor = await store.cursor("default", name)
            found.cursors[name] = cursor.position if cursor else 0
            rows = await store.deliveries("default", name, 10_000)
            found.settled[name] = {row.position for row in rows if row.state == "settled"}
    return found


@pytest.fixture(scope="module")
def hits(worker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often each point is reached in a life without a fault."""
    place, plan = Place(worker, tmp_path_factory.mktemp("hits")), FaultPlan()
    anyio.run(worker.work, place.home, place.log, plan)
    place.check_finished()
    return dict(plan.hits)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_fault_point(
    point: str,
    worker: ModuleType,
    hits: dict[str, int],
    tmp_path: Path,
    dice: random.Random,
    prove: bool,
    report: list[str],
) -> None:
    assert hits[point] > 10
    # The number of commits differs from life to life, so that the very last hits are not certain to come: the busier
    # the machine, the more of them share a group. The first ones are, so one of the two is among them.
    most = hits[point] * 2 // 3
    chosen = range(1, most + 1) if prove else sorted((dice.randint(1, most // 3), dice.randint(most // 3 + 1, most)))
    died = 0
    for hit in chosen:
        place = Place(worker, tmp_path / str(hit))
        died += place.die(f"{point}:{hit}") == -9
        place.check()
        place.finish()
        place.check_finished()
    assert died
    report.append(f"{point:22} durable subscribers killed at {died} of {len(chosen)} hits; nothing lost")


def test_killed_at_random_again_and_again(
    worker: ModuleType, tmp_path: Path, dice: random.Random, prove: bool, report: list[str]
) -> None:
    """At any moment, the time after a start included."""
    kills = 0
    for number in range(40 if prove else 2):
        place = Place(worker, tmp_path / str(number))
        for _ in range(5 if prove else 3):
            process = subprocess.Popen(place.command(), stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(dice.uniform(0.0, 0.15))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.wait()
            process.stdout.close()
            place.check()
        place.finish()
        place.check_finished()
    report.append(f"{kills} random kills of durable subscribers; nothing lost")
