"""The figures of workflows besides the burst: alone, triggered, waiting, taken over, among others, by the clock."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

from tests.benchmarks.measure import SCRATCH, Limit, Line, Subject

_ROUNDS = 5
_RESUMES = 3
#: Set by `--quick`; see `figures`.
_QUICK = "EVENTCORE_BENCH_QUICK"
_WAITS = 10_000
_SCHEDULES = 10_000
_ENTRIES = 10_000


def alone() -> list[Line]:
    """A run of ten steps, from an event to its first step, and what waits that do not fit add to an emit."""
    run = Line("workflows.one run alone", "ms", peer="ten bare commits", limit=Limit(most_ratio=2.0))
    first = Line("workflows.event to first step, above the commit", "ms", limit=Limit(most=1.0))
    waits = Line(f"workflows.{_WAITS:,} waits, added to an emit", "ms", limit=Limit(most=0.2))
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("waiting.py", "live", folder, str(_WAITS)) as subject:
        for _ in range(_ROUNDS):
            taken = subject.round("alone")
            run.ours.append(taken["ours"] * 1e3)
            run.peers.append(taken["peer"] * 1e3)
            taken = subject.round("first")
            first.ours.append((taken["ours"] - taken["peer"]) * 1e3)
        subject.round("waits")  # what filling leaves behind is not part of it
        for _ in range(_ROUNDS):
            taken = subject.round("waits")
            waits.ours.append((taken["ours"] - taken["peer"]) * 1e3)
    return [run, first, waits]


def resume() -> list[Line]:
    """Opening a home whose engine was killed with ten thousand waiting runs."""
    seconds = Line(f"workflows.resume with {_WAITS:,} waiting runs", "s", limit=Limit(most=2))
    memory = Line(f"workflows.resume with {_WAITS:,} waiting runs, memory", "MB", limit=Limit(most=100))
    tasks = Line(f"workflows.resume with {_WAITS:,} waiting runs, tasks", "tasks", limit=Limit(most=100))
    for _ in range(_RESUMES):
        with TemporaryDirectory(dir=SCRATCH) as folder:
            with Subject("waiting.py", "fill", folder, str(_WAITS)):
                pass  # it kills itself when its input ends
            with Subject("waiting.py", "resume", folder) as subject:
                taken = subject.round()
            seconds.ours.append(taken["seconds"])
            memory.ours.append(taken["megabytes"])
            tasks.ours.append(taken["tasks"])
    return [seconds, memory, tasks]


def finished() -> list[Line]:
    """Starting a run and listing the last 50 among a million finished runs, against an empty store."""
    count = 20_000 if os.environ.get(_QUICK) else 1_000_000
    start = Line(f"workflows.start among {count:,} finished", "ms", peer="an empty store", limit=Limit(most_ratio=1.3))
    last = Line(f"workflows.last 50 of {count:,} finished", "ms", peer="an empty store", limit=Limit(most_ratio=1.3))
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("waiting.py", "finished", folder, str(count)) as subject:
        for _ in range(_ROUNDS):
            for line, what in ((start, "start"), (last, "list")):
                taken = subject.round(what)
                line.ours.append(taken["ours"] * 1e3)
                line.peers.append(taken["peer"] * 1e3)
    return [start, last]


def long() -> list[Line]:
    """From a signal to the next step of a run whose journal is as long as what is warned of, and of one five times as
    long: both go on from their snapshots."""
    line = Line(f"workflows.go on after {_ENTRIES:,} entries", "ms", peer="a short run", limit=Limit(most=200))
    far = Line(f"workflows.go on after {5 * _ENTRIES:,} entries", "ms", peer="a fifth of it", limit=Limit(most=300))
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("waiting.py", "long", folder, str(_ENTRIES)) as subject:
        for _ in range(_ROUNDS):
            taken = subject.round()
            line.ours.append(taken["ours"] * 1e3)
            line.peers.append(taken["peer"] * 1e3)
            far.ours.append(taken["far"] * 1e3)
            far.peers.append(taken["ours"] * 1e3)
    return [line, far]


def cron() -> list[Line]:
    """The CPU of ten thousand schedules of which none is due; 10 ms a second are 1 % of a core."""
    cpu = Line(f"workflows.{_SCHEDULES:,} schedules, CPU", "ms/s", limit=Limit(most=10))
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("waiting.py", "cron", folder, str(_SCHEDULES)) as subject:
        cpu.ours.append(subject.round()["cpu"])
    return [cpu]
