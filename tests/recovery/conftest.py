"""What the recovery tests share: a home to kill engines in, and the check that nothing was lost or done twice."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from eventcore.kernel.event import Event
from eventcore.kernel.records import EventQuery, JournalEntry, Run, RunQuery
from eventcore.storage.sqlite import SqliteStore

DRIVER = Path(__file__).with_name("driver.py")
_REPORT = pytest.StashKey[list[str]]()

#: All hits of every fault point and many random kills, instead of a sample.
PROVE = os.environ.get("EVENTCORE_PROVE") == "1"
SEED = os.environ.get("EVENTCORE_SEED") or str(random.SystemRandom().randrange(10**9))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if lines := config.stash.get(_REPORT, []):
        terminalreporter.section(f"recovery (repeat with EVENTCORE_SEED={SEED})")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the test run."""
    return request.config.stash.setdefault(_REPORT, [])


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that depend on the seed and the test, not on which other tests ran."""
    return random.Random(f"{SEED}:{request.node.name}")


@pytest.fixture(scope="session")
def prove() -> bool:
    return PROVE


@pytest.fixture(scope="session")
def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recovery_driver", DRIVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Stored:
    """What a database holds."""

    events: list[Event] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    journals: dict[str, list[JournalEntry]] = field(default_factory=dict)

    def completed(self) -> set[tuple[str, str]]:
        """(run, step) of every completion in the journals."""
        return {
            (run, entry.step)
            for run, entries in self.journals.items()
            for entry in entries
            if entry.event.type == "step_completed"
        }

    def of_type(self, type: str) -> list[Event]:
        return [event for event in self.events if event.type == type]


async def read_database(path: Path) -> Stored:
    """Everything of interest in a database file."""
    found = Stored()
    async with AsyncExitStack() as stack:
        store = SqliteStore(path)
        await store.start(stack)
        after = 0
        while page := await store.events(EventQuery(after=after, limit=500)):
            found.events += page
            after = page[-1].position
        for run in await store.runs(RunQuery(limit=500)):
            found.runs[run.id] = run
            found.journals[run.id] = await store.journal(run.id)
    return found


class Site:
    """A home, the driver that works in it, and the log of what the driver saw."""

    def __init__(self, driver: ModuleType, folder: Path) -> None:
        self.driver = driver
        self.home, self.log = folder / "home", folder / "log"
        self._folder, self._copies = folder, 0
        driver.make_home(self.home)
        self.log.touch()

    def die(self, mode: str, fault: str) -> int:
        """Run the driver with a fault until it ends; its return code."""
        env = {**os.environ, "EVENTCORE_FAULT": fault}
        return subprocess.run(self._command(mode), env=env, timeout=240).returncode

    def begin(self, mode: str) -> subprocess.Popen[str]:
        """Run the driver; return when it says that it begins to work."""
        process = subprocess.Popen(self._command(mode), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        return process

    def _command(self, mode: str) -> list[str]:
        return [sys.executable, str(DRIVER), mode, str(self.home), str(self.log)]

    def restart(self, mode: str, faults: Any = None) -> None:
        """Open the home again, in this process, and let everything finish."""
        anyio.run(self.driver.work, mode, self.home, self.log, faults)

    def stored(self) -> Stored:
        """What is on the disk, read from a copy: reading tidies up SQLite's log, which is for the next engine to do."""
        self._copies += 1
        copy = self._folder / f"copy-{self._copies}"
        state = self.home / ".eventcore"
        if not (state / "eventcore.db").exists():
            return Stored()
        copy.mkdir()
        for file in state.glob("eventcore.db*"):
            shutil.copy(file, copy)
        found = anyio.run(read_database, copy / "eventcore.db")
        shutil.rmtree(copy)
        return found

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def seen(self) -> Moment:
        """What the driver saw and what is stored, now."""
        return Moment(self.stored(), self.lines())


@dataclass
class Moment:
    """What is stored, and what the world outside has seen, at one time."""

    stored: Stored
    lines: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    def effects(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """The outside effects of each (run, step)."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for line in self.of("effect"):
            found[line["run"], line["step"]].append(line)
        return dict(found)


def check_kept(moment: Moment) -> None:
    """What was acknowledged is stored, once, and the history has no holes. Holds at every moment, after any kill."""
    events = moment.stored.events
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    by_id = {event.id: event for event in events}
    assert len(by_id) == len(events)
    for receipt in moment.of("receipt"):
        event = by_id[receipt["id"]]
        assert (event.position, event.type, event.data) == (receipt["position"], receipt["type"], {"n": receipt["n"]})
    for line in moment.of("started"):
        assert line["run"] in moment.stored.runs
    for line in moment.of("result"):
        assert moment.stored.runs[line["run"]].status == "completed"
    started = {
        (run, entry.step, entry.attempt)
        for run, entries in moment.stored.journals.items()
        for entry in entries
        if entry.event.type == "step_started"
    }
    for line in moment.of("effect"):
        assert (line["run"], line["step"], line["attempt"]) in started  # nothing is called before its start is stored
    triggered = [json.loads(run.raw_trigger_event or "null") for run in moment.stored.runs.values()]
    orders = Counter(event["id"] for event in triggered if event)
    # The event and the run that it starts are one commit: both are there or neither.
    assert orders == Counter(event.id for event in moment.stored.of_type("order_placed"))


def check_not_repeated(before: Moment, after: Moment) -> None:
    """Between two moments with a kill between them: history only grew, and no completed step was called again."""
    older, newer = before.stored.events, after.stored.events
    assert [event.id for event in newer[: len(older)]] == [event.id for event in older]
    effects_before, effects_after = before.effects(), after.effects()
    for step in before.stored.completed():
        assert effects_after.get(step) == effects_before.get(step), f"{step} was completed, and was called again"
    for step, effects in effects_after.items():
        assert len({effect["idempotency_key"] for effect in effects}) == 1, f"{step} changed its idempotency key"
    keys = [effects[0]["idempotency_key"] for effects in effects_after.values()]
    assert len(set(keys)) == len(keys)


def check_finished(moment: Moment, driver: ModuleType) -> None:
    """Every run ended, once, with the right output; each of its steps was completed once."""
    told = Counter((event.type, event.run) for event in moment.stored.events)
    for run in moment.stored.runs.values():
        assert run.status == "completed", run
        assert told["workflow_started", run.id] == told["workflow_completed", run.id] == 1
        assert ("workflow_failed", run.id) not in told
        steps = STEPS_OF[run.slug] = STEPS_OF.get(run.slug) or steps_of(driver.WORKFLOWS[run.slug])
        journal = moment.stored.journals[run.id]
        done = Counter(entry.step for entry in journal if entry.event.type == "step_completed")
        assert done == dict.fromkeys(steps, 1)
        # `b` and `c` of `forked` run beside each other, so only one of them counts for the sum.
        called = sum("plugin:" in text for text in steps.values()) - (run.slug == "forked")
        assert json.loads(run.raw_output or b"") == {"n": json.loads(run.raw_inputs)["start"] + called}
    facts = Counter((e.type, e.data["n"]) for e in moment.stored.events if e.type in ("note_taken", "order_placed"))
    assert set(facts.values()) <= {1}


STEPS_OF: dict[str, dict[str, str]] = {}


def steps_of(definition: str) -> dict[str, str]:
    """Step id -> its line."""
    lines = [line.strip() for line in definition.splitlines() if line.strip().startswith("- {id:")]
    return {line.split("id:")[1].split(",")[0].strip(): line for line in lines}


@pytest.fixture
def site(driver: ModuleType, tmp_path: Path) -> Callable[[], Site]:
    """Makes a new site: `site()`."""
    count = 0

    def make() -> Site:
        nonlocal count
        count += 1
        return Site(driver, tmp_path / str(count))

    return make


class Checks:
    """The checks, for the tests."""

    kept = staticmethod(check_kept)
    not_repeated = staticmethod(check_not_repeated)
    finished = staticmethod(check_finished)
    killed = -signal.SIGKILL


@pytest.fixture(scope="session")
def check() -> type[Checks]:
    return Checks
