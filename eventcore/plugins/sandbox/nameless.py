"""What files without a name take: a file that is unlinked, or never had a name (O_TMPFILE), is in no folder, but keeps
its place on the disk for as long as a process has it open or mapped, or has sent it into a socket that nobody reads.

Whoever watches a worker's folders counts them as well. The kernel shows them to root, and to the user who runs the
worker as long as it is dumpable (`confine.py`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

#: `7f..-7f.. rw-s 00000000 fe:00 4711   /path/to/it (deleted)`
_DELETED = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(.*)\(deleted\)$")
_IN_FLIGHT = re.compile(rb"^scm_fds:\s*(\d+)", re.MULTILINE)
#: So many descriptors under way are let pass: what they are nobody can see, and honest code hands some over at times.
_PASS = 2


@dataclass(frozen=True, slots=True)
class Disks:
    """Where files are counted.

    Attributes:
        devices: what lies on these (`st_dev`).
        folders: and what was in these. Layers laid over one another (overlayfs) have devices of their own, which may be
            others for files than for folders.
    """

    devices: frozenset[int] = frozenset()
    folders: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, folders: Iterable[str]) -> Disks:
        """Those of folders; raises OSError where one is gone."""
        found = [*folders]
        devices = frozenset(os.stat(folder).st_dev for folder in found)
        return cls(devices, tuple(os.path.join(os.fsencode(folder), b"") for folder in found))

    def hold(self, device: int, path: bytes) -> bool:
        """Whether a file of this device counts, which was at this path."""
        return device in self.devices or path.startswith(self.folders)


def nameless(pids: Iterable[int], disks: Disks, most: int) -> float:
    """Bytes of the nameless files of processes, as far as they can be seen.

    Args:
        most: the most that one file may have: counted for a file that can be seen, and its size not.
    """
    sizes: dict[tuple[int, int], int] = {}
    flying = 0
    for pid in pids:
        with suppress(OSError):
            flying += _open_files(pid, disks, sizes)
        with suppress(OSError):
            _mapped_files(pid, disks, sizes, most)
    return sum(sizes.values()) + max(0, flying - _PASS) * most


def _open_files(pid: int, disks: Disks, sizes: dict[tuple[int, int], int]) -> int:
    """Note those that are open; returns how many descriptors are under way in sockets."""
    flying = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        place = f"/proc/{pid}/task/{thread}"
        with suppress(OSError):
            found = os.listdir(f"{place}/fd")
            flying += sum(_open_file(place, fd, disks, sizes) for fd in found)
            if found:  # its threads share their files: the filter sees to that
                break
    return flying


def _open_file(place: str, fd: str, disks: Disks, sizes: dict[tuple[int, int], int]) -> int:
    link = f"{place}/fd/{fd}"
    with suppress(OSError):
        found = os.stat(link)
        if stat.S_ISSOCK(found.st_mode):
            return _in_flight(f"{place}/fdinfo/{fd}")
        if _is_nameless(found):
            _note(found, os.readlink(os.fsencode(link)), disks, sizes)
    return 0


def _in_flight(info: str) -> int:
    with open(info, "rb") as file:
        said = _IN_FLIGHT.search(file.read())
    return int(said[1]) if said else 0


def _mapped_files(pid: int, disks: Disks, sizes: dict[tuple[int, int], int], most: int) -> None:
    seen: set[bytes] = set()
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            said = _DELETED.match(line.rstrip(b"\n")) if line.endswith(b"(deleted)\n") else None
            if said is None or said[4] in seen:
                continue
            seen.add(said[4])
            # The device that is told here may be that of a layer; of a file that can be looked at it is its own.
            device, inode, path = os.makedev(int(said[2], 16), int(said[3], 16)), int(said[4]), said[5]
            try:
                found = os.stat(f"/proc/{pid}/map_files/{said[1].decode()}")
            except OSError:  # only root may look there
                if disks.hold(device, path):
                    sizes.setdefault((device, inode), most)
                continue
            if _is_nameless(found):
                _note(found, path, disks, sizes)


def _note(found: os.stat_result, path: bytes, disks: Disks, sizes: dict[tuple[int, int], int]) -> None:
    if disks.hold(found.st_dev, path):
        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512


def _is_nameless(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and not found.st_nlink
