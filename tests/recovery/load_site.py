"""A home in which `load_driver.py` is killed again and again, and the check of what must hold after each kill.

The database is read with plain sqlite3, from a copy: none of the code that is on trial looks at it, and SQLite's log is
left for the next engine to tidy up.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.recovery.load_driver import SUBSCRIBERS, WORKFLOW, kind

DRIVER = Path(__file__).with_name("load_driver.py")
KILLED = -9


@dataclass
class Found:
    """What is on the disk."""

    positions: list[int] = field(default_factory=list)
    jobs: dict[int, int] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)
    emitted: Counter[int] = field(default_factory=Counter)
    at: dict[int, int] = field(default_factory=dict)
    effects: Counter[tuple[str, int]] = field(default_factory=Counter)
    started: Counter[int] = field(default_factory=Counter)
    running: int = 0
    cursors: dict[str, int] = field(default_factory=dict)
    rows: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    letters: int = 0

    def acknowledged(self, name: str) -> set[int]:
        """Positions of the jobs that this subscriber is done with, as the store has it."""
        cursor, rows = self.cursors.get(name, 0), self.rows[name]
        return {at for at in self.jobs if rows.get(at) == "settled" or (at <= cursor and at not in rows)}


def read(path: Path) -> Found:
    found = Found()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        both = "SELECT position FROM events UNION ALL SELECT position FROM journal ORDER BY position"
        found.positions = [position for (position,) in db.execute(both)]
        for position, type_, key, raw in db.execute(
            "SELECT position, type, key, raw FROM events WHERE type IN ('job', 'mark', 'effect') ORDER BY position"
        ):
            data = json.loads(raw)
            if type_ == "effect":
                found.effects[data["by"], data["n"]] += 1
                continue
            found.emitted[data["n"]] += 1
            found.at[data["n"]] = position
            if type_ == "job":
                found.jobs[position], found.keys[position] = data["n"], key
        for inputs, status in db.execute("SELECT raw_inputs, status FROM runs"):
            found.started[json.loads(inputs)["start"]] += 1
            found.running += status != "completed"
        found.cursors = dict(db.execute("SELECT name, position FROM cursors"))
        for name, position, state in db.execute("SELECT subscription, position, state FROM deliveries"):
            found.rows[name][position] = state
        [found.letters] = db.execute("SELECT count(*) FROM dead_letters").fetchone()
    return found


@dataclass
class Counts:
    """What was proved, for the printed line."""

    kills: int = 0
    checks: int = 0
    acknowledged: int = 0
    deliveries: int = 0
    repeated: int = 0
    effects: int = 0
    runs: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.checks} checks; {self.acknowledged:,} acknowledged emits, "
            f"{self.deliveries:,} deliveries ended well ({self.repeated:,} of them again), "
            f"{self.effects:,} staged effects, {self.runs:,} runs; nothing lost"
        )


class LoadSite:
    """Keeps what it has read of the log, so that each check looks only at what is new."""

    def __init__(self, folder: Path, counts: Counts) -> None:
        self.folder, self.counts = folder, counts
        self.home, self.log = folder / "home", folder / "log"
        (self.home / "workflows").mkdir(parents=True)
        (self.home / "eventcore.toml").touch()
        (self.home / "workflows" / "count_up.yaml").write_text(WORKFLOW, encoding="utf-8")
        self.log.touch()
        self._read = 0
        self._receipts: dict[int, int] = {}
        self._started: set[int] = set()
        self._handled: dict[str, set[int]] = {name: set() for name in SUBSCRIBERS}
        self._done: dict[str, set[int]] = {name: set() for name in SUBSCRIBERS}

    # -- lives -------------------------------------------------------------------------------------------------------

    def begin(self, seconds: float, fault: str = "") -> subprocess.Popen[str]:
        """Start the driver; return when it begins to emit, or when it has died."""
        env = {**os.environ, **({"EVENTCORE_FAULT": fault} if fault else {})}
        command = [sys.executable, str(DRIVER), str(self.home), str(self.log), str(seconds)]
        # Handlers fail on purpose, by the thousand: what is logged of that is kept for whoever looks for a failure.
        with (self.folder / "errors").open("a") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        return process

    def kill_after(self, moment: float) -> None:
        """A life that is killed so many seconds after it began to emit."""
        process = self.begin(moment + 600)
        try:
            ended = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            ended = process.wait()
        assert ended == KILLED, f"the driver ended by itself with {ended}"
        self.counts.kills += 1
        self.check()

    def die_at(self, fault: str, seconds: float) -> bool:
        """A life that dies at a fault point; whether it was reached."""
        ended = self.begin(seconds, fault).wait(seconds + 200)
        assert ended in (0, KILLED)
        self.counts.kills += ended == KILLED
        self.check()
        return ended == KILLED

    def finish(self) -> None:
        """A life that deals with all there is; then nothing may be left."""
        assert self.begin(0).wait(450) == 0
        found = self.check()
        for name in SUBSCRIBERS:
            assert self._handled[name] == set(found.jobs), f"{name} did not get every event"
            assert found.acknowledged(name) == set(found.jobs)
            assert not found.rows[name], f"rows of {name} are left behind"
        assert not found.letters
        assert not found.running, "runs have not ended"
        self.counts.acknowledged += len(self._receipts)
        self.counts.effects += found.effects.total()
        self.counts.runs += found.started.total()
        shutil.rmtree(self.folder)

    # -- the check ---------------------------------------------------------------------------------------------------

    def _found(self) -> Found:
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in (self.home / ".eventcore").glob("eventcore.db*"):
            shutil.copy(file, copy)
        return read(copy / "eventcore.db")

    def check(self) -> Found:
        """What holds at every moment, after any kill."""
        self.counts.checks += 1
        found = self._found()
        assert found.positions == list(range(1, len(found.positions) + 1)), "the history has holes"
        assert set(found.emitted.values()) <= {1}, "an event is there twice"
        self._look_at_log(found)
        for number, position in self._receipts.items():
            assert found.at.get(number) == position, f"the acknowledged emit of {number} is gone"
        # The event and the run that it starts are one commit: both are there or neither.
        marks = {number for number in found.emitted if kind(number) == "mark"}
        assert {number for number in found.started if kind(number) == "mark"} == marks
        assert set(found.started.values()) <= {1}, "a run was started twice"
        assert self._started <= set(found.started), "an acknowledged run is gone"
        effects = Counter[tuple[str, int]]()
        for name, how in SUBSCRIBERS.items():
            acknowledged = found.acknowledged(name)
            lost = acknowledged - self._handled[name]
            assert not lost, f"the cursor of {name} has passed what was not handled: {sorted(lost)[:5]}"
            passed = {at for at, state in found.rows[name].items() if state != "settled" and at <= found.cursors[name]}
            assert not passed, f"the cursor of {name} has passed what waits: {sorted(passed)[:5]}"
            assert self._done[name] <= acknowledged, f"an acknowledgement of {name} was taken back"
            self._done[name] = acknowledged
            if how.stages:
                effects.update((name, n) for at in acknowledged if (n := found.jobs[at]) % how.stages == 0)
        # All effects of each acknowledgement, once, and no others.
        assert found.effects == effects, "effects do not fit the acknowledgements"
        return found

    def _look_at_log(self, found: Found) -> None:
        """Take in what the last life has written. Each key's next delivery comes when all before it were handled."""
        waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
        for at in sorted(found.jobs, reverse=True):
            for name in SUBSCRIBERS:
                if at not in self._handled[name]:
                    waiting[name, found.keys[at]].append(at)
        with self.log.open() as file:
            file.seek(self._read)
            lines = file.read().splitlines()
            self._read = file.tell()
        for what, *words in map(str.split, lines):
            if what == "emitted":
                number, position = map(int, words)
                assert self._receipts.setdefault(number, position) == position, "two receipts for one emit"
            elif what == "started":
                self._started.add(int(words[0]))
            elif what in ("begun", "handled"):
                name, at = words[0], int(words[1])
                assert at in found.jobs, "what was delivered is not stored"
                assert at not in self._done[name], f"{name} had acknowledged {at}, and got it again"
                ahead = waiting[name, found.keys[at]]
                first = ahead[-1] if ahead else at
                assert first == at or at in self._handled[name], f"{name} got {at} before {first} of the same key"
                if what == "handled":
                    self.counts.deliveries += 1
                    self.counts.repeated += at in self._handled[name]
                    if at not in self._handled[name]:
                        ahead.pop()
                        self._handled[name].add(at)
