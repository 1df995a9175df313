"""In words: what a machine's sandbox is made of, what enforces each limit, and what it does not stop."""

from __future__ import annotations

from typing import Any

from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.spec import Allowance, ContainerWish

#: What no means of the process tier stops. Shown by `eventcore sandbox check` and in the docs.
NOT_STOPPED: tuple[str, ...] = (
    "errors in the kernel itself: every worker shares it with the host",
    "side channels of the processor and its caches",
    "reading the clock, the kernel's version, and how busy the machine is",
    "computing within its limits, also between its calls: a warm worker's threads go on",
    "the wear and the bandwidth of disks: what it may hold is limited, not how often it writes",
    "locks on files that it may read or change: who else locks them may have to wait",
    "what a granted host, port, folder or program is used for",
    "what the host does with a result: it is data from a stranger",
)
#: Nor at the level `reduced`.
REDUCED = "seeing by stat() that host files exist, and how large they are"


#: And what it does not stop without control groups.
UNGROUPED: tuple[str, ...] = (
    "the kernel's own memory for it, such as buffers of sockets: some 200 MiB beyond its limit",
    "memory and CPU of programs taken together: each that it starts has the limits of its own",
)


def not_stopped(machine: Machine) -> list[str]:
    """What the sandbox does not stop on this machine."""
    return [
        *NOT_STOPPED,
        *(f"{one} (only control groups do)" for one in UNGROUPED if not machine.groups),
        *([] if machine.namespaces else [f"{REDUCED} (only a mount namespace does)"]),
    ]


def limits(allow: Allowance, machine: Machine, seconds: float) -> list[dict[str, Any]]:
    """Each limit of a worker, its value, and what enforces it here.

    Args:
        seconds: the time limit of one call.
    """
    by_cpu = "cgroup cpu.max" if machine.groups else "the host, by SIGSTOP and SIGCONT"
    by_memory = "RLIMIT_AS, RLIMIT_DATA" + ", cgroup memory.max" * machine.groups
    by_threads = "RLIMIT_NPROC" + ", cgroup pids.max" * machine.groups
    view, alone = machine.namespaces, not allow.programs
    by_network = "seccomp, Landlock" if allow.ports else "seccomp, network namespace" if view else "seccomp"
    network = "none" if not allow.ports else f"TCP to {', '.join(map(str, allow.ports))}"
    found = [
        ("time", f"{seconds:g} s a call", "the host's timer; by pidfd the whole tree is killed"),
        ("memory", f"{allow.memory_mb:g} MiB" if allow.memory_mb else "", by_memory),
        ("cpu", f"{allow.cpu_percent:g} % of a core" if allow.cpu_percent else "", by_cpu),
        ("threads", str(allow.threads), by_threads),
        ("processes", "none" if alone else str(allow.threads), "seccomp" if alone else "RLIMIT_NPROC, pid namespace"),
        ("disk", f"{allow.disk_mb:g} MiB", "the size of its tmpfs" if view else "the host, which looks; RLIMIT_FSIZE"),
        *(
            [("data", f"{allow.data_mb:g} MiB" if allow.data_mb else "", "the host, which looks")]
            if allow.write
            else []
        ),
        ("files", "its code, what was granted", "Landlock, mount namespace" if view else "Landlock"),
        ("network", network, by_network),
    ]
    return [
        {"limit": name, "value": value or "no limit", "by": by if value else "nothing"} for name, value, by in found
    ]


def container_limits(allow: Allowance, wish: ContainerWish, seconds: float) -> list[dict[str, Any]]:
    """The same for a worker in a container, as far as the container engine enforces what it is asked."""
    cpu = f"{allow.cpu_percent:g} % of a core" if allow.cpu_percent else ""
    engine = "the container engine, by control groups"
    found = [
        ("time", f"{seconds:g} s a call", "the host's timer; the container is killed"),
        ("memory", f"{allow.memory_mb:g} MiB" if allow.memory_mb else "", engine),
        ("cpu", ", ".join(filter(None, (cpu, f"{wish.cpu_shares:g} shares"))), engine),
        ("threads", str(allow.threads), engine),
        ("disk", f"{allow.disk_mb:g} MiB", "the size of its tmpfs; the rest is read-only"),
        ("files", "its image, its code, what was granted", "its own file system"),
        ("network", wish.network or "none", "its own network namespace"),
    ]
    return [
        {"limit": name, "value": value or "no limit", "by": by if value else "nothing"} for name, value, by in found
    ]


def report(machine: Machine) -> dict[str, Any]:
    """What `eventcore sandbox check` shows."""
    return {
        "level": machine.level,
        "means": [dict(row) for row in machine.means],
        "not_stopped": not_stopped(machine),
    }
