"""Folders that a launcher keeps beneath the system's temporary one, and what is left of those of others.

They are removed when the launcher is closed. A host that is killed cannot do that; so each holds a lock on its own
(which the kernel gives up with the process, in whatever pid namespace it was), and the next one removes what nobody
holds.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from eventcore.plugins.sandbox import diskwatch

PREFIX = "eventcore-sandbox-"
#: A folder that is younger may be about to be locked. Seconds.
_YOUNG = 10.0


class Places:
    """One folder with a lock, made when it is first needed."""

    def __init__(self) -> None:
        self._folder, self._lock = "", -1

    def make(self, name: str) -> str:
        """An empty folder of our own; `name` is the beginning of its name."""
        if not self._folder:
            sweep()
            self._folder = tempfile.mkdtemp(prefix=PREFIX)
            self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Workers with users of their own pass through it, and cannot list it.
            os.chmod(self._folder, 0o711)  # noqa: S103
        return tempfile.mkdtemp(prefix=f"{name[:32]}-", dir=self._folder)

    def close(self) -> None:
        """Remove it with all that it holds."""
        if self._folder:
            diskwatch.remove(self._folder)
            os.close(self._lock)
            self._folder, self._lock = "", -1


def sweep() -> list[str]:
    """Remove the folders that hosts of our user left behind when they were killed. Returns what was removed."""
    removed = []
    base = tempfile.gettempdir()
    for name in os.listdir(base):
        if name.startswith(PREFIX):
            with suppress(OSError):  # somebody else's, or in use, or gone meanwhile
                removed += _swept(os.path.join(base, name))
    return removed


def _swept(path: str) -> list[str]:
    # Not following a link, and with the owner looked at on what is open: the folder above is everybody's.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or time.time() - found.st_ctime < _YOUNG or not stat.S_ISDIR(found.st_mode):
            return []
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        diskwatch.remove(path)
        return [] if Path(path).exists() else [path]
    finally:
        os.close(fd)
