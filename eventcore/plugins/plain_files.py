"""Reading files of a plugin's folder in the host: only what lies in it, only regular files, and so many bytes.

A folder that somebody copied may hold links to files that only the host can read, and pipes that nobody writes to.
"""

from __future__ import annotations

import errno
import os
import stat


def read_plain(folder: str | os.PathLike[str], name: str, most: int) -> bytes:
    """The bytes of a file in a folder. A link may lead to another file of the folder, and nowhere else.

    Args:
        name: the file, relative to the folder.
        most: bytes that it may have; one more are returned of one that has more.

    Raises:
        OSError: there is none, it is no regular file, or it lies elsewhere.
    """
    descriptor = _opened(os.fspath(folder) or ".", name)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", name)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most + 1)
    finally:
        os.close(descriptor)


def _opened(folder: str, name: str) -> int:
    # Not blocking: a named pipe would wait for a writer, and some files of the kernel for something to tell.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    if "/" not in name:
        try:
            return os.open(f"{folder}/{name}", flags)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
    top, place = os.path.realpath(folder), os.path.realpath(f"{folder}/{name}")
    if os.path.commonpath((top, place)) != top:
        raise OSError(errno.EXDEV, "it is a link that leads out of the plugin's folder", name)
    return os.open(place, flags)
