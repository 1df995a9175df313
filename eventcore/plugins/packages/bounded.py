"""What archives are read through, so that none of their own words makes the host take much memory."""

from __future__ import annotations

import io
import tarfile
from typing import IO, Any

from eventcore.kernel.errors import PackageRefused

#: The longest table of contents of a zip file, which is read as a whole: 47 bytes of it become 300 of memory.
_MAX_TABLE = 4 * 1024 * 1024
#: The longest header of a tar file, such as a long name, which is read as a whole as well.
_MAX_HEADER = 64 * 1024
_LONG_HEADERS = frozenset(
    (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )
)


class Bounded(io.RawIOBase):
    """A stream that ends with an error where it gives more than it may.

    Args:
        most: bytes.
        slack: so many more are let through, for what is no content.
    """

    def __init__(self, stream: io.BufferedIOBase, most: int, slack: int) -> None:
        self._stream, self._most, self._left = stream, most, most + slack

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            size = self._left + 1
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise PackageRefused(f"the archive unpacks to more than {self._most:,} bytes")
        return data


class Header(tarfile.TarInfo):
    """A tar file's header that refuses to be long."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _LONG_HEADERS and self.size > _MAX_HEADER:
            raise PackageRefused(f"the archive has a header of {self.size:,} bytes; at most {_MAX_HEADER:,}")
        known: Any = super()
        return known._proc_member(archive)


class Table:
    """A zip file that is not read in one piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, _MAX_TABLE + 1) if size >= 0 else _MAX_TABLE + 1)
        if len(data) > _MAX_TABLE:
            raise PackageRefused(f"the archive has a table of contents of more than {_MAX_TABLE:,} bytes")
        return data
