"""Looks how many locks on parts of files a worker holds: each takes kernel memory that no rlimit counts.

A process can set a hundred thousand of them a second (fcntl, F_SETLK) on files of its own, 200 bytes each, which stay
for as long as it lives. RLIMIT_LOCKS has had no effect since Linux 2.4, and a filter cannot look behind the pointer, so
the host looks into `/proc/locks`. Control groups with the memory controller count that memory; then nobody looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
from anyio import to_thread

from eventcore.plugins.sandbox.kin import parent_of

#: Databases take a handful each; so many are an attack on the kernel's memory.
MOST = 4096
#: Between two looks at a process that computes, and the longest time at one that does not. Seconds.
_TICK, _LONGEST = 0.25, 2.0
_LOCKS = Path("/proc/locks")


async def watch(pid: int, cpu_seconds: Callable[[], float | None]) -> str:
    """Look until a process, with what came of it, holds too many; returns a sentence about it, or nothing once it is
    gone.

    Args:
        pid: the worker.
        cpu_seconds: CPU time of it and of what came of it: what computes nothing sets no lock.
    """
    seen, tick = -1.0, _TICK
    while (used := cpu_seconds()) is not None:
        if used == seen:
            tick = min(2 * tick, _LONGEST)
        else:
            if await to_thread.run_sync(held, pid) > MOST:
                return f"it holds more than {MOST:,} locks on parts of files"
            seen, tick = used, _TICK
        await anyio.sleep(tick)
    return ""


def held(pid: int) -> int:
    """Locks of a process, of its children and theirs, and of what was orphaned beside it beneath its keeper.

    Counts to a little above `MOST`: the kernel walks from the beginning for each page of the file, and lets nobody set
    a lock meanwhile.
    """
    places = {pid, parent_of(pid)} - {0, 1}
    counts: Counter[int] = Counter()
    foreign: set[int] = set()
    with suppress(OSError), _LOCKS.open("rb") as file:
        for line in file:
            # `3: POSIX  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`, and with an arrow for who waits.
            words = line.replace(b"->", b"").split(maxsplit=5)
            if len(words) < 5 or words[1] != b"POSIX":
                continue
            owner = int(words[4])
            counts[owner] += 1
            if counts[owner] > MOST and owner not in foreign:
                if _below(owner, places):
                    return counts[owner]
                foreign.add(owner)
    return sum(number for owner, number in counts.items() if owner not in foreign and _below(owner, places))


def _below(pid: int, places: set[int]) -> bool:
    while pid > 1:
        if pid in places:
            return True
        pid = parent_of(pid)
    return False
