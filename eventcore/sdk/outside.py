"""`ctx.http`, `ctx.run` and `ctx.file`: what plugin code asks of the world outside of its sandbox."""

from __future__ import annotations

import base64
import json as json_
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from eventcore.sdk.binding import Answer, current
from eventcore.sdk.errors import PluginError
from eventcore.sdk.mapped import mapped


class HttpError(PluginError):
    """`Response.raise_for_status` found a status of 400 or above.

    Attributes:
        response: the answer.
    """

    code = "http_error"

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.url} answered {response.status}")
        self.response = response


@dataclass(frozen=True, slots=True)
class Response:
    """An answer over HTTP, whatever its status.

    Attributes:
        status: such as 200.
        headers: names in lower case; several of one name are joined with a comma.
        content: the body; empty where it was saved as a file.
        url: where it came from, after redirects.
        file: the reference of the file that it was saved as, or None.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str
    file: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def text(self) -> str:
        """The body as text, by its charset, else as UTF-8; what cannot be decoded is replaced."""
        _, _, charset = self.headers.get("content-type", "").partition("charset=")
        try:
            return self.content.decode(charset.split(";")[0].strip(" \"'") or "utf-8", "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; raises `ValueError` where it is none."""
        return json_.loads(self.content)

    def raise_for_status(self) -> Response:
        """Itself; raises `HttpError` where the status is 400 or above."""
        if not self.ok:
            raise HttpError(self)
        return self


class HttpContext:
    """`ctx.http`; needs `network_access`. The host makes the request, to hosts that the plugin was granted.

    A status of 400 or above is an answer like any other. Raises `PermissionDenied` where the grant does not reach, and
    `PluginError` with the `code` `rate_limited` above the allowed rate, `request_failed` where there was no answer.
    """

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        data: bytes | str | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        save_as: str | None = None,
    ) -> Answer[Response]:
        """Make a request.

        Args:
            params: added to the URL's query.
            headers: texts; the operator's settings may add more, which are not seen here.
            json: sent as the body, as JSON.
            data: the body: bytes, text, or a form's fields.
            timeout: seconds for all of it; at most what the host allows, which is also the default.
            save_as: a path in the plugin's folder: a body of success is written there, and may be larger than one that
                comes back in the answer. Needs `filesystem_write`.
        """
        body, kind = _encoded(json, data)
        sent = dict(headers or {})
        if kind and not any(name.lower() == "content-type" for name in sent):
            sent["Content-Type"] = kind
        asked: dict[str, Any] = {
            "method": method,
            "url": _with_query(url, params),
            "headers": sent,
            "body": base64.b64encode(body).decode(),
        }
        asked |= {} if timeout is None else {"timeout": timeout}
        asked |= {} if save_as is None else {"save_as": save_as}
        return mapped(current().ask("http.request", asked), _response)

    def get(self, url: str, **more: Any) -> Answer[Response]:
        """A GET; keywords as for `request`."""
        return self.request("GET", url, **more)

    def head(self, url: str, **more: Any) -> Answer[Response]:
        """A HEAD; keywords as for `request`."""
        return self.request("HEAD", url, **more)

    def post(self, url: str, **more: Any) -> Answer[Response]:
        """A POST; keywords as for `request`. Not in gates and filters, which only look."""
        return self.request("POST", url, **more)

    def put(self, url: str, **more: Any) -> Answer[Response]:
        """A PUT; keywords as for `request`."""
        return self.request("PUT", url, **more)

    def patch(self, url: str, **more: Any) -> Answer[Response]:
        """A PATCH; keywords as for `request`."""
        return self.request("PATCH", url, **more)

    def delete(self, url: str, **more: Any) -> Answer[Response]:
        """A DELETE; keywords as for `request`."""
        return self.request("DELETE", url, **more)


def _encoded(json: Any, data: bytes | str | Mapping[str, Any] | None) -> tuple[bytes, str]:
    """The body and its type."""
    if json is not None:
        return json_.dumps(json, ensure_ascii=False, allow_nan=False).encode(), "application/json"
    if isinstance(data, Mapping):
        return urlencode(data, doseq=True).encode(), "application/x-www-form-urlencoded"
    if isinstance(data, str):
        return data.encode(), "text/plain; charset=utf-8"
    return data or b"", ""


def _with_query(url: str, params: Mapping[str, Any] | None) -> str:
    if not params:
        return url
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode(params, doseq=True))))
    return urlunsplit(parts._replace(query=query))


def _response(found: dict[str, Any]) -> Response:
    headers: dict[str, str] = {}
    for name, value in found["headers"]:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Response(found["status"], headers, base64.b64decode(found["body"]), found["url"], found.get("saved"))


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended.

    Attributes:
        code: its exit code, or the negative number of the signal that ended it.
        stdout, stderr: what it wrote, at most what the host keeps of each.
        cut: whether it wrote more than that.
    """

    code: int
    stdout: bytes
    stderr: bytes
    cut: bool = False

    @property
    def ok(self) -> bool:
        """Whether the code is 0."""
        return self.code == 0

    @property
    def text(self) -> str:
        """`stdout` as UTF-8; what cannot be decoded is replaced."""
        return self.stdout.decode("utf-8", "replace")


def run(
    command: Sequence[str],
    *,
    input: bytes | str = b"",
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Answer[Finished]:
    """Run one of the programs that the operator lists for the plugin; see `Context.run`."""
    data = input.encode() if isinstance(input, str) else input
    if isinstance(command, str | bytes):
        raise PluginError('ctx.run takes a list of words, such as ["git", "status"]: there is no shell')
    asked: dict[str, Any] = {
        "command": [str(word) for word in command],
        "input": base64.b64encode(data).decode(),
        "env": {str(name): str(value) for name, value in (env or {}).items()},
    }
    asked |= {} if timeout is None else {"timeout": timeout}
    return mapped(current().ask("run", asked), _finished)


def hand_over(path: str) -> Answer[dict[str, Any]]:
    """A reference to a file of the plugin; see `Context.file`."""
    return current().ask("file", {"path": path})


def _finished(found: dict[str, Any]) -> Finished:
    out, err = (base64.b64decode(found[name]) for name in ("stdout", "stderr"))
    return Finished(found["code"], out, err, found["cut"])
