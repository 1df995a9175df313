"""The pages about security and limits say what the code does."""

from __future__ import annotations

import re

from eventcore.kernel.settings import PluginSettings, SandboxSettings
from eventcore.plugins.host_api import _MAX_STAGED, MAX_STAGED_BYTES
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.sandbox import confine, enforcement, frames, lockwatch, supervisor
from eventcore.plugins.sandbox.channel import HIGH_WATER
from eventcore.plugins.sandbox.confine import Plan
from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.probe import MEANS
from eventcore.plugins.sandbox.spec import Allowance, WorkerLimits
from tests.e2e.test_docs_tables import named, rows, section, sources
from tests.sandbox.attacks.catalogue import CORPUS, attacks

MACHINES = [
    Machine(namespaces, tuple({"name": one.name, "works": True} for one in MEANS), groups)
    for namespaces in (True, False)
    for groups in (True, False)
]


def cells(page: str, heading: str) -> list[list[str]]:
    """The rows of a table, the header left out."""
    lines = [
        line for line in section(page, heading).splitlines() if line.startswith("|") and not set(line) <= set("|- ")
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_tiers_and_permissions() -> None:
    assert named("security", "Tiers") == {"full", "reduced", "none", "inline", "container"}
    assert named("security", "From permissions to rules") == {str(one) for one in PluginPermission}


def test_every_class_of_the_corpus_is_told_of() -> None:
    there = {name.split("/")[0].split(".")[0] for name in (one.file for one in attacks(CORPUS))}
    there = {"on_import" if name.startswith("on_import_") else name for name in there}
    assert named("security", "What is tried, and what stops it") == there


def test_the_means() -> None:
    said = {row[0].strip("`"): row[1:] for row in cells("security", "The means of the kernel")}
    groups = said.pop("control groups")
    assert groups[0] == "limits"
    assert said == {one.name: [one.needed, one.stops] for one in MEANS}
    assert {one.needed for one in MEANS} | {"limits"} == set(
        re.findall(r"`(\w+)`:", section("security", "The means of the kernel"))
    )


def test_what_is_not_stopped_is_said_word_for_word() -> None:
    lines = {line[2:] for line in section("security", "What is not stopped").splitlines() if line.startswith("- ")}
    assert lines == {line for machine in MACHINES for line in enforcement.not_stopped(machine)}


def test_limits_of_a_worker() -> None:
    given, plan = SandboxSettings(), Plan("p", True, None, (), "", 7)
    said = {row[0].strip("`"): row[1:] for row in cells("limits", "Of a worker")}
    shown = {
        row["limit"]
        for machine in MACHINES
        for row in enforcement.limits(Allowance(write=("/x",)), machine, 30)
        if row["limit"] not in ("files", "network", "processes")  # what it may touch, not how much
    }
    assert shown <= said.keys()
    assert {name: row[0] for name, row in said.items()} == {
        "time": f"{PluginSettings().timeout:g} s",
        "cpu": "none" if not given.cpu_percent and not given.cpu_seconds else "",
        "memory": f"{given.memory_mb:g} MiB",
        "threads": str(given.threads),
        "disk": f"{given.disk_mb:g} MiB",
        "data": f"{given.data_mb:g} MiB",
        "descriptors": str(plan.files),
        "locks": f"{lockwatch.MOST:,}",
        "signals": f"{confine._SIGNALS:,}",
        "load": f"{PluginSettings().start_timeout:g} s",
    }
    code = sources()
    for name, (_, by, enforced, seen) in said.items():
        for key in re.findall(r"`\[(\w+)\] (\w+)`", by):
            model = {"sandbox": SandboxSettings, "plugins": PluginSettings}[key[0]]
            assert key[1] in model.model_fields, name
        for limit in re.findall(r"RLIMIT_\w+", enforced):
            assert f"resource.{limit}" in code, name
        for kind in re.findall(r"`(\w+)`", seen):
            assert kind in code, f"{name}: {kind}"


def test_limits_of_the_channel() -> None:
    worker = WorkerLimits()
    said = {row[0]: row[1] for row in cells("limits", "Of the channel")}
    assert said == {
        "a message, a call's parameters, a result": f"{frames.MAX_FRAME >> 20} MiB",
        "depth of JSON": str(frames.MAX_DEPTH),
        "calls in one worker or waiting for it": f"{worker.calls:,}",
        "requests of a worker in flight": str(frames.MAX_REQUESTS),
        "their bytes together": f"{frames.MAX_REQUEST_BYTES / (1 << 20):g} MiB",
        "requests of a worker in a second": f"{worker.requests_per_second:,.0f}",
        "answers that a worker has not read": f"{HIGH_WATER >> 20} MiB",
        "captured output of a call, each stream": f"{frames.MAX_OUTPUT:,} characters",
        "raw output of a worker": f"{worker.raw_output >> 20} MiB",
        "broken rules until quarantine": str(supervisor._STRIKES),
        "failures in a row until it is left alone": "10",
        "what one call stages": f"{_MAX_STAGED:,} changes, {MAX_STAGED_BYTES >> 20} MiB",
    }
    code = sources()
    for _, rest in rows("limits", "Of the channel"):
        assert all(kind in code for kind in re.findall(r"`(\w+)`", rest))
