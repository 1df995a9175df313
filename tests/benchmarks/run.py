"""Measures the figures, prints a table, and exits 1 if one misses its limit.

    python -m tests.benchmarks [--only NAME]... [--json] [--write] [--attempts 3] [--quick]

Ours and the peer take turns round by round. A figure that misses is measured again, and the median of the attempts'
medians holds: a busy machine is no reason to lower a limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.figures import FIGURES, QUICK
from tests.benchmarks.measure import SCRATCH, Line, NotMeasured, Result

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_COLUMNS = ("figure", "ours", "min - max", "peer", "peer's", "ratio", "limit", "")


def measured(
    name: str, attempts: int, figures: dict[str, tuple[Callable[[], list[Line]], tuple[Line, ...]]]
) -> list[Result]:
    """A figure's lines. If one misses at first, all attempts are made: to stop at a good one would flatter us."""
    measure, absent = figures[name]
    results: dict[str, Result] = {}
    for _ in range(attempts):
        try:
            lines = measure()
        except NotMeasured as why:
            print(f"{name} could not be measured: {why}", file=sys.stderr)
            if results:  # another attempt has an answer
                break
            return [Result([Line(line.name, line.unit, limit=line.limit, problem=str(why))]) for line in absent]
        for line in lines:
            results.setdefault(line.name, Result([])).attempts.append(line)
        if all(line.verdict() != "MISS" for line in lines) and all(len(one.attempts) == 1 for one in results.values()):
            break
    return list(results.values())


def cells(result: Result) -> tuple[str, ...]:
    """A line of the table."""
    line = result.line
    if line.problem:
        return (line.name, "not measured", "", "", "", "", str(line.limit), f"{line.verdict()}: {line.problem}")
    peer = line.peer_value
    return (
        line.name,
        f"{_short(line.value)} {line.unit}",
        " - ".join(map(_short, result.span)),
        line.peer,
        "" if peer is None else _short(peer),
        "" if line.ratio is None else f"{line.ratio:.2f}x",
        str(line.limit),
        line.verdict() + (f" ({len(result.attempts)} attempts)" if len(result.attempts) > 1 else ""),
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads, for a terminal."""
    everything = [_COLUMNS, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(_COLUMNS) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in everything
    )


def machine() -> str:
    """What the figures were measured on, without its name."""
    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    return (
        f"{os.cpu_count()} x {_processor()}, {_memory()} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; fsync of 4 KiB {_fsync() * 1e6:,.0f} us; load average {load}"
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [row.partition(":")[2].strip() for row in text.splitlines() if row.startswith("model name")]
    return names[0] if names else "unknown processor"


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _fsync() -> float:
    """Median seconds to make 4 KiB durable where the databases lie: no figure on disk can beat it."""
    path, times = SCRATCH / "fsync", []
    with path.open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return sorted(times)[len(times) // 2]


_HOW = {
    "startup": "wall time of a console script, ours and a click command printing hello, under the same interpreter",
    "discovery": "1,000 JSON manifests found and entered in the registry, in one process with a warm disk cache, as "
    "it is from the second time on: what has not changed since it was found good is known by its times, size and "
    "inode, and is read when it is asked for. *Never seen*: every manifest is read and checked. *Ready*: a home is "
    "opened in which 500 plugins that only answer intents are enabled; no worker is started",
    "workflows": "ten steps, each an in-process async function with one templated parameter, on SQLite; each "
    "completion is fsync'd before the next step starts, and every event is looked for in the history afterwards. "
    "`burst` is 100 runs at once, `alone` the median of 20 runs one after the other. DBOS runs with its own "
    "SQLite settings, started in whichever of its two ways (called, or by a handle) the warm-up finds faster",
    "plugins": "one warm worker, a plain function that adds one; 400 calls of each kind a round, in turns. A call goes "
    "through the router, roles, both schemas, the worker and metrics, as a workflow's step does; `recorded` is "
    "`core.plugins.run` on the memory store, with its commit. The channel alone is the worker's own round trip",
    "sandbox": "one subject, by turns in one process. The echo answers 64 bytes over a socket pair, asyncio on both "
    "ends; the pool is a `ProcessPoolExecutor` of one, awaited; a call of an intent goes through roles, schemas, time "
    "limit and metrics. Where the kernel puts two processes that talk is chance, and a wake-up across processors "
    "costs 40 us here, so calls are also measured with all on one processor, and with the host on one and the "
    "others on another. 32 at a time: an async function. A fresh worker is confined, loaded and called; its "
    "process was forked ahead if there was time, and the line after it is one that is asked for right behind it, "
    "which is forked on the spot. The tree is 31 processes that ignore every signal they can. CPU share: 25% of a "
    "core for two seconds, without control groups",
    "bus": "transient: until all async subscriptions (isolated, in order, with time limits) have counted every event, "
    "against `blinker.Signal.send_async` with as many receivers. recorded: one publisher that waits for each fsync'd "
    "commit, median of 300, against a row with two indexes on a bare aiosqlite connection, also fsync'd",
    "recorded": "10,000 events of 100 publishers that each wait for their fsync'd commit, until the cursor of one "
    "durable subscriber that acknowledges each is stored at the last one; the round's events are then counted by "
    "type, pattern, source, subject, actor, time, correlation, data and text. The bare writer is one thread that "
    "inserts everything queued as one transaction, the same 21 columns with two indexes, its publishers waiting for "
    "each commit (or, in the line without a limit, for nothing). huey and persist-queue put, take and acknowledge "
    "1,000 items with `synchronous=FULL`, by 100 publishing threads or by one, whichever the warm-up finds faster",
    "hooks": "`bench_hooks.py`: a gate, a filter, two replies and an observer, async functions of this process, with "
    '`record="never"`',
    "history": "median of 40 pages of the last 100 events of one of 20 types, payloads decoded, from a warm file, by "
    "`core.history` and by sqlite3 in the same process",
    "idle": "resident memory and CPU time of 10,000 subscriptions to as many types, over three seconds, beyond what "
    "the engine had before them; for CPU the peer is the same engine without them",
    "workers": "the same ten steps as calls of a plugin in its sandboxed worker",
    "store": "`bench_store.py`: commits of a run's move with its guard and two journal entries",
    "channel": "`bench_worker.py`: calls of a warm worker",
}


def merged(old: str, rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The rows of an older page, each that was measured now in place of its older self, and the new ones after them."""
    fresh = {row[0]: row for row in rows}
    kept: list[Sequence[str]] = []
    for text in old.splitlines():
        row = [cell.strip() for cell in text.removeprefix("| ").removesuffix(" |").split(" | ")]
        if text.startswith("| ") and len(row) == len(_COLUMNS) and row[0] not in (_COLUMNS[0], "---"):
            kept.append(fresh.pop(row[0], row))
    return [*kept, *fresh.values()]


def page(rows: Sequence[Sequence[str]], where: str) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m tests.benchmarks --write`; `make bench` measures and exits 1 on a miss. Ours and the",
        "peer take turns round by round in the same run. A value is the median of its rounds, a ratio the median of",
        "the rounds' ratios of ours to the peer's. A figure that misses is measured three times; the median holds.",
        "",
        f"Last measured on {where}. With `--only` some rows are measured anew and the others stay as they were.",
        "",
        "| " + " | ".join((*_COLUMNS[:-1], "verdict")) + " |",
        "|" + " --- |" * len(_COLUMNS),
        *("| " + " | ".join(cell or " " for cell in row) + " |" for row in rows),
        "",
        "How:",
        "",
        *(f"- **{name}**: {how}." for name, how in _HOW.items()),
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=[*FIGURES], help="measure this figure; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON line a row instead of the table")
    parser.add_argument(
        "--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}; with --only, just its rows"
    )
    parser.add_argument("--attempts", type=int, default=3, help="how often to measure a figure that misses (3)")
    parser.add_argument("--quick", action="store_true", help="fewer events where making them takes long")
    options = parser.parse_args(arguments)
    if options.quick:
        if options.write:
            parser.error("--write needs the full sizes; leave --quick out")
        os.environ[QUICK] = "1"
    SCRATCH.mkdir(exist_ok=True)
    where = machine()
    results: list[Result] = []
    for name in options.only or FIGURES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        results += measured(name, options.attempts, FIGURES)
    rows = [cells(result) for result in results]
    if options.json:
        print("\n".join(json.dumps(result.as_dict()) for result in results))
    else:
        print(f"on {where}\n\n{table(rows)}")
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        old = PAGE.read_text() if options.only and PAGE.exists() else ""
        PAGE.write_text(page(merged(old, rows), where))
    return int(any(result.line.verdict() == "MISS" for result in results))
