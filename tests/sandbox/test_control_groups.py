"""Control groups: never believed, always tried; and what a worker gets where they hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.enforcement import limits
from eventcore.plugins.sandbox.grouping import Grouping
from eventcore.plugins.sandbox.linux.cgroup import Group, Groups, home, judge, open_groups
from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]


def pretend(folder: Path, controllers: str = "cpu io memory pids") -> Path:
    """Files as those of a control group, behind which there is no kernel."""
    folder.mkdir()
    (folder / "cgroup.controllers").write_text(controllers)
    return folder


def test_files_alone_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"pids\.max did not keep a process from forking"):
        open_groups(pretend(tmp_path / "v2"))
    with pytest.raises(OSError, match="has no controller for memory, pids"):
        open_groups(pretend(tmp_path / "hybrid", "cpu hugetlb"))
    with pytest.raises(OSError, match=r"cgroup\.controllers"):
        open_groups(tmp_path / "nothing")


def test_what_a_trial_came_to() -> None:
    judge("held\n0.08\n", -9)
    for said, code, wrong in (
        ("forked\n0.08", -9, "pids.max"),
        ("held\n0.39", -9, "cpu.max"),
        ("held\n", -9, "cpu.max"),
        ("held\n0.08", 0, "memory.max"),
        ("", -9, "pids.max"),
    ):
        with pytest.raises(OSError, match=wrong):
            judge(said, code)


def test_the_limits_of_a_group(tmp_path: Path) -> None:
    group = Group(tmp_path)
    group.limit(memory_mb=100, cpu_percent=25, processes=8)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "memory.max": str(164 << 20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "25000 100000",
        "pids.max": "8",
    }
    assert not group.out_of_memory()
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert group.out_of_memory()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_joins_its_group_before_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    place = pretend(tmp_path / "groups")
    monkeypatch.setattr("eventcore.plugins.sandbox.grouping.open_groups", lambda: Groups(place))
    (tmp_path / "plugin").mkdir()
    spec = WorkerSpec("tried", tmp_path / "plugin", allow=Allowance(cpu_percent=50, threads=7))
    sandbox = Sandbox()
    try:
        process = await sandbox(spec)
        machine = await sandbox.machine()
        assert machine.groups
        [group] = [path for path in place.iterdir() if path.is_dir()]
        assert (group / "cgroup.procs").read_text() == str(process.pid)
        assert (group / "cpu.max").read_text() == "50000 100000"
        assert (group / "pids.max").read_text() == "8"
        await process.hold()  # returns at once: no duty cycle beside the kernel's
        process.kill()
        assert (group / "cgroup.kill").read_text() == "1"
        await process.wait()
        await process.close()
    finally:
        sandbox.close()
    said = {row["limit"]: row["by"] for row in limits(spec.allow, machine, 1)}
    assert said["cpu"] == "cgroup cpu.max"
    assert said["memory"].endswith("cgroup memory.max")


async def test_where_they_do_not_hold_something_else_does() -> None:
    row = await Grouping(False).row()
    assert (row["works"], row["detail"]) == (False, "they are switched off")
    said = {one["limit"]: one["by"] for one in limits(Allowance(cpu_percent=50), Machine(True, ()), 1)}
    assert said["cpu"] == "the host, by SIGSTOP and SIGCONT"
    assert said["memory"] == "RLIMIT_AS, RLIMIT_DATA"


def test_on_this_machine() -> None:
    """Real ones, where there are any."""
    try:
        groups = open_groups()
    except OSError as error:
        pytest.skip(f"{error}: run the tests in a delegated control group of version 2, alone in it")
    try:
        assert groups.path.parent == home()
        group = groups.make("one")
        group.limit(memory_mb=64, cpu_percent=50, processes=3)
        pid = os.fork()
        if not pid:
            os.read(os.pipe()[0], 1)
        group.add(pid)
        group.kill()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    finally:
        groups.close()
    assert not groups.path.exists()
