"""What plugin code asked for, read with care: it may be anything that JSON holds."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import httpx

from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.host_api import number
from eventcore.plugins.outside.hosts import canonical_host

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Methods that only look.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_URL, _MAX_HEADERS, _MAX_HEADER_BYTES = 8192, 64, 16_384
#: Headers that belong to the connection or to the host, not to who asks.
_OURS = frozenset(
    "host content-length transfer-encoding connection keep-alive proxy-authorization proxy-connection te trailer "
    "upgrade expect accept-encoding".split()
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a plugin."""

    method: str
    url: httpx.URL
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout: float
    save_as: str | None


def read(params: dict[str, Any], longest: float) -> Asked:
    """The request in the parameters of `http.request`.

    Args:
        longest: the longest that it may take, in seconds; it may ask for less.

    Raises:
        InvalidInput: naming what is wrong.
    """
    method = str(params.get("method", "GET")).upper()
    if method not in METHODS:
        raise InvalidInput(f"ctx.http: {method[:32]!r} is no method; there are {', '.join(sorted(METHODS))}")
    save_as = params.get("save_as")
    return Asked(
        method,
        read_url(params.get("url")),
        _headers(params.get("headers") or {}),
        _body(params.get("body") or ""),
        number(params, "timeout", longest, 0.001, longest),
        None if save_as is None else str(save_as),
    )


def read_url(text: object) -> httpx.URL:
    """A URL that can be asked, with its host in canonical form.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_URL:
        raise InvalidInput(f"ctx.http: a URL is a text of at most {_MAX_URL:,} characters")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput(f"ctx.http: {text[:200]!r} is no URL: {error}") from None
    if url.scheme not in ("http", "https"):
        raise InvalidInput(f"ctx.http: {text[:200]!r} does not begin with http:// or https://")
    if url.userinfo:
        raise InvalidInput("ctx.http: a URL holds no user name or password; send a header Authorization")
    host = canonical_host(url.raw_host.decode("ascii", "replace"))
    if not host:
        raise InvalidInput(f"ctx.http: {url.host[:200]!r} is no name of a host")
    return url.copy_with(host=host, fragment=None)


def port_of(url: httpx.URL) -> int:
    """The port that a URL leads to."""
    return url.port or (443 if url.scheme == "https" else 80)


def _headers(given: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise InvalidInput("ctx.http: headers are a table of texts")
    if len(given) > _MAX_HEADERS or sum(len(name) + len(value) for name, value in given.items()) > _MAX_HEADER_BYTES:
        raise InvalidInput(f"ctx.http: at most {_MAX_HEADERS} headers, of {_MAX_HEADER_BYTES:,} characters together")
    for name, value in given.items():
        if name.lower() in _OURS:
            raise InvalidInput(f"ctx.http: the header {name} is the host's to set")
        if not name.isascii() or not value.isascii() or not (name + value).isprintable() or not name.strip():
            raise InvalidInput(f"ctx.http: the header {name[:64]!r} holds characters that headers do not")
    return tuple(given.items())


def _body(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("ctx.http: the body is not in base64") from None
