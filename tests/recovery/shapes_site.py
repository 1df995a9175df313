"""A home in which `shapes_driver.py` is killed again and again, and the check of what must hold after each kill.

The database is read with plain sqlite3, from a copy: none of the code that is on trial looks at it.
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
from typing import Any

import yaml

from tests.recovery.shapes import HOOK_FILE, SHAPES, definitions
from tests.recovery.shapes_driver import shape_of

DRIVER = Path(__file__).with_name("shapes_driver.py")
KILLED = -9
#: Journal entries between snapshots: few, so that runs of a dozen steps go on from several.
_EVERY = 4
_OVER = ("completed", "failed", "cancelled", "terminated")


# A snapshot says how many entries its run had up to where it ends; an entry is there, and the run goes on.
_AMISS = """
SELECT run, position, count FROM snapshots s
WHERE count <> (SELECT count(*) FROM journal j WHERE j.run = s.run AND j.position <= s.position)
   OR NOT EXISTS (SELECT 1 FROM journal j WHERE j.run = s.run AND j.position = s.position)
   OR NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = s.run AND r.live = 1)
"""


@dataclass
class Found:
    """What is on the disk.

    Attributes:
        runs: (slug, status, output as JSON or None, parent) by id.
        done: how often each (run, path) has a `step_completed`; `well` those of calls that ended well.
        order: the paths that were completed, by run, in order.
        left: rows of timers and of waits, and snapshots.
        kept: how many runs have a snapshot.
    """

    runs: dict[str, tuple[str, str, Any, str | None]] = field(default_factory=dict)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    well: set[tuple[str, str]] = field(default_factory=set)
    order: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    ends: Counter[str] = field(default_factory=Counter)
    emitted: Counter[int] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    kept: int = 0


def read(path: Path) -> Found:
    found = Found()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        both = "SELECT position FROM events UNION ALL SELECT position FROM journal ORDER BY position"
        positions = [position for (position,) in db.execute(both)]
        assert positions == list(range(1, len(positions) + 1)), "the history has holes"
        for run, slug, status, output, parent in db.execute("SELECT id, slug, status, raw_output, parent FROM runs"):
            found.runs[run] = (slug, status, None if output is None else json.loads(output), parent)
        for run, step, raw in db.execute(
            "SELECT run, subject, raw FROM journal WHERE type = 'step_completed' ORDER BY position"
        ):
            found.done[run, step] += 1
            found.order[run].append(step)
            data = json.loads(raw)
            # A `foreach` names its intent too, but is no call.
            if data["status"] == "completed" and data.get("plugin") == "mark" and isinstance(data["output"], dict):
                found.well.add((run, step))
        for run, type_, raw in db.execute(
            "SELECT run, type, raw FROM events WHERE type IN ('workflow_completed', 'parcel_signed')"
        ):
            if type_ == "workflow_completed":
                found.ends[run] += 1
            else:
                found.emitted[json.loads(raw)["n"]] += 1
        [(found.kept,)] = db.execute("SELECT count(*) FROM snapshots")
        assert db.execute(_AMISS).fetchall() == [], "a snapshot does not fit its journal"
        found.left += [f"snapshot of {run}" for (run,) in db.execute("SELECT run FROM snapshots")]
        for table in ("timers", "listening"):
            found.left += [f"{table}: {name}" for (name,) in db.execute(f"SELECT id FROM {table}")]
    return found


@dataclass
class Counts:
    """What was proved, for the printed line."""

    kills: int = 0
    runs: int = 0
    steps: int = 0
    effects: int = 0
    repeated: int = 0
    midway: int = 0
    kept: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.midway} while some runs were over and others not); {self.runs:,} runs of "
            f"{len(SHAPES)} shapes and their children ended right; {self.steps:,} steps, {self.effects:,} effects "
            f"outside, {self.repeated:,} of them again for a step that failed or was interrupted, none if finished; "
            f"{self.kept:,} times a run of which there was a snapshot was left behind"
        )


class ShapesSite:
    """A home and its log. `runs` are started at once; see `shapes_driver`."""

    def __init__(self, folder: Path, runs: int, counts: Counts) -> None:
        self.folder, self.runs, self.counts = folder, runs, counts
        self.home, self.log = folder / "home", folder / "log"
        (self.home / "workflows").mkdir(parents=True)
        (self.home / "hooks").mkdir()
        (self.home / "eventcore.toml").touch()
        (self.home / "hooks" / "answer.py").write_text(HOOK_FILE, encoding="utf-8")
        for one in definitions():
            (self.home / "workflows" / f"{one['slug']}.yaml").write_text(yaml.safe_dump(one), encoding="utf-8")
        self.log.touch()
        self._before = Found()
        self._effects: Counter[tuple[str, str]] = Counter()
        self._lives = 0

    # -- lives -------------------------------------------------------------------------------------------------------

    def begin(self, fault: str = "") -> subprocess.Popen[str]:
        """Start the driver; return when its engine is open, or when it has died."""
        env = {**os.environ, **({"EVENTCORE_FAULT": fault} if fault else {})}
        env["PYTHONPATH"] = str(DRIVER.parents[2])
        # Every other life keeps no snapshots, and takes over runs of which there are old ones.
        self._lives += 1
        every = _EVERY if self._lives % 2 else 1_000_000
        command = [sys.executable, str(DRIVER), str(self.home), str(self.log), str(self.runs), str(every)]
        with (self.folder / "errors").open("a") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        return process

    def kill_after(self, moment: float) -> bool:
        """A life that is killed so many seconds after its engine was open; whether it was not over before."""
        process = self.begin()
        try:
            ended = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            ended = process.wait()
        return self._ended(ended)

    def die_at(self, fault: str) -> bool:
        """A life that dies at a fault point; whether it was reached."""
        return self._ended(self.begin(fault).wait(300))

    def _ended(self, code: int) -> bool:
        assert code in (0, KILLED), (self.folder / "errors").read_text()[-4000:]
        self.counts.kills += code == KILLED
        self.counts.kept += self.check().kept
        return code == KILLED

    def finish(self) -> None:
        """A life that comes to the end; then everything must be as if nothing had happened."""
        assert self.begin().wait(300) == 0, (self.folder / "errors").read_text()[-4000:]
        found = self.check()
        self._check_ends(found)
        self.counts.runs += len(found.runs)
        self.counts.steps += found.done.total()
        self.counts.effects += self._effects.total()
        self.counts.repeated += sum(count - 1 for count in self._effects.values())
        shutil.rmtree(self.folder)

    # -- the check ---------------------------------------------------------------------------------------------------

    def check(self) -> Found:
        """What holds at every moment, after any kill."""
        found, before = self._found(), self._before
        for run, (slug, status, output, parent) in before.runs.items():
            assert run in found.runs, f"run {run} of {slug} is gone"
            if status in _OVER:
                assert found.runs[run] == (slug, status, output, parent), f"{slug} ended twice, and differently"
        for step in before.well:
            assert step in found.well, f"the completion of {step} was taken back"
        assert set(found.done.values()) <= {1}, f"completed twice: {found.done.most_common(3)}"
        assert set(found.ends.values()) <= {1}, "a run ended twice"
        limited = Counter(status for slug, status, _, _ in found.runs.values() if slug == "limited")
        assert limited["running"] + limited["waiting"] + limited["paused"] <= 3, f"over the limit: {limited}"
        self._check_log(found, before)
        over = sum(status in _OVER for _, status, _, _ in found.runs.values())
        self.counts.midway += 0 < over < len(found.runs)
        self._before = found
        return found

    def _found(self) -> Found:
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        state = self.home / ".eventcore"
        for file in state.glob("eventcore.db*"):
            shutil.copy(file, copy)
        return read(copy / "eventcore.db") if (copy / "eventcore.db").exists() else Found()

    def _check_log(self, found: Found, before: Found) -> None:
        lines = [line.split(maxsplit=3) for line in self.log.read_text().splitlines()]
        effects: Counter[tuple[str, str]] = Counter()
        keys: dict[tuple[str, str], set[str]] = defaultdict(set)
        for words in lines:
            if words[0] == "effect":
                effects[words[1], words[2]] += 1
                keys[words[1], words[2]].add(words[3])
            elif words[0] == "started":
                assert words[2] in found.runs, "an acknowledged run is gone"
            elif words[0] == "result":
                assert words[2] in _OVER
        for step in before.well:
            assert effects[step] == self._effects[step], f"{step} was completed, and was called again"
        assert found.well <= effects.keys()
        assert all(len(one) == 1 for one in keys.values()), "a step changed its idempotency key"
        assert len({key for one in keys.values() for key in one}) == len(keys), "two steps had one idempotency key"
        self._effects = effects

    def _check_ends(self, found: Found) -> None:
        mine = {}
        for words in (line.split(maxsplit=3) for line in self.log.read_text().splitlines()):
            if words[0] == "started":
                assert mine.setdefault(int(words[1]), words[2]) == words[2], "started twice"
        assert mine.keys() == {*range(self.runs)}
        for number, run in mine.items():
            shape, (slug, status, output, _) = SHAPES[shape_of(number)], found.runs[run]
            assert (slug, status) == (shape_of(number), shape.status), (self.folder, run)
            assert output == (shape.output(number) if shape.output else None), (slug, output)
            undone = [path for path in found.order[run] if path.endswith("~undo")]
            assert undone == [*shape.undone], (slug, undone)
        roots = [run for run, (_, _, _, parent) in found.runs.items() if parent is None]
        assert sorted(roots) == sorted(mine.values()), "there are runs that nobody started"
        assert Counter(found.ends) == dict.fromkeys(found.runs, 1)
        assert {status for _, status, _, _ in found.runs.values()} <= {*_OVER}
        signed = [number for number in mine if shape_of(number) == "signalled"]
        assert found.emitted == Counter(signed), "an emitted event is missing or doubled"
        assert not found.left, f"left behind: {found.left[:5]}"
