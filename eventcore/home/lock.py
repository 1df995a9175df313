"""The owner lock: a home is opened by one engine at a time.

The truth is an advisory lock on the open file (flock(2)), which the kernel drops when the process ends however it ends.
What the file says is information for people and for clients that look for the socket; it may be out of date.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from eventcore.kernel.errors import HomeError, HomeInUse
from eventcore.kernel.ports import Clock

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Filesystems on which a lock taken on one machine may be invisible on another, and SQLite's WAL does not work.
NETWORK_FILESYSTEMS = frozenset(
    """nfs nfs4 cifs smb smb2 smb3 smbfs smbnetfs ncpfs 9p afs coda ceph glusterfs lustre gpfs beegfs orangefs pvfs2
    fuse.sshfs fuse.ceph fuse.glusterfs fuse.s3fs fuse.rclone fuse.gcsfuse fuse.davfs davfs fuse.curlftpfs
    fuse.smbnetfs""".split()
)

_MOUNTS = Path("/proc/self/mountinfo")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_CONTENT = 64 * 1024
#: Windows locks bytes, and locked bytes cannot be read by others: one far behind the content.
_WINDOWS_OFFSET = 1 << 30


@dataclass(frozen=True, slots=True)
class Owner:
    """What the lock file says about who holds it.

    Attributes:
        pid: process id, as its own process sees it.
        boot_id: the kernel's id of the boot in which it was written; empty where there is none.
        started: seconds since the Unix epoch.
        socket: path of the control socket, or empty before it is open.
    """

    pid: int
    boot_id: str
    started: float
    socket: str = ""

    def is_current(self) -> bool:
        """Whether such a process exists in this boot. If not, the file is left over from a killed engine."""
        return self.boot_id == boot_id() and _exists(self.pid)


class OwnerLock:
    """The lock on one home.

    ::

        with OwnerLock(home.lock, clock):
            ...

    Args:
        path: the lock file; its folder exists.
        clock: tells when it was taken.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._fd: int | None = None
        self._owner: Owner | None = None

    @property
    def held(self) -> bool:
        """Whether this object, in the process that acquired it, holds the lock."""
        return self._fd is not None and self._owner is not None and self._owner.pid == os.getpid()

    def acquire(self) -> None:
        """Take the lock at once, or fail.

        Raises:
            HomeInUse: another engine (or this process, by another object) holds it; the message names its process.
            HomeError: the folder is on a network filesystem, or the file cannot be opened or locked.
        """
        if self._fd is not None:
            raise HomeInUse(f"this lock on {self.path.parent} is held already")
        refuse_network_filesystem(self.path.parent)
        fd = self._open_and_lock()
        try:
            owner = Owner(os.getpid(), boot_id(), self._clock.now())
            _write(fd, owner)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._owner = fd, owner

    def record_socket(self, socket: Path) -> None:
        """Write into the file where the control socket is."""
        if self._fd is None or self._owner is None:
            raise HomeError("the lock is not held")
        self._owner = Owner(self._owner.pid, self._owner.boot_id, self._owner.started, str(socket))
        _write(self._fd, self._owner)

    def release(self) -> None:
        """Empty the file and give up the lock. Does nothing if it is not held.

        In a forked child only the child's descriptor is closed: to unlock there would unlock the parent.
        """
        fd, mine = self._fd, self.held
        self._fd = self._owner = None
        if fd is None:
            return
        try:
            if mine:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, 0)
                _unlock(fd)
        finally:
            os.close(fd)

    def __enter__(self) -> OwnerLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _open_and_lock(self) -> int:
        # Somebody may delete the file between our opening and our locking it; then the lock is on nothing.
        for _ in range(10):
            fd = self._open()
            try:
                if not _try_lock(fd):
                    raise self._in_use()
                if _same_file(fd, self.path):
                    return fd
            except OSError as error:
                os.close(fd)
                raise HomeError(f"cannot lock {self.path}: {error.strerror}") from error
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise HomeError(f"cannot lock {self.path}: the file is being replaced all the time")

    def _open(self) -> int:
        # Python's os.open sets O_CLOEXEC, so programs that we start do not inherit the lock.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            return os.open(self.path, flags, 0o600)
        except OSError as error:
            raise HomeError(f"cannot open {self.path}: {error.strerror}") from error

    def _in_use(self) -> HomeInUse:
        owner = read_owner(self.path)
        home = self.path.parent.parent
        if owner is None or not owner.is_current():
            return HomeInUse(f"another process owns {home}", hint="stop it, or talk to it with the command line")
        return HomeInUse(
            f"process {owner.pid} owns {home}",
            hint="stop it, or talk to it with the command line",
            pid=owner.pid,
            socket=owner.socket,
        )


def read_owner(path: Path) -> Owner | None:
    """What the lock file says, or None if it is missing, empty or unreadable.

    It may be out of date: only connecting to its `socket` shows that an engine runs.
    """
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_CONTENT))
        return Owner(int(content["pid"]), str(content["boot_id"]), float(content["started"]), str(content["socket"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def boot_id() -> str:
    """The kernel's id of this boot (proc(5), random/boot_id); empty where the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def refuse_network_filesystem(folder: Path, mounts: Path = _MOUNTS) -> None:
    """Check that `folder` is on a local filesystem, as far as the system tells.

    Args:
        mounts: a mount table in the format of proc(5), /proc/pid/mountinfo. Where there is none, nothing is checked.

    Raises:
        HomeError: it is on a network filesystem.
    """
    try:
        table = mounts.read_text("utf-8", "surrogateescape")
    except OSError:
        return
    place, kind = _mount_of(folder.resolve(), table)
    if kind in NETWORK_FILESYSTEMS:
        raise HomeError(
            f"{folder} is on a network filesystem ({kind} at {place})",
            hint="keep the home on a local disk; locks and the database are not safe there",
        )


def _mount_of(folder: Path, table: str) -> tuple[str, str]:
    """Mount point and type of the filesystem that holds `folder`: the longest prefix; of equals the last mounted."""
    best, kind = "", ""
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 5:
            continue
        point = _unescape(fields[4])
        if len(point) >= len(best) and folder.is_relative_to(point):
            best, kind = point, rest[0]
    return best, kind


def _unescape(text: str) -> str:
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, character)
    return text


def _write(fd: int, owner: Owner) -> None:
    content = json.dumps(asdict(owner)).encode() + b"\n"
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, content)
        os.ftruncate(fd, len(content))
    except OSError as error:
        raise HomeError(f"cannot write the lock file: {error.strerror}") from error


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    if os.name != "posix":
        # os.kill(pid, 0) would end the process on Windows.
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


if sys.platform == "win32":

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, _WINDOWS_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, _WINDOWS_OFFSET, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
