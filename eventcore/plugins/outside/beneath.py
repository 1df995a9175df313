"""Opens files beneath a folder that a stranger can change: no link, no `..` and no mount point leads out of it.

openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS (Linux 5.6). The kernel resolves the path
once, so nothing can be put in between a check and its use.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventcore.kernel.errors import InvalidInput, NotFound, SandboxUnavailable
from eventcore.plugins.sandbox.linux import calls

_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(folder: Path, name: str, flags: int) -> int:
    """A descriptor of what `name` is, seen from `folder`.

    Args:
        flags: of open(2); O_CLOEXEC is added.

    Raises:
        NotFound: it is not there.
        InvalidInput: it leads out of the folder, or over a link, or is not what the flags want.
        SandboxUnavailable: the kernel has no openat2.
    """
    if "\0" in name:
        raise InvalidInput("a path holds no NUL")
    try:
        root = calls.open_fixed(os.fspath(folder))
    except OSError as error:
        raise _explained(name, error) from None
    try:
        how = _How(flags | os.O_CLOEXEC, 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
        path = ctypes.c_char_p(os.fsencode(name))
        return calls.syscall("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))
    except OSError as error:
        raise _explained(name, error) from None
    finally:
        os.close(root)


def _explained(name: str, error: OSError) -> Exception:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound(f"there is no file {name!r} in the folders of the plugin")
        case errno.EXDEV | errno.ELOOP:
            return InvalidInput(f"{name!r} leads out of the folders of the plugin, or over a link")
        case errno.ENOSYS:
            return SandboxUnavailable("files of plugins need openat2", kind="SandboxUnavailable", hint="Linux 5.6")
        case _:
            return InvalidInput(f"{name!r} cannot be opened: {error.strerror}")


@contextmanager
def reading(folder: Path, name: str, most: int) -> Iterator[tuple[int, int]]:
    """A regular file of at most `most` bytes, as (descriptor, size).

    Raises:
        NotFound, InvalidInput: as `open_beneath`; or it is larger, or no regular file.
    """
    # O_NONBLOCK: a FIFO that nobody writes to must not hold us up.
    fd = open_beneath(folder, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidInput(f"{name!r} is no regular file")
        if info.st_size > most:
            raise InvalidInput(f"{name!r} is {info.st_size:,} bytes large; the limit is {most:,}")
        yield fd, info.st_size
    finally:
        os.close(fd)


class NewFile:
    """A file that appears under its name when it is whole, in the place of one that has it; `with` gives it up."""

    def __init__(self, folder: Path, name: str) -> None:
        parent, _, self._name = name.rpartition("/")
        if self._name in ("", ".", ".."):
            raise InvalidInput(f"{name[:200]!r} is no name of a file")
        self._parent = open_beneath(folder, parent or ".", os.O_PATH | os.O_DIRECTORY)
        self._part = f".{secrets.token_hex(8)}.part"
        self._done = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self._part, flags, 0o644, dir_fd=self._parent)
            owner = os.fstat(self._parent)
            with suppress(PermissionError):  # not root: the folder is ours
                os.fchown(self._fd, owner.st_uid, owner.st_gid)
        except OSError as error:
            os.close(self._parent)
            raise _explained(name, error) from None

    def write(self, data: bytes) -> None:
        """Add to it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """Give it its name."""
        os.replace(self._part, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._done = True

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *failure: object) -> None:
        if not self._done:
            with suppress(OSError):
                os.unlink(self._part, dir_fd=self._parent)
        os.close(self._fd)
        os.close(self._parent)
