"""ID-mapped mounts (Linux 5.12): a folder whose owner appears as somebody else, in one mount alone.

A worker that root started has a user of its own. Through such a mount it may read its plugin's code whatever the mode
of the files, and what it writes into a granted folder belongs to the folder's owner. Nothing on the disk is changed.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable
from contextlib import suppress

from eventcore.plugins.sandbox.linux import calls

_MOUNT_ATTR_IDMAP = 0x100000
#: User namespaces that are kept for workers to come: (user and group on the disk, whom they appear as) -> descriptor.
_KEPT: dict[tuple[int, int, int], int] = {}
_MOST_KEPT = 32


def mapping(inside: tuple[int, int], outside: tuple[int, int]) -> int:
    """A descriptor of a user namespace that maps one user and group to another. Needs to be root.

    Args:
        inside: user and group on the disk.
        outside: whom they appear as.

    Raises:
        OSError: it is refused.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _hold(theirs)
    try:
        with ours, theirs:
            ours.settimeout(5)
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if not fds:
                raise OSError(1, "a user namespace is refused")
            return _write(fds[0], inside, outside)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def remember(sources: Iterable[str], uid: int | None) -> None:
    """Have what `appear_as` will need of these at hand, in this process and in what it forks.

    To make a mapping takes a process, which a keeper would start anew for each worker. What cannot be made now is left
    to `appear_as`, which says why.
    """
    if uid is None:
        return
    for source in sources:
        with suppress(OSError):
            found = os.stat(source)
            key = (found.st_uid, found.st_gid, uid)
            if key not in _KEPT:
                made = mapping(key[:2], (uid, uid))
                while len(_KEPT) >= _MOST_KEPT:
                    os.close(_KEPT.pop(next(iter(_KEPT))))
                _KEPT[key] = made


def _hold(sock: socket.socket) -> None:
    try:
        calls.unshare(calls.CLONE_NEWUSER)
        # Its own folder in /proc, opened by itself: in a pid namespace its number means another process there.
        folder = os.open("/proc/self/", os.O_RDONLY | os.O_DIRECTORY)
        socket.send_fds(sock, [b"."], [folder])
        signal.pause()
    finally:
        os._exit(1)


def _write(folder: int, inside: tuple[int, int], outside: tuple[int, int]) -> int:
    try:
        for name, inner, outer in zip(("uid_map", "gid_map"), inside, outside, strict=True):
            fd = os.open(name, os.O_WRONLY, dir_fd=folder)
            try:
                os.write(fd, f"{inner} {outer} 1".encode())
            finally:
                os.close(fd)
        return os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)


def appear_as(tree: int, uid: int) -> None:
    """Have the owner of a copy of mounts (`calls.open_tree`) appear as `uid`.

    Raises:
        OSError: EINVAL: this kind of file system cannot do that.
    """
    found = os.fstat(tree)
    kept = _KEPT.get((found.st_uid, found.st_gid, uid))
    namespace = mapping((found.st_uid, found.st_gid), (uid, uid)) if kept is None else kept
    try:
        calls.mount_setattr_of(tree, _MOUNT_ATTR_IDMAP, namespace)
    finally:
        if kept is None:
            os.close(namespace)
