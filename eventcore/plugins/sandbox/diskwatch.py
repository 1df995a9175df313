"""Looks how full a worker's folders are where the kernel sets no bound: granted ones, and private ones without a view.

There are no quotas for a folder that work everywhere. What stands in for them: the bound of each single file
(RLIMIT_FSIZE); no reserving of space (the filter); and this. A look counts what lies there, and what the worker has
open without a name. Between looks the free space of the file system says how much may have been written, at the cost of
one system call: when half of the room that is left may be gone, the worker is stopped, looked at, and goes on. No
answer of a worker is passed on before a look, if it had the CPU time to fill what was left.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
from anyio import to_thread

from eventcore.plugins.sandbox.nameless import Disks

_MIB = 1 << 20
#: Between two ticks at a process that computes: so long as it takes to write the room that is left, within these
#: bounds; and the longest time at one that does not. Seconds.
_TICK, _SHORTEST, _LONGEST = 0.02, 0.005, 0.5
#: Bytes that are written in a second, at most; about what was measured into the page cache of a fast machine.
_FASTEST = 4 << 30
#: The longest time without a look, where looks cost little. Seconds.
_UNSEEN = 0.05
#: Looks without need may take this part of the time; the next one waits accordingly.
_SHARE = 0.05
#: A look that took so long is followed by a pause of three times that, if the worker was stopped for it. Seconds.
_LONG = 0.02
#: A look at an answer that takes longer needs a reason. Seconds.
_CHEAP = 0.05
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


class Watched(Protocol):
    """A worker, as far as its folders are concerned."""

    def active_seconds(self) -> float | None:
        """CPU time so far of it and what came of it: what computes nothing writes nothing. None when it is gone."""
        ...

    def nameless_bytes(self, disks: Disks) -> float:
        """What it keeps on these devices in files without a name. Called in a thread."""
        ...

    def pause(self, stopped: bool, why: str = ...) -> None:
        """Stop it, or let it go on."""
        ...


def size_of(folder: str, enough: float = math.inf) -> float:
    """Bytes in a folder and beneath, links not followed; infinite where it cannot be looked into.

    Args:
        enough: stop counting here.
    """
    total, places = 0.0, [folder]
    linked: set[int] = set()
    while places:
        try:
            with os.scandir(places.pop()) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        total += _entry(entry.stat(follow_symlinks=False), linked)
                    if entry.is_dir(follow_symlinks=False):
                        places.append(entry.path)
                    if total > enough:
                        return total
        except FileNotFoundError:
            continue
        except OSError:  # closed to us, or deeper than a path is long: it hides something
            return math.inf
    return total


def _entry(found: os.stat_result, linked: set[int]) -> int:
    if found.st_nlink > 1:
        if found.st_ino in linked:
            return _ENTRY
        linked.add(found.st_ino)
    return max(_ENTRY, found.st_blocks * 512)


class DiskWatch:
    """Holds one worker to the quotas of its folders.

    Use `begin` before its code runs; then `run`, and `look_first` at its answers.

    Args:
        quotas: at least one.
    """

    def __init__(self, quotas: Sequence[Quota], worker: Watched) -> None:
        self._worker = worker
        self._bounds = {one.folder: float(one.most) for one in quotas}
        self._disks = Disks()
        self._room = math.inf
        self._free = 0.0
        self._used = 0.0
        self._cost = 0.0

    async def begin(self) -> None:
        """Note what lies there already."""
        await to_thread.run_sync(self._note_beginning)

    def _note_beginning(self) -> None:
        for folder, most in self._bounds.items():
            size = size_of(folder)
            self._bounds[folder] = max(most, size) if size < math.inf else most
        with suppress(OSError):
            self._disks = Disks.of(self._bounds)
        self._look()

    async def run(self) -> str:
        """Look until a folder holds too much; returns a sentence about it, or nothing once the worker is gone."""
        seen, tick, due = -1.0, _SHORTEST, 0.0
        while (used := self._worker.active_seconds()) is not None:
            if used == seen:
                tick = min(2 * tick, _bounded(self._room / _FASTEST, 10 * _SHORTEST, _LONGEST))
            else:
                seen, tick = used, _bounded(self._room / _FASTEST / 2, _SHORTEST, _TICK)
                pressing = self._had_time(used, self._room / 2) and self._taken() >= self._room / 2
                if pressing or time.monotonic() >= due:
                    if text := await (self._stopped_look() if pressing else to_thread.run_sync(self._look)):
                        return text
                    due = time.monotonic() + max(_UNSEEN, self._cost / _SHARE)
            await anyio.sleep(tick)
        return ""

    async def look_first(self) -> str:
        """Look, if the worker may have filled its folders since the last look; returns a sentence if it has."""
        used = self._worker.active_seconds()
        if used is None or not self._had_time(used, self._room):
            return ""
        if self._cost > _CHEAP and self._taken() < self._room / 2:
            return ""
        return await to_thread.run_sync(self._look)

    async def _stopped_look(self) -> str:
        """Look while it stands still, so that a slow look is no time to write in."""
        self._worker.pause(True, "disk")
        try:
            text = await to_thread.run_sync(self._look)
            if not text and self._cost > _LONG:
                await anyio.sleep(min(3 * self._cost, 1.0))
            return text
        finally:
            self._worker.pause(False, "disk")

    def _had_time(self, used: float, size: float) -> bool:
        """Whether it had the CPU time to write so much. Who ends takes its time along, so a sum may fall."""
        return used < self._used or (used - self._used) * _FASTEST >= size

    def _taken(self) -> float:
        """By how much the free space has fallen since the last look, whoever took it."""
        free = self._free_space()
        self._free = max(self._free, free)
        return self._free - free

    def _free_space(self) -> float:
        free = 0.0
        for folder in self._bounds:
            with suppress(OSError):
                found = os.statvfs(folder)
                free += found.f_bfree * found.f_frsize + found.f_ffree * _ENTRY
        return free

    def _look(self) -> str:
        began = time.perf_counter()
        free, used = self._free_space(), self._worker.active_seconds()
        hidden = self._worker.nameless_bytes(self._disks)
        rooms: list[float] = []
        for folder, most in self._bounds.items():
            rooms.append(most - size_of(folder, most))
            if rooms[-1] < 0:
                return f"{folder} holds more than {most / _MIB:,.0f} MiB, or hides what it holds"
        if hidden > sum(rooms):  # which folder they were in nobody knows any more
            return f"files without a name hold {hidden / _MIB:,.0f} MiB, and there is no room left for so much"
        self._room, self._free = min(*rooms, sum(rooms) - hidden), free
        self._used = self._used if used is None else used
        self._cost = time.perf_counter() - began
        return ""


def _bounded(value: float, least: float, most: float) -> float:
    return max(least, min(value, most))


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
