"""System calls that the standard library does not have, through ctypes. Each raises OSError, as `os` would.

Constants are those of the kernel's user headers, which never change.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource

from eventcore.plugins.sandbox.linux.tables import ARCHS, Arch

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_CAPBSET_DROP = 1, 4, 15, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
AT_FDCWD, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x8000, 0x100, 0x1000

_CAP_VERSION_3 = 0x20080522
_LAST_CAP = 63

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def arch() -> Arch:
    """This machine's table.

    Raises:
        OSError: ENOSYS; there is no table for it.
    """
    found = ARCHS.get(platform.machine())
    if found is None:
        raise OSError(38, f"there is no table of system calls for {platform.machine()}")
    return found


def syscall(name: str, *args: object) -> int:
    """One system call by name; integers are passed as 64 bits.

    Raises:
        OSError: it failed.
    """
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(_libc.syscall(ctypes.c_long(arch().calls[name]), *words))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return result


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2)."""
    return syscall("prctl", option, a, b, c, d)


def set_name(name: str) -> None:
    """What `ps` calls this process; 15 bytes at most."""
    syscall("prctl", PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _checked(_libc.setns(fd, kind), "setns")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    words = [text.encode() if text is not None else None for text in (source, target, kind)]
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(target.encode(), flags), "umount2")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall("pivot_root", ctypes.c_char_p(new_root.encode()), ctypes.c_char_p(put_old.encode()))


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_NO_SYMLINKS, _NO_MAGICLINKS = 0x04, 0x02


def open_fixed(path: str, at: int = AT_FDCWD) -> int:
    """A place, as O_PATH, that was found to have no link in its path: it must have none now either.

    Args:
        at: the folder that it is relative to.

    Raises:
        OSError: ELOOP: somebody has put a link there.
    """
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _NO_SYMLINKS | _NO_MAGICLINKS)
    try:
        return syscall("openat2", at, ctypes.c_char_p(os.fsencode(path)), ctypes.byref(how), ctypes.sizeof(how))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                error.errno, f"there is a link in the path of {path}, which was granted without one"
            ) from None
        raise


def open_tree(fd: int) -> int:
    """A copy of the mounts at and beneath a place, attached nowhere yet."""
    return syscall("open_tree", fd, ctypes.c_char_p(b""), 1 | os.O_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH)


def move_mount(tree: int, place: int) -> None:
    """Attach such a copy to a place."""
    syscall("move_mount", tree, ctypes.c_char_p(b""), place, ctypes.c_char_p(b""), 0x04 | 0x40)


class MountAttr(ctypes.Structure):
    """`struct mount_attr`: what to set and clear, propagation, and a user namespace."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("prop", ctypes.c_uint64),
        ("ns", ctypes.c_uint64),
    )


def mount_setattr_of(tree: int, attributes: int, namespace: int = 0) -> None:
    """The same for a descriptor of mounts; `namespace` is for MOUNT_ATTR_IDMAP."""
    value = MountAttr(attributes, 0, 0, namespace)
    empty = ctypes.c_char_p(b"")
    syscall("mount_setattr", tree, empty, AT_EMPTY_PATH | AT_RECURSIVE, ctypes.byref(value), ctypes.sizeof(value))


def mount_setattr(path: str, attributes: int, *, recursive: bool = True) -> None:
    """mount_setattr(2), Linux 5.12: add `attributes` to a mount, and to all beneath it."""
    value = MountAttr(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    place = ctypes.c_char_p(path.encode())
    syscall("mount_setattr", AT_FDCWD, place, flags, ctypes.byref(value), ctypes.sizeof(value))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def close_from(first: int) -> None:
    """Close all descriptors from a number on."""
    try:
        syscall("close_range", first, (1 << 32) - 1, 0)
    except OSError:  # a container's profile that is older than the call; closing one by one takes a while
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.closerange(first, 1 << 20 if hard == resource.RLIM_INFINITY else hard)


def drop_capabilities() -> None:
    """Give up all capabilities: ambient, bounding, inheritable, permitted and effective ones."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_LAST_CAP + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == 22:  # beyond the last one that this kernel knows
                break
            if error.errno != 1:  # without CAP_SETPCAP there is nothing to give up: the others are empty as well
                raise
            break
    header, data = _CapHeader(_CAP_VERSION_3, 0), (_CapData * 2)()
    syscall("capset", ctypes.byref(header), ctypes.byref(data))
