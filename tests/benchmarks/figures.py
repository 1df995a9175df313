"""The figures. Each is a function that measures once and returns the lines of the table that come of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks import workflow_figures
from tests.benchmarks.measure import HERE, SCRATCH, Limit, Line, NotMeasured, Subject, seconds_of
from tests.benchmarks.peers import environment

DBOS = "dbos==3.4.0"
LANGGRAPH = ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2")
QUEUES = {"huey": "huey==2.5.3", "persist-queue": "persist-queue==1.0.0"}
#: Set by `--quick`: sizes for development.
QUICK = "EVENTCORE_BENCH_QUICK"

_STARTS = 21
_LISTINGS = 25
_BURSTS = 5
_RUNS = 100
_PROCESSES = 3
_QUEUED = 3
_CALLS = 9

_HELLO = """\
import click

@click.command()
@click.version_option("1.0")
def main():
    click.echo("hello")
"""
#: What an installer writes as a console script.
_SCRIPT = "import sys\nfrom {module} import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


def startup() -> list[Line]:
    """Both as console scripts under the same interpreter and the same site-packages."""
    version = Line("startup.version", "ms", peer="click hello", limit=Limit(most_ratio=1.5))
    help_ = Line("startup.help", "ms", peer="click hello", limit=Limit(most_ratio=2.0))
    with TemporaryDirectory(dir=SCRATCH) as name:
        folder = Path(name)
        (folder / "click_hello.py").write_text(_HELLO)
        scripts = {"eventcore.cli": folder / "ours.py", "click_hello": folder / "hello.py"}
        for module, script in scripts.items():
            script.write_text(_SCRIPT.format(module=module))
        ours, hello = ([sys.executable, str(script)] for script in scripts.values())
        for number in range(_STARTS + 1):
            taken = [seconds_of([*ours, "--version"]), seconds_of(hello), seconds_of([*ours, "--help"])]
            if number:  # the first one writes the bytecode
                version.ours.append(taken[0] * 1e3)
                help_.ours.append(taken[2] * 1e3)
                version.peers.append(taken[1] * 1e3)
                help_.peers.append(taken[1] * 1e3)
    return [version, help_]


def discovery() -> list[Line]:
    """In one process: discovery and registry of 1,000 plugins, against reading and parsing the same files; and the time
    until a home is open in which 500 plugins with intents only are enabled."""
    plain, fast = "scandir + read + json.loads", "scandir + read + orjson.loads"
    lines = [
        (Line("discovery.1,000 plugins", "ms", peer=fast, limit=Limit(most_ratio=3.0)), "known", "orjson"),
        (Line("discovery.1,000 plugins, never seen", "ms", peer=plain, limit=Limit(most_ratio=4.0)), "ours", "json"),
        (Line("discovery.1,000 plugins, never seen, orjson", "ms", peer=fast), "ours", "orjson"),
    ]
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("manifests.py", f"{folder}/home") as subject:
        for _ in range(_LISTINGS):
            taken = subject.round()
            for line, ours, peer in lines:
                line.ours.append(taken[ours] * 1e3)
                line.peers.append(taken[peer] * 1e3)
    ready = Line("discovery.ready, 500 enabled", "ms", limit=Limit(most=500))
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("ready.py", folder) as subject:
        for _ in range(_BURSTS):
            opened = subject.round()
            ready.ours.append(opened["seconds"] * 1e3)
            if opened["workers"] or opened["enabled"] != 500:
                ready.problem = f"{opened['enabled']} are enabled, {opened['workers']} workers run"
    return [*(line for line, _, _ in lines), ready]


def workflows() -> list[Line]:
    """Ten trivial steps on SQLite, many runs at once and one alone, in turns with DBOS and LangGraph."""
    burst = Line("workflows.burst", "runs/s", peer="DBOS", limit=Limit(least=1000, least_ratio=5))
    kept = Line("workflows.burst, as LangGraph", "runs/s", peer="LangGraph, SQLite", limit=Limit(least_ratio=12))
    loose = Line("workflows.burst, as not durable", "runs/s", peer="LangGraph, not kept", limit=Limit(least_ratio=1.5))
    alone = Line("workflows.alone", "ms", peer="DBOS")
    with TemporaryDirectory(dir=SCRATCH) as folder, ExitStack() as stack:
        ours = stack.enter_context(Subject("workflows.py", folder))
        dbos = stack.enter_context(Subject("workflows_dbos.py", folder, python=environment(DBOS)))
        graph = stack.enter_context(Subject("workflows_langgraph.py", folder, python=environment(*LANGGRAPH)))
        for _ in range(_BURSTS):
            taken = _RUNS / ours.round("burst")["seconds"]
            for line, peer, what in ((burst, dbos, "burst"), (kept, graph, "burst"), (loose, graph, "loose")):
                line.ours.append(taken)
                line.peers.append(_RUNS / peer.round(what)["seconds"])
            alone.ours.append(ours.round("alone")["seconds"] * 1e3)
            alone.peers.append(dbos.round("alone")["seconds"] * 1e3)
    return [burst, kept, loose, alone]


def bus() -> list[Line]:
    """Transient emits against bare blinker, and recorded ones of a lone publisher against bare aiosqlite."""
    lines = {
        str(count): Line(
            f"bus.transient, {count} subscribers", "events/s", peer="blinker send_async", limit=Limit(least_ratio=1.0)
        )
        for count in (1, 10, 100)
    }
    lone = Line("bus.recorded, one publisher", "us", peer="aiosqlite insert + commit", limit=Limit(most_ratio=2.0))
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("bus.py", folder) as subject:
        for _ in range(_BURSTS):
            for name, line in lines.items():
                taken = subject.round(name)
                line.ours.append(taken["ours"])
                line.peers.append(taken["peer"])
            taken = subject.round("lone")
            lone.ours.append(taken["ours"] * 1e6)
            lone.peers.append(taken["peer"] * 1e6)
    return [*lines.values(), lone]


def hooks() -> list[Line]:
    """From `bench_hooks.py`."""
    said = {row["bench"]: row for row in _said("bench_hooks.py")}
    return [
        Line("hooks.call, 5 handlers", "us", [said["hooks.call"]["median_us"]], limit=Limit(most=25)),
        Line("hooks.call, 5 handlers, payload model", "us", [said["hooks.call, model"]["median_us"]]),
    ]


def recorded() -> list[Line]:
    """100 publishers and a durable subscriber, in turns with a bare writer and with durable queues of others."""
    bare = Line("recorded, 100 publishers", "events/s", peer="bare group commit", limit=Limit(least_ratio=0.3))
    flood = Line("recorded, 100 publishers, unwaited peer", "events/s", peer="bare group commit, not waited for")
    lines = {"bare": bare, "flood": flood}
    lines |= {
        name: Line(f"recorded, against {name}", "events/s", peer=name, limit=Limit(least_ratio=8)) for name in QUEUES
    }
    with TemporaryDirectory(dir=SCRATCH) as folder, ExitStack() as stack:
        ours = stack.enter_context(Subject("recorded.py", folder))
        peers: dict[str, Callable[[], dict[str, Any]]] = {one: partial(ours.round, one) for one in ("bare", "flood")}
        for name, requirement in QUEUES.items():
            try:
                python = environment(requirement)
                peers[name] = stack.enter_context(Subject("queued.py", name, folder, python=python)).round
            except NotMeasured as why:
                lines[name].problem = str(why)
        for _ in range(_QUEUED):
            rate = ours.round("ours")["rate"]
            for name, peer in peers.items():
                lines[name].ours.append(rate)
                lines[name].peers.append(peer()["rate"])
    return list(lines.values())


def history() -> list[Line]:
    """The last 100 of a type among 5,000,000 events, against raw sqlite3 and against itself among 1,000,000."""
    few, many = (20_000, 100_000) if os.environ.get(QUICK) else (1_000_000, 5_000_000)
    raw = Line(f"history.last 100 of {many:,}", "ms", peer="sqlite3 + json.loads", limit=Limit(most_ratio=2))
    itself = Line(f"history.last 100 of {many:,}, as of {few:,}", "ms", peer=f"of {few:,}", limit=Limit(most_ratio=1.3))
    with Subject("history.py", str(SCRATCH), str(few), str(many)) as subject:
        for _ in range(_BURSTS):
            small, large = subject.round(str(few)), subject.round(str(many))
            for line, peer in ((raw, large["peer"]), (itself, small["ours"])):
                line.ours.append(large["ours"] * 1e3)
                line.peers.append(peer * 1e3)
    return [raw, itself]


def idle() -> list[Line]:
    """Memory and CPU of 10,000 subscriptions to as many types, beyond those of an engine without any."""
    memory = Line("idle.10,000 subscriptions, memory", "MB", limit=Limit(most=60))
    cpu = Line("idle.10,000 subscriptions, CPU", "ms/s", peer="no subscriptions", limit=Limit(most=1))
    for _ in range(_PROCESSES):
        with Subject("idle.py") as subject:
            taken = subject.round()
        memory.ours.append(taken["megabytes"])
        cpu.ours.append(taken["cpu"])
        cpu.peers.append(taken["cpu_alone"])
    return [memory, cpu]


def workers() -> list[Line]:
    """The same ten steps, each of them a call of a sandboxed plugin."""
    burst, alone = Line("workflows.burst, sandboxed steps", "runs/s"), Line("workflows.alone, sandboxed steps", "ms")
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("workflows.py", folder, "--plugin") as ours:
        for _ in range(_BURSTS):
            burst.ours.append(_RUNS / ours.round("burst")["seconds"])
            alone.ours.append(ours.round("alone")["seconds"] * 1e3)
    return [burst, alone]


def plugins() -> list[Line]:
    """Warm calls of a trivial plain function in a sandboxed worker, against the bare round trip of its channel."""
    invoked = Line("plugins.warm call", "us", peer="the channel alone", limit=Limit(most_ratio=2))
    recorded_ = Line("plugins.warm call, recorded", "us", peer="the channel alone")
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("plugincalls.py", folder) as subject:
        subject.round()  # the first one warms up
        for _ in range(_CALLS):
            taken = subject.round()
            for line, name in ((invoked, "invoked"), (recorded_, "recorded")):
                line.ours.append(taken[name] * 1e6)
                line.peers.append(taken["bare"] * 1e6)
    return [invoked, recorded_]


def store() -> list[Line]:
    """From `bench_store.py`."""
    said = {row["bench"]: row for row in _said("bench_store.py", "--rounds", "3")}
    together, lone = said["store.concurrent"], said["store.lone"]
    return [
        Line("store.concurrent, 100 committers", "batches/s", [together["batches_per_s"]]),
        Line("store.lone commit", "us", [lone["us"]], "bare aiosqlite", [lone["us"] / lone["ratio"]]),
    ]


def channel() -> list[Line]:
    """From `bench_worker.py`."""
    lines = []
    for row in _said("bench_worker.py", "5", "500"):
        if "x framed" in row and row["what"].endswith("call"):
            peers = [row["p50_us"] / row["x framed"]]
            lines.append(Line(f"worker.{row['what']}", "us", [row["p50_us"]], "asyncio echo with JSON", peers))
        elif "per_s" in row:
            lines.append(Line(f"worker.{row['what']}", "calls/s", [row["per_s"]]))
    return lines


def sandbox() -> list[Line]:
    """Workers in the sandbox, by turns with a bare echo, a worker without sandbox, a process pool and a bare Python."""
    call = Line(
        "sandbox.call of an intent, one processor", "us", peer="asyncio echo of 64 bytes", limit=Limit(most_ratio=4)
    )
    apart = Line(
        "sandbox.call of an intent, two processors", "us", peer="asyncio echo of 64 bytes", limit=Limit(most_ratio=4)
    )
    pool = Line("sandbox.call of an intent, against a pool", "us", peer="awaited pool", limit=Limit(most_ratio=0.6))
    naive = Line("sandbox.warm call", "us", peer="without sandbox", limit=Limit(most_ratio=1.3))
    depth = Line("sandbox.calls, 32 at a time", "calls/s", peer="awaited pool", limit=Limit(least_ratio=3))
    cold = Line("sandbox.fresh worker to first result", "ms", peer="python -I -S", limit=Limit(most_ratio=1.2))
    spot = Line("sandbox.fresh worker, none forked ahead", "ms", peer="python -I -S")
    kill = Line("sandbox.kill to confirmed dead", "ms", limit=Limit(most=5))
    tree = Line("sandbox.kill of a tree of 31", "ms", limit=Limit(most=100))
    late = Line("sandbox.deadline overshoot", "ms", limit=Limit(most=250))
    memory = Line("sandbox.private memory of a warm worker", "MB", limit=Limit(most=12))
    cpu = Line("sandbox.CPU share, off by", "points", limit=Limit(most=5))
    with TemporaryDirectory(dir=SCRATCH) as folder, Subject("sandbox.py", folder) as subject:
        for _ in range(_BURSTS):
            near, far, free = subject.round("near"), subject.round("apart"), subject.round("warm")
            pairs = (
                (call, near, "full", "bare"),
                (apart, far, "full", "bare"),
                (pool, free, "full", "pool"),
                (naive, free, "sandboxed", "unsandboxed"),
            )
            for line, warm, ours, peer in pairs:
                line.ours.append(warm[ours] * 1e6)
                line.peers.append(warm[peer] * 1e6)
            many, fresh = subject.round("depth"), subject.round("cold")
            depth.ours.append(many["sandboxed"])
            depth.peers.append(many["pool"])
            cold.ours.append(fresh["sandboxed"] * 1e3)
            spot.ours.append(fresh["spot"] * 1e3)
            cold.peers.append(fresh["python"] * 1e3)
            spot.peers.append(fresh["python"] * 1e3)
            kill.ours.append(subject.round("kill")["seconds"] * 1e3)
            late.ours.append(subject.round("deadline")["seconds"] * 1e3)
            memory.ours.append(subject.round("memory")["megabytes"])
            cpu.ours.append(abs(subject.round("cpu")["percent"] - 25))
            killed = subject.round("tree")
            if killed["processes"] < 31 or killed["left"]:
                tree.problem = f"{killed['left']} of {killed['processes']} processes are left"
            tree.ours.append(killed["seconds"] * 1e3)
    return [call, apart, pool, naive, depth, cold, spot, kill, tree, late, memory, cpu]


def _said(script: str, *args: str) -> list[dict[str, Any]]:
    """The JSON lines of a script. That it missed a limit of its own does not matter here."""
    done = subprocess.run([sys.executable, str(HERE / script), *args], capture_output=True, text=True, check=False)
    rows = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    if not rows:
        raise NotMeasured(f"{script} ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return rows


#: By name, with the lines that are missing if it cannot be measured.
FIGURES: dict[str, tuple[Callable[[], list[Line]], tuple[Line, ...]]] = {
    "startup": (
        startup,
        (
            Line("startup.version", "ms", limit=Limit(most_ratio=1.5)),
            Line("startup.help", "ms", limit=Limit(most_ratio=2.0)),
        ),
    ),
    "discovery": (
        discovery,
        (
            Line("discovery.1,000 plugins", "ms", limit=Limit(most_ratio=3.0)),
            Line("discovery.ready, 500 enabled", "ms", limit=Limit(most=500)),
        ),
    ),
    "workflows": (workflows, (Line("workflows.burst", "runs/s", limit=Limit(least=1000, least_ratio=5)),)),
    "plugins": (plugins, (Line("plugins.warm call", "us", limit=Limit(most_ratio=2)),)),
    "workflows-alone": (
        workflow_figures.alone,
        (
            Line("workflows.one run alone", "ms", limit=Limit(most_ratio=2.0)),
            Line("workflows.event to first step, above the commit", "ms", limit=Limit(most=1.0)),
            Line("workflows.waits, added to an emit", "ms", limit=Limit(most=0.2)),
        ),
    ),
    "workflows-resume": (
        workflow_figures.resume,
        (
            Line("workflows.resume with waiting runs", "s", limit=Limit(most=2)),
            Line("workflows.resume with waiting runs, memory", "MB", limit=Limit(most=100)),
        ),
    ),
    "workflows-finished": (
        workflow_figures.finished,
        (
            Line("workflows.start among finished", "ms", limit=Limit(most_ratio=1.3)),
            Line("workflows.last 50 of finished", "ms", limit=Limit(most_ratio=1.3)),
        ),
    ),
    "workflows-long": (
        workflow_figures.long,
        (
            Line("workflows.go on after many entries", "ms", limit=Limit(most=200)),
            Line("workflows.go on after five times as many", "ms", limit=Limit(most=300)),
        ),
    ),
    "workflows-cron": (workflow_figures.cron, (Line("workflows.schedules, CPU", "ms/s", limit=Limit(most=10)),)),
    "bus": (
        bus,
        (
            Line("bus.transient", "events/s", limit=Limit(least_ratio=1.0)),
            Line("bus.recorded, one publisher", "us", limit=Limit(most_ratio=2.0)),
        ),
    ),
    "recorded": (recorded, (Line("recorded, 100 publishers", "events/s", limit=Limit(least_ratio=0.3)),)),
    "hooks": (hooks, (Line("hooks.call, 5 handlers", "us", limit=Limit(most=25)),)),
    "history": (
        history,
        (
            Line("history.last 100", "ms", limit=Limit(most_ratio=2)),
            Line("history.last 100, as of fewer", "ms", limit=Limit(most_ratio=1.3)),
        ),
    ),
    "idle": (
        idle,
        (
            Line("idle.10,000 subscriptions, memory", "MB", limit=Limit(most=60)),
            Line("idle.10,000 subscriptions, CPU", "ms/s", limit=Limit(most=1)),
        ),
    ),
    "workers": (workers, (Line("workflows.burst, sandboxed steps", "runs/s"),)),
    "sandbox": (sandbox, (Line("sandbox.call of an intent", "us", limit=Limit(most_ratio=4)),)),
    "store": (store, (Line("store", "batches/s"),)),
    "channel": (channel, (Line("worker", "us"),)),
}
