"""Connections to addresses that were looked at first: the address that is checked is the address that is used.

A name is resolved once for each connection, here, and the connection goes to what came of it. A second look-up by the
HTTP library, which another answer could slip into (DNS rebinding), does not take place. TLS still checks the name.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress

import anyio
import anyio.to_thread
import httpcore
import httpx

from eventcore.plugins.outside.hosts import forbidden, is_address
from eventcore.plugins.outside.streams import FairStream

#: From a name and port to addresses.
Resolver = Callable[[str, int], Awaitable[list[str]]]
_MOST_ADDRESSES = 8


class AddressRefused(Exception):
    """A host has no address that a plugin may reach; the text says which it has, and why not."""


class Lookups:
    """The system's resolver, for one plugin. It cannot be called off, and may take half a minute: each look-up has a
    thread, until it ends, so that nobody else waits for a plugin's slow names, and a plugin has so many at most.

    Args:
        most: look-ups under way.
    """

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most)

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a name.

        Raises:
            OSError: there are none, or too many look-ups are under way.
        """
        if is_address(host):
            return [host]
        if not self._room.acquire(blocking=False):
            raise OSError("names that were asked for before are still being looked up")
        limiter = anyio.CapacityLimiter(1)  # the threads that all share are not for this
        waiting = [True]
        try:
            return await anyio.to_thread.run_sync(
                self._look, host, port, waiting, limiter=limiter, abandon_on_cancel=True
            )
        except BaseException:
            self._leave(waiting)
            raise

    def _look(self, host: str, port: int, waiting: list[bool]) -> list[str]:
        """In a thread. Whoever empties `waiting` gives the place back: we, or who left before we began."""
        try:
            waiting.pop()
        except IndexError:
            return []
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        finally:
            self._room.release()
        return list(dict.fromkeys(str(row[4][0]) for row in found))[:_MOST_ADDRESSES]

    def _leave(self, waiting: list[bool]) -> None:
        with suppress(IndexError):
            waiting.pop()
            self._room.release()


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore.

    Args:
        local: whether a host (canonical name and port) may have a private address.
    """

    def __init__(self, local: Callable[[str, int], bool], resolver: Resolver) -> None:
        self._local, self._resolve = local, resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with anyio.fail_after(timeout):
                found = await self._resolve(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} was not resolved within {timeout:g} s") from None
        except OSError as error:
            raise httpcore.ConnectError(f"{host} is not known: {error}") from error
        usable = self._usable(host, port, found)
        for address in usable[:-1]:
            try:
                return FairStream(await self._inner.connect_tcp(address, port, timeout, None, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return FairStream(await self._inner.connect_tcp(usable[-1], port, timeout, None, socket_options))

    def _usable(self, host: str, port: int, found: list[str]) -> list[str]:
        why = {address: forbidden(address, local=self._local(host, port)) for address in found}
        usable = [address for address in found if not why[address]]
        if not usable:
            said = "; ".join(f"{address}: {reason}" for address, reason in why.items()) or "no address"
            raise AddressRefused(f"{host} may not be reached ({said})")
        return usable

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class CheckedTransport(httpx.AsyncBaseTransport):
    """httpx over a pool of checked connections."""

    def __init__(self, backend: CheckedBackend, *, tls: ssl.SSLContext, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, max_connections=connections, keepalive_expiry=15.0, network_backend=backend
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
            )
        )
        if isinstance(stream := response.extensions.get("network_stream"), FairStream):
            stream.in_body()
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """A response's body as it arrives."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()
