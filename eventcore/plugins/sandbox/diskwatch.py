"""Looks how full a worker's folders are where the kernel sets no bound: granted ones, and private ones without a view.

The last resort, since there are no quotas for a folder that work everywhere: what is written between two looks is
written. The bound of each single file (RLIMIT_FSIZE) holds all the same.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

#: Between two looks at a process that computes, and the longest time at one that does not. Seconds.
_TICK, _LONGEST = 0.05, 0.5
#: A look may take this part of the time; the next one waits accordingly.
_SHARE = 0.05
#: The least that an entry counts: an empty file takes its place as well. Bytes.
_ENTRY = 4096


@dataclass(frozen=True, slots=True)
class Quota:
    """A folder and what it may hold.

    Attributes:
        folder: its path.
        most: bytes; what holds more already may only shrink.
    """

    folder: str
    most: int


def size_of(folder: str, enough: float = math.inf) -> float:
    """Bytes in a folder and beneath, links not followed; infinite where it cannot be looked into.

    Args:
        enough: stop counting here.
    """
    total, places = 0.0, [folder]
    while places and total <= enough:
        try:
            with os.scandir(places.pop()) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        total += max(_ENTRY, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        places.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:  # closed to us, or deeper than a path is long: it hides something
            return math.inf
    return total


async def watch(quotas: Sequence[Quota], cpu_seconds: Callable[[], float | None]) -> str:
    """Look until a folder holds too much; returns a sentence about it, or nothing once the process is gone.

    Args:
        cpu_seconds: CPU time of the process so far: what computes nothing writes nothing.
    """
    bounds = {one.folder: one.most for one in quotas}
    for folder, most in bounds.items():
        size = await to_thread.run_sync(size_of, folder)
        bounds[folder] = max(most, int(size)) if size < math.inf else most
    seen, tick = -1.0, _TICK
    while (used := cpu_seconds()) is not None:
        if used == seen:
            tick = min(2 * tick, _LONGEST)
        else:
            began = time.perf_counter()
            for folder, most in bounds.items():
                if await to_thread.run_sync(size_of, folder, most) > most:
                    return f"{folder} holds more than {most / (1 << 20):,.0f} MiB, or hides what it holds"
            seen, tick = used, max(_TICK, (time.perf_counter() - began) / _SHARE)
        await anyio.sleep(tick)
    return ""


def remove(folder: str) -> None:
    """Remove a folder, however deep: by steps that need neither a stack nor long paths. What cannot be, stays."""
    try:
        base = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        # Whatever lies deeper than one level is moved up to the first one, until there is no deeper level.
        while _flatten(base, f".{secrets.token_hex(8)}"):  # a name that nobody can have taken
            pass
    finally:
        os.close(base)
    with suppress(OSError):
        Path(folder).rmdir()


def _flatten(base: int, prefix: str) -> bool:
    """Empty the folders in `base`, moving what they hold as folders up. Returns whether there is more to do."""
    with os.scandir(base) as found:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    more = False
    for place, (name, folder) in enumerate(names):
        with suppress(OSError):
            if folder:
                more = _empty(base, name, f"{prefix}.{place}") or more
            else:
                os.unlink(name, dir_fd=base)
    return more


def _empty(base: int, name: str, prefix: str) -> bool:
    os.chmod(name, 0o700, dir_fd=base)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=base)
    moved = 0
    try:
        with os.scandir(inner) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for below, folder in entries:
            if folder:
                moved += 1
                os.rename(below, f"{prefix}.{moved}", src_dir_fd=inner, dst_dir_fd=base)
            else:
                os.unlink(below, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=base)
    return moved > 0
