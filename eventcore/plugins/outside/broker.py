"""The host's HTTP broker: what `ctx.http` asks is asked by the host, if the plugin's grants reach that far.

A plugin's own process has no socket. Each request is checked by name before it is sent, by address when its connection
is opened, and once more at each redirect. Refusals are recorded; secrets are put in here and taken out of answers.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import anyio
import httpcore
import httpx

from eventcore.kernel.errors import EventCoreError, InvalidInput, PermissionDenied, RateLimited, RequestFailed
from eventcore.kernel.outside import HttpSettings, PluginScope
from eventcore.kernel.ports import Clock, Metrics, Secrets
from eventcore.plugins.host_api import CallApi
from eventcore.plugins.outside.asked import SAFE, Asked, port_of, read, read_url
from eventcore.plugins.outside.bodies import limited
from eventcore.plugins.outside.masking import masked, masked_parts
from eventcore.plugins.outside.rate import Bucket
from eventcore.plugins.outside.reach import Reach, fill, reach_of
from eventcore.plugins.outside.transport import AddressRefused, CheckedBackend, CheckedTransport, Lookups, Resolver
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord

#: Errors of the two libraries that mean: nobody answered as they should.
_FAILURES = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    OSError,
)
_MAX_RESPONSE_HEADERS = 32_768

#: Stores a download: for which call, under which name, and the parts.
Saver = Callable[[CallApi, str, AsyncIterator[bytes]], Awaitable[dict[str, Any]]]


class _Client:
    """What is kept of one plugin's requests: its reach, its connections, and its rate."""

    def __init__(self, reach: Reach, transport: CheckedTransport, now: float) -> None:
        self.reach, self.bucket = reach, Bucket(reach.per_minute, now)
        # `trust_env` off: a proxy would connect for us, to an address that nobody checked.
        self.http = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            timeout=None,  # noqa: S113 - each request has a limit around all of it
            headers={"User-Agent": "eventcore", "Accept": "*/*", "Accept-Encoding": "identity"},
        )
        # One tenant's cookies are not sent for another.
        self.http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))


class Broker:
    """Makes requests for plugins. One belongs to one engine.

    Args:
        scopes: what the operator says of each plugin, by slug.
        save: stores a download where the plugin may write.
        resolver: from names to addresses, in place of the system's; for tests.
        tls: whom to trust; None: the usual authorities.
    """

    def __init__(
        self,
        settings: HttpSettings,
        scopes: Mapping[str, PluginScope],
        secrets: Secrets,
        clock: Clock,
        metrics: Metrics,
        *,
        save: Saver,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings, self._scopes, self._secrets = settings, scopes, secrets
        self._clock, self._metrics, self._save = clock, metrics, save
        self._resolver, self._tls = resolver, tls
        self._clients: dict[str, tuple[object, _Client]] = {}

    async def request(self, call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
        """The service `http.request`.

        Raises:
            PermissionDenied: the grants do not reach the host, by its name or by its address; recorded.
            RateLimited: more requests a minute than the plugin may make.
            RequestFailed: nobody answered, or too slowly, or with too much.
        """
        outcome = "failed"
        try:
            answer = await self._request(call, params)
            outcome = "ok"
        except PermissionDenied:
            outcome = "refused"
            raise
        except RateLimited:
            outcome = "rate"
            raise
        finally:
            self._metrics.count("plugin_http_requests_total", plugin=call.record.slug, outcome=outcome)
        return answer

    async def close(self) -> None:
        """Close all connections."""
        clients = [client for _, client in self._clients.values()]
        self._clients.clear()
        for client in clients:
            await client.http.aclose()

    # -- one request -------------------------------------------------------------------------------------------------

    async def _request(self, call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
        asked = read(params, self._settings.timeout)
        what = f"{asked.method} {asked.url.copy_with(query=None)}"
        await call.need(PluginPermission.NETWORK_ACCESS, what)
        if asked.method not in SAFE:
            await call.may_change(what)
        client = await self._client(call.record)
        try:
            with anyio.fail_after(asked.timeout):
                return await self._follow(call, client, asked)
        except AddressRefused as error:
            await call.refuse(f"{call.record.slug} may not {what}: {error}", host=asked.url.host)
            raise AssertionError("unreachable: refuse raises") from None
        except TimeoutError:
            raise RequestFailed(f"{what} took longer than {asked.timeout:g} s", limit="time") from None
        except _FAILURES as error:
            raise RequestFailed(f"{what} failed: {str(error) or type(error).__name__}") from error

    async def _follow(self, call: CallApi, client: _Client, asked: Asked) -> dict[str, Any]:
        request = client.http.build_request(asked.method, asked.url, headers=asked.headers, content=asked.body or None)
        for _ in range(self._settings.max_redirects + 1):
            used = await self._admit(call, client, request)
            response = await client.http.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await self._answer(call, asked, response, used)
                request = _redirected(response.next_request, client.reach)
            finally:
                await response.aclose()
        raise RequestFailed(
            f"{asked.url} leads to more than {self._settings.max_redirects} redirects", limit="redirects"
        )

    async def _admit(self, call: CallApi, client: _Client, request: httpx.Request) -> set[str]:
        """Check a request by its host's name and the rate, and add what the host adds; returns the secrets in it."""
        url, slug = request.url, call.record.slug
        place = (url.scheme, url.host.strip("[]"), port_of(url))
        if not client.reach.allows(*place):
            await call.refuse(
                f"{slug} may not ask {url.host}:{place[2]}: it is not among the hosts that it was granted",
                host=url.host,
            )
        if wait := client.bucket.take(self._clock.monotonic()):
            raise RateLimited(
                f"{slug} makes more than {client.reach.per_minute:g} requests a minute; the next in {wait:.1f} s"
            )
        used: set[str] = set()
        for name, template in client.reach.templates(*place).items():
            request.headers[name] = fill(template, self._secrets, used)
        if used and url.scheme != "https" and not client.reach.is_local(*place):
            raise InvalidInput(f"the headers that the host adds for {url.host} hold secrets, which go over https only")
        return used

    async def _answer(self, call: CallApi, asked: Asked, response: httpx.Response, used: set[str]) -> dict[str, Any]:
        headers = [
            (name.decode("latin-1").lower(), masked(value, used).decode("latin-1"))
            for name, value in response.headers.raw
        ]
        if sum(len(name) + len(value) for name, value in headers) > _MAX_RESPONSE_HEADERS:
            raise RequestFailed(f"{asked.url.host} answered with more than {_MAX_RESPONSE_HEADERS:,} bytes of headers")
        found: dict[str, Any] = {"status": response.status_code, "url": str(response.url), "headers": headers}
        most = self._settings.max_response if asked.save_as is None else self._settings.max_download
        encoding = response.headers.get("content-encoding", "")
        raw = response.aiter_raw()
        try:
            async with (
                aclosing(limited(raw, most, encoding, f"the answer of {asked.url.host}")) as plain,
                aclosing(masked_parts(plain, used)) as body,
            ):
                if asked.save_as is not None and response.is_success:
                    return found | {"body": "", "saved": await self._save(call, asked.save_as, body)}
                return found | {"body": base64.b64encode(b"".join([part async for part in body])).decode()}
        except Exception:
            await _abandon(response, raw)
            raise

    # -- clients -----------------------------------------------------------------------------------------------------

    async def _client(self, record: PluginRecord) -> _Client:
        """The plugin's client; a new one when its manifest has changed."""
        manifest = record.described()
        kept = self._clients.get(record.slug)
        if kept is not None and kept[0] is manifest:
            return kept[1]
        reach = reach_of(manifest, self._scopes.get(record.slug, PluginScope()), self._settings)
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        backend = CheckedBackend(_local_for(reach), self._resolver or Lookups(self._settings.connections))
        transport = CheckedTransport(backend, tls=self._tls, connections=self._settings.connections)
        client = _Client(reach, transport, self._clock.monotonic())
        self._clients[record.slug] = (manifest, client)
        if kept is not None:
            await kept[1].http.aclose()
        return client


async def _abandon(response: httpx.Response, rest: AsyncIterator[bytes]) -> None:
    """Leave a body before its end. The libraries' generators are ended by an error from beneath: left alone, they would
    be collected half-way through, which event loops complain of."""
    await response.extensions["network_stream"].aclose()
    with suppress(*_FAILURES, httpx.StreamError):
        async for _ in rest:
            pass


def _local_for(reach: Reach) -> Callable[[str, int], bool]:
    return lambda host, port: any(reach.is_local(scheme, host, port) for scheme in ("http", "https"))


def _redirected(request: httpx.Request, reach: Reach) -> httpx.Request:
    """The next request of a redirect, without what the host added for the place before.

    Raises:
        RequestFailed: it leads to something that is no usual URL.
    """
    try:
        request.url = read_url(str(request.url))
    except EventCoreError as error:
        raise RequestFailed(f"it redirects to what cannot be asked: {error.message}") from None
    for name in reach.added():
        request.headers.pop(name, None)
    return request
