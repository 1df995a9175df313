"""Reading bodies that strangers send: never more than a limit, also when they are compressed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator

from eventcore.kernel.errors import RequestFailed

#: Of zlib: gzip or zlib's own header, told apart by itself.
_ANY_HEADER = 47
#: Parts that a body may come in, whatever their sizes, and what each further one must hold on average: a part of a byte
#: costs the host as much as one of some thousand.
_FREE_PARTS, _AVERAGE = 4000, 256


async def limited(parts: AsyncIterator[bytes], limit: int, encoding: str, what: str) -> AsyncGenerator[bytes, None]:
    """The body in parts, decompressed, until it is over.

    Args:
        encoding: the header Content-Encoding; we ask for none, and some servers compress all the same.
        what: what is read, for messages.

    Raises:
        RequestFailed: it is larger than `limit` bytes, broken, in an encoding that is not gzip or deflate, or in too
            many small parts.
    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise RequestFailed(f"{what} is encoded as {encoding[:64]!r}, which was not asked for")
    opener = None if encoding in ("", "identity") else zlib.decompressobj(_ANY_HEADER)
    left, owed = limit, -_FREE_PARTS * _AVERAGE
    async for part in parts:
        owed += _AVERAGE - len(part)
        if owed > 0:
            raise RequestFailed(f"{what} comes in too many small parts", limit="parts")
        # One byte more than may come, so that a body of just the limit is told from a larger one; a bomb ends here.
        data = part if opener is None else _open(opener, part, left + 1, what)
        left -= len(data)
        if left < 0:
            raise RequestFailed(f"{what} is larger than {limit:,} bytes", limit="size")
        yield data


def _open(opener: zlib._Decompress, part: bytes, most: int, what: str) -> bytes:
    try:
        return opener.decompress(part, most)
    except zlib.error as error:
        raise RequestFailed(f"{what} is not what its encoding says: {error}") from None
