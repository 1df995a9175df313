"""A home in which `verbs_driver.py` is killed again and again, and what must hold after each kill.

The database is read with plain sqlite3, from a copy: none of the code that is on trial looks at it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.recovery.shapes_site import KILLED

DRIVER = Path(__file__).with_name("verbs_driver.py")
#: The event that tells that a verb was carried out; of the first ones there is one for each time.
_EACH = {
    "pause": "workflow_paused",
    "resume": "workflow_resumed",
    "retry": "workflow_retried",
    "signal": "workflow_signalled",
    "decide": "approval_decided",
}
_ONCE = {"cancel": "workflow_cancelling", "terminate": "workflow_cancelled"}
_BOTH = "SELECT type, run, raw FROM events UNION ALL SELECT type, run, raw FROM journal"


class VerbsSite:
    """A home, its log, and what was found in it after the life before."""

    def __init__(self, folder: Path, seed: int, counts: Counter[str]) -> None:
        self.folder, self.seed, self.counts = folder, seed, counts
        self.home, self.log = folder / "home", folder / "log"
        self.home.mkdir(parents=True)
        (self.home / "eventcore.toml").touch()
        self.log.touch()
        self._lives, self._acked = 0, list[tuple[str, str]]()
        self._done: set[tuple[str, str]] = set()
        self._effects: Counter[tuple[str, str]] = Counter()

    def live(self, moves: int, fault: str = "", kill_after: float | None = None) -> bool:
        """A life; whether it was killed. With no moves it comes to the end."""
        self._lives += 1
        env = {**os.environ, "PYTHONPATH": str(DRIVER.parents[2]), **({"EVENTCORE_FAULT": fault} if fault else {})}
        words = [str(DRIVER), str(self.home), str(self.log), str(self.seed), str(self._lives), str(moves)]
        with (self.folder / "errors").open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=subprocess.PIPE, stderr=errors, text=True, env=env
            )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        try:
            ended = process.wait(120 if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            ended = process.wait()
        assert ended in (0, KILLED), (self.seed, (self.folder / "errors").read_text()[-6000:])
        self.counts["kills"] += ended == KILLED
        self.check()
        return ended == KILLED

    def finish(self) -> None:
        """A life that helps all runs to their end; then nothing is left behind."""
        assert not self.live(0)
        with closing(sqlite3.connect(self.folder / "copy" / "eventcore.db")) as db:
            assert db.execute("SELECT slug, status FROM runs WHERE live = 1").fetchall() == []
            assert db.execute("SELECT id FROM timers UNION ALL SELECT id FROM listening").fetchall() == []
            self.counts["runs"] += db.execute("SELECT count(*) FROM runs").fetchone()[0]
        self.counts.update(verb for verb, _ in self._acked)
        shutil.rmtree(self.folder)

    def check(self) -> None:
        """What was acknowledged is there; what was finished was not called again; no run ended twice."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in (self.home / ".eventcore").glob("eventcore.db*"):
            shutil.copy(file, copy)
        lines = [line.split() for line in self.log.read_text().splitlines()]
        effects = Counter((words[1], words[2]) for words in lines if words[0] == "effect")
        with closing(sqlite3.connect(copy / "eventcore.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            self._check_acked(db, [(words[1], words[2]) for words in lines if words[0] == "acked"])
            rows = db.execute("SELECT run, subject, raw FROM journal WHERE type = 'step_completed'")
            done = {(run, step) for run, step, raw in rows if json.loads(raw)["status"] == "completed"}
        again = [step for step in self._done if effects[step] != self._effects[step]]
        assert not again, f"completed, and called again: {again[:3]} (seed {self.seed})"
        self._done, self._effects = done, effects

    def _check_acked(self, db: sqlite3.Connection, acked: list[tuple[str, str]]) -> None:
        there: Counter[tuple[str, str]] = Counter()
        for type_, run, raw in db.execute(_BOTH):
            about = json.loads(raw).get("run") if type_ in ("workflow_signalled", "approval_decided") else run
            there[type_, about] += 1
        runs = {run for (run,) in db.execute("SELECT id FROM runs")}
        for (verb, run), times in Counter(acked).items():
            assert run in runs, f"{verb} of {run} was acknowledged, and the run is gone"
            if verb in _EACH:
                assert there[_EACH[verb], run] >= times, f"{verb} of {run} was acknowledged, and is lost ({self.seed})"
            elif verb in _ONCE:
                assert there[_ONCE[verb], run], f"{verb} of {run} was acknowledged, and is lost ({self.seed})"
        self._acked = acked
        ends = Counter(
            run for (type_, run), times in there.items() for _ in range(times) if type_ == "workflow_completed"
        )
        again = Counter(
            run for (type_, run), times in there.items() for _ in range(times) if type_ == "workflow_retried"
        )
        twice = [run for run, times in ends.items() if times > 1 + again[run]]
        assert not twice, f"ended twice: {twice[:3]} (seed {self.seed})"
