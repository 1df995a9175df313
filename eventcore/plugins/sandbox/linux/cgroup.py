"""Control groups of version 2: where ours may be made, and one group for each worker.

Whether controllers are at hand is found out by trial, not by looking: on hybrid hosts the files of version 2 are there
and hold no memory, CPU or process controller, and in containers they are there and cannot be written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "cpu", "pids")
REMEDY = (
    "a cgroup of version 2 of our own, with nobody in it (systemd: Delegate=yes and DelegateSubgroup=host); without it "
    "rlimits and stopping by the host stand in"
)
_MIB = 1 << 20
#: Beyond what a worker may take: what an empty one takes itself.
_BASE = 64 * _MIB
_PERIOD = 100_000
_TRIAL_MEMORY, _TRIAL_CPU, _TRIAL_WALL = 32, 20.0, 0.4
_TRIAL_SECONDS = 20.0
#: Waits until it is in its group, then tries each limit; what it prints is how the first two went.
_TRIAL = """
import os, sys, time
sys.stdin.read(1)
try:
    os.fork() or os._exit(0)
    print("forked")
except OSError:
    print("held")
end, began = time.monotonic() + float(sys.argv[1]), time.process_time()
while time.monotonic() < end: pass
print(time.process_time() - began, flush=True)
kept = [b"x" * (1 << 20) for _ in range(256)]
"""


@dataclass(frozen=True, slots=True)
class Group:
    """One worker's group."""

    path: Path

    def add(self, pid: int) -> None:
        """Move a process into it, with all its threads."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def limit(self, *, memory_mb: float, cpu_percent: float, processes: int) -> None:
        """Set its limits; 0 for none."""
        if memory_mb:
            (self.path / "memory.max").write_text(str(int(memory_mb * _MIB) + _BASE))
            with suppress(OSError):  # a kernel without swap accounting
                (self.path / "memory.swap.max").write_text("0")
            (self.path / "memory.oom.group").write_text("1")
        if cpu_percent:
            (self.path / "cpu.max").write_text(f"{int(cpu_percent / 100 * _PERIOD)} {_PERIOD}")
        if processes:
            (self.path / "pids.max").write_text(str(processes))

    def kill(self) -> None:
        """SIGKILL to all in it."""
        with suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")

    def out_of_memory(self) -> bool:
        """Whether the kernel killed in it for want of memory."""
        try:
            rows = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        except (OSError, ValueError):
            return False
        return int(rows.get("oom_kill", 0)) > 0

    def remove(self) -> None:
        """Remove it. Whoever is left in it is on its way out, so that it may take some tries."""
        for _ in range(50):
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.002)
            else:
                return


class Groups:
    """The place of our groups: a group of this host process's own, beneath the one it lives in.

    Args:
        path: an existing group with the controllers on for what is beneath it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = 0

    def make(self, name: str) -> Group:
        """A new, empty group.

        Raises:
            OSError: it cannot be made.
        """
        self._made += 1
        group = Group(self.path / f"{name}-{self._made}")
        group.path.mkdir()
        return group

    def close(self) -> None:
        """End what is left, and remove the place."""
        for path in self.path.iterdir():
            if path.is_dir():
                Group(path).kill()
                Group(path).remove()
        Group(self.path).remove()


def home() -> Path:
    """The group of version 2 that this process lives in.

    Raises:
        OSError: there is none.
    """
    mount = next((row for row in map(str.split, _lines("/proc/self/mountinfo")) if "cgroup2" in row), None)
    inside = next((line[3:] for line in _lines("/proc/self/cgroup") if line.startswith("0::")), None)
    if mount is None or inside is None:
        raise OSError("no control groups of version 2 are mounted")
    return Path(mount[4]) / inside.lstrip("/")


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def open_groups(base: Path | None = None) -> Groups:
    """Make our place, and prove on it that memory, CPU and processes are limited. Takes half a second where they are.

    Args:
        base: where; None: the group that this process lives in.

    Raises:
        OSError: the sentence says what is missing.
    """
    base = home() if base is None else base
    there = (base / "cgroup.controllers").read_text().split()
    if absent := [name for name in CONTROLLERS if name not in there]:
        raise OSError(f"{base} has no controller for {', '.join(absent)}")
    switch = " ".join(f"+{name}" for name in CONTROLLERS)
    (base / "cgroup.subtree_control").write_text(switch)  # EBUSY where processes live in it
    groups = Groups(base / f"eventcore-{os.getpid()}-{time.monotonic_ns():x}")
    groups.path.mkdir()
    try:
        (groups.path / "cgroup.subtree_control").write_text(switch)
        _prove(groups)
    except BaseException:
        groups.close()
        raise
    return groups


def _prove(groups: Groups) -> None:
    group = groups.make("trial")
    child = subprocess.Popen(  # noqa: S603 - every word of it is ours
        [os.path.realpath(sys.executable), "-I", "-S", "-c", _TRIAL, str(_TRIAL_WALL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        (group.path / "memory.max").write_text(str(_TRIAL_MEMORY * _MIB))
        group.limit(memory_mb=0, cpu_percent=_TRIAL_CPU, processes=1)
        group.add(child.pid)
        out, _ = child.communicate(b"x", timeout=_TRIAL_SECONDS)
        judge(out.decode(), child.returncode)
    except subprocess.TimeoutExpired:
        raise OSError("the trial of control groups did not end") from None
    finally:
        child.kill()
        child.communicate()
        group.kill()
        group.remove()


def judge(said: str, code: int) -> None:
    """What a trial came to: nothing, or an error that names the limit that did not hold. Pure.

    Raises:
        OSError: a limit did not hold.
    """
    lines = said.split()
    if lines[:1] != ["held"]:
        raise OSError("pids.max did not keep a process from forking")
    if len(lines) < 2 or float(lines[1]) > 0.5 * _TRIAL_WALL:
        raise OSError("cpu.max did not hold a process to its share")
    if code != -9:
        raise OSError(f"memory.max did not end a process that took too much (it ended with {code})")
