"""What files without a name take: a file that is unlinked, or never had a name (O_TMPFILE), is in no folder, but keeps
its place on the disk for as long as a process has it open or mapped, or has sent it into a socket that nobody reads.

Whoever watches a worker's folders counts them as well. The kernel shows them to root, and to the user who runs the
worker as long as it is dumpable (`confine.py`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress

#: `7f..-7f.. rw-s 00000000 fe:00 4711   /path/to/it (deleted)`
_DELETED = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) .*\(deleted\)$")
_IN_FLIGHT = re.compile(rb"^scm_fds:\s*(\d+)", re.MULTILINE)
#: So many descriptors under way are let pass: what they are nobody can see, and honest code hands some over at times.
_PASS = 2


def nameless(pids: Iterable[int], devices: Collection[int], most: int) -> float:
    """Bytes of the nameless files of processes, as far as they can be seen.

    Args:
        devices: only files that lie there (`st_dev`).
        most: the most that one file may have: counted for a file that can be seen, and its size not.
    """
    sizes: dict[tuple[int, int], int] = {}
    flying = 0
    for pid in pids:
        with suppress(OSError):
            flying += _open_files(pid, devices, sizes)
        with suppress(OSError):
            _mapped_files(pid, devices, sizes, most)
    return sum(sizes.values()) + max(0, flying - _PASS) * most


def _open_files(pid: int, devices: Collection[int], sizes: dict[tuple[int, int], int]) -> int:
    """Note those that are open; returns how many descriptors are under way in sockets."""
    flying = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        place = f"/proc/{pid}/task/{thread}"
        with suppress(OSError):
            found = os.listdir(f"{place}/fd")
            flying += sum(_open_file(place, fd, devices, sizes) for fd in found)
            if found:  # its threads share their files: the filter sees to that
                break
    return flying


def _open_file(place: str, fd: str, devices: Collection[int], sizes: dict[tuple[int, int], int]) -> int:
    with suppress(OSError):
        found = os.stat(f"{place}/fd/{fd}")
        if stat.S_ISSOCK(found.st_mode):
            return _in_flight(f"{place}/fdinfo/{fd}")
        _note(found, devices, sizes)
    return 0


def _in_flight(info: str) -> int:
    with open(info, "rb") as file:
        said = _IN_FLIGHT.search(file.read())
    return int(said[1]) if said else 0


def _mapped_files(pid: int, devices: Collection[int], sizes: dict[tuple[int, int], int], most: int) -> None:
    seen: set[bytes] = set()
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            said = _DELETED.match(line.rstrip(b"\n")) if line.endswith(b"(deleted)\n") else None
            if said is None or said[4] in seen:
                continue
            seen.add(said[4])
            try:
                _note(os.stat(f"/proc/{pid}/map_files/{said[1].decode()}"), devices, sizes)
            except OSError:  # only root may look there
                device, inode = os.makedev(int(said[2], 16), int(said[3], 16)), int(said[4])
                if device in devices:
                    sizes.setdefault((device, inode), most)


def _note(found: os.stat_result, devices: Collection[int], sizes: dict[tuple[int, int], int]) -> None:
    if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_dev in devices:
        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
