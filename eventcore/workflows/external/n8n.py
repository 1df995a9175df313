"""n8n as an external engine: `POST {base_url}/webhook/{slug}`.

Only what is safe is tried again: a connection that was refused or dropped, 429 and 5xx, each time with the same
`Idempotency-Key`. A response that is awaited for too long is not: the workflow may be at work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx

from eventcore.kernel.errors import InvalidInput, PluginFailed
from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.json import decode, encode
from eventcore.kernel.ports import Clock, Randomness
from eventcore.workflows.external.port import ExternalStart, Waiting

_MAX_WAIT = 60.0
_TELLS = 300
#: httpx counts the time of each wait; so that a response that drips in has an end, all may take so much longer.
_GRACE = 1.0
_AGAIN = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class N8n:
    """One n8n server.

    Args:
        base_url: `https://n8n.example.com`; a path in it is kept.
        headers: sent with every call, such as the one with n8n's secret, or a function that looks them up for each
            call. Their values show nowhere.
        slugs: those that it serves; None: any.
        wait: see `ExternalEngine.wait`.
        timeout: seconds for one attempt.
        attempts: all tries of one call; the step's own `retry` comes on top.
        mask: takes secrets out of what the server sends back: some echo the headers that they were sent.
        initial: seconds before the second try; doubled each time, a random half of it taken away.

    Raises:
        InvalidInput: the address is no http(s) address.
    """

    def __init__(
        self,
        base_url: str,
        clock: Clock,
        randomness: Randomness,
        *,
        name: str = "n8n",
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        slugs: frozenset[str] | None = None,
        wait: Waiting = "response",
        timeout: float = 30.0,
        attempts: int = 4,
        initial: float = 0.5,
        mask: Callable[[Any], Any] = lambda value: value,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if httpx.URL(base_url).scheme not in ("http", "https"):
            raise InvalidInput(f"{base_url!r} is no address of n8n; write https://n8n.example.com")
        self.name, self.wait = name, wait
        self._base, self._slugs, self._attempts, self._initial = base_url.rstrip("/"), slugs, attempts, initial
        self._headers, self._timeout, self._transport = headers or {}, timeout, transport
        self._clock, self._randomness, self._mask = clock, randomness, mask

    @property
    def place(self) -> str:
        """The address up to the slug, without what may be secret in it."""
        url = httpx.URL(self._base)
        return f"{url.scheme}://{url.netloc.decode('ascii').rpartition('@')[2]}{url.path.rstrip('/')}/webhook/"

    def serves(self, slug: str) -> bool:
        return self._slugs is None or slug in self._slugs

    async def start(self, request: ExternalStart) -> Any:
        body = dict(request.params) if isinstance(request.params, dict) else {"value": request.params}
        if request.resume_url:
            body["resume_url"] = request.resume_url
        headers = {
            **(self._headers() if callable(self._headers) else self._headers),
            "content-type": "application/json",
            "idempotency-key": request.key,
            "traceparent": request.traceparent,
        }
        raw, url = encode(body), f"{self._base}/webhook/{request.slug}"
        last = _Again("it was not tried", None)
        async with httpx.AsyncClient(timeout=self._timeout, transport=self._transport, trust_env=False) as client:
            for attempt in range(1, self._attempts + 1):
                outcome = await self._try(client, url, raw, headers)
                if not isinstance(outcome, _Again):
                    return outcome.value
                last = outcome
                if attempt < self._attempts:
                    await self._clock.sleep(self._pause(attempt, outcome.after))
        raise PluginFailed(
            f"{self.name} did not take {request.slug} in {self._attempts} tries: {last.why}",
            kind="ExternalUnavailable",
            retry_after=last.after,
        )

    def _pause(self, attempt: int, asked: float | None) -> float:
        if asked is not None:
            return min(asked, _MAX_WAIT)
        longest = self._initial * 2.0 ** (attempt - 1)
        return min(_MAX_WAIT, longest * (0.5 + self._randomness.random() / 2))

    async def _try(
        self, client: httpx.AsyncClient, url: str, raw: bytes, headers: Mapping[str, str]
    ) -> _Again | _Answer:
        try:
            with anyio.fail_after(self._timeout + _GRACE):
                async with client.stream("POST", url, content=raw, headers=headers) as response:
                    text = await _read(response)
        except _AGAIN as error:
            return _Again(type(error).__name__, None)
        except (httpx.TimeoutException, TimeoutError) as error:
            message = f"{self.name} did not answer within {self._timeout:g} s: {type(error).__name__}"
            raise PluginFailed(message, kind="ExternalTimeout") from None
        except httpx.HTTPError as error:  # it cannot be sent so, or its response cannot be read: no try would help
            message = f"the exchange with {self.name} failed: {type(error).__name__}"
            raise PluginFailed(message, kind="ExternalRefused") from None
        if response.status_code == 429 or response.status_code >= 500:
            return _Again(f"status {response.status_code}", self._asked(response))
        if response.status_code >= 300:
            said = str(self._mask(text.decode("utf-8", "replace")))[:_TELLS]
            raise PluginFailed(f"{self.name} refused it: {response.status_code} {said}", kind="ExternalRefused")
        return _Answer(self._mask(_value(text)))

    def _asked(self, response: httpx.Response) -> float | None:
        """What `Retry-After` asks for, in seconds."""
        text = response.headers.get("retry-after", "")
        if text.isdecimal() and len(text) < 10:
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._clock.now())
        except ValueError:
            return None


class _Again:
    """A try that may be repeated."""

    def __init__(self, why: str, after: float | None) -> None:
        self.why, self.after = why, after


class _Answer:
    def __init__(self, value: Any) -> None:
        self.value = value


async def _read(response: httpx.Response) -> bytes:
    parts = bytearray()
    async for part in response.aiter_bytes():
        parts += part
        if len(parts) > MAX_PAYLOAD:
            raise PluginFailed(f"the response is larger than {MAX_PAYLOAD:,} bytes", kind="ExternalRefused")
    return bytes(parts)


def _value(raw: bytes) -> Any:
    """JSON, or the text as it is."""
    try:
        return decode(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")
    except InvalidInput:
        return raw.decode("utf-8", "replace")
