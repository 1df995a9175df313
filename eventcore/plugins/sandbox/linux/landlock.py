"""Landlock: which files a thread and what comes of it may reach. Linux 5.13 and later; we need ABI 2 (5.19)."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Collection, Iterable
from enum import IntFlag

from eventcore.plugins.sandbox.linux.calls import open_fixed, syscall

_GET_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_CONNECT_TCP = 2
_SCOPES = 3  # abstract unix sockets, signals


class Access(IntFlag):
    """Rights on files, by the kernel's bits."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.READ_FILE | Access.READ_DIR
#: Never: programs, sockets, pipes and devices.
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.MAKE_SYM
    | Access.REFER
    | Access.TRUNCATE
)
#: Files that are kept in one folder, and no more.
KEEP = READ | Access.WRITE_FILE | Access.REMOVE_FILE | Access.MAKE_REG | Access.TRUNCATE
_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV


def handled(abi: int) -> Access:
    """All rights that a kernel of this ABI can withhold."""
    bits = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)
    return Access((1 << bits) - 1)


def abi() -> int:
    """The kernel's version of the interface.

    Raises:
        OSError: it has none, or it is switched off.
    """
    return syscall("landlock_create_ruleset", None, 0, _GET_VERSION)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Path(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("fd", ctypes.c_int32))


class _Port(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def restrict(
    version: int, paths: Iterable[tuple[str, Access]], ports: Iterable[int] = (), fixed: Collection[str] = ()
) -> None:
    """Withhold everything but these from the calling thread, for good. Needs no_new_privs.

    Args:
        version: the ABI to use.
        paths: folders and files, and what may be done with them and beneath; one that is not there is left out.
        ports: TCP ports that may be connected to; needs ABI 4.
        fixed: those of `paths` that have no link in them; one that has by now is an error.

    Raises:
        OSError: the kernel refuses it.
    """
    sizes = {4: 16, 5: 16}
    size = 8 if version < 4 else sizes.get(version, 24)
    rights = handled(version)
    value = _Ruleset(rights, 3 if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    ruleset = syscall("landlock_create_ruleset", ctypes.byref(value), size, 0)
    try:
        for path, access in paths:
            _add_path(ruleset, path, access & rights, fixed=path in fixed)
        for port in ports:
            rule = _Port(_CONNECT_TCP, port)
            syscall("landlock_add_rule", ruleset, _NET_PORT, ctypes.byref(rule), 0)
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _add_path(ruleset: int, path: str, access: Access, *, fixed: bool) -> None:
    try:
        fd = open_fixed(path) if fixed else os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _Path(access if stat.S_ISDIR(os.fstat(fd).st_mode) else access & _OF_FILES, fd)
        syscall("landlock_add_rule", ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)
