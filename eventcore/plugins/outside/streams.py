"""What comes from a stranger's server is taken in small parts, with a pause after each.

The library beneath reads 64 KiB at a time, and gives what it finds in them without waiting once: ten thousand chunks of
a byte each held up the host's loop for a second. It also passes over interim answers (103 and the like) for ever.
"""

from __future__ import annotations

import ssl
from typing import Any

import anyio.lowlevel
import httpcore

_PART = 2048
#: Bytes of all that comes before an answer's body: interim answers, and headers, of which the library takes 100 KiB.
_MOST_BEFORE = 128 * 1024


class FairStream(httpcore.AsyncNetworkStream):
    """A connection that gives others their turn.

    Args:
        inner: the connection.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner, self._rest = inner, b""
        #: Bytes since the request; None once its answer's headers are known.
        self._before: int | None = 0

    def in_body(self) -> None:
        """The headers of the answer are known; what follows has limits of its own."""
        self._before = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._rest:
            await anyio.lowlevel.checkpoint()
        else:
            self._rest = await self._inner.read(max_bytes, timeout)
        size = min(max_bytes, _PART)
        part, self._rest = self._rest[:size], self._rest[size:]
        if self._before is not None:
            self._before += len(part)
            if self._before > _MOST_BEFORE:
                raise httpcore.RemoteProtocolError(f"more than {_MOST_BEFORE:,} bytes before its answer")
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._before is None:
            self._before = 0  # another request
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        self._rest = b""
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return FairStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._rest:
            return True  # said without having been asked: the connection is not used again
        return self._inner.get_extra_info(info)
