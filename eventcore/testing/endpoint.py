"""An HTTP endpoint on the loopback interface that answers as a test says and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MAX_BODY = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: method, path with its query, headers by lower-case name, and the body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    headers: dict[str, str]


class StubEndpoint:
    """What a test says to an endpoint and sees of it.

    Attributes:
        url: where it listens, such as `http://127.0.0.1:40123`.
        asked: the requests so far, in order.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self._replies: dict[tuple[str, str], _Reply] = {}

    def answer(
        self,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        """From now on answer requests for `path` (without its query) so; anything else is answered with 404.

        Args:
            body: JSON, or text or bytes to be sent as they are.
        """
        if isinstance(body, bytes):
            raw, kind = body, "application/octet-stream"
        elif isinstance(body, str):
            raw, kind = body.encode(), "text/plain; charset=utf-8"
        else:
            raw, kind = json.dumps(body).encode(), "application/json"
        self._replies[method.upper(), path] = _Reply(status, raw, {"Content-Type": kind, **(headers or {})})

    def _answer(self, asked: Asked) -> _Reply:
        self.asked.append(asked)
        missing = _Reply(404, b'{"error": "the stub knows no such path"}', {"Content-Type": "application/json"})
        return self._replies.get((asked.method, asked.path.partition("?")[0]), missing)


@contextmanager
def stub_endpoint() -> Iterator[StubEndpoint]:
    """An endpoint that listens until the `with` block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = min(int(self.headers.get("Content-Length") or 0), _MAX_BODY)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = stub._answer(Asked(self.command, self.path, headers, self.rfile.read(length)))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the base class looks these names up

        def log_message(self, *args: Any) -> None:
            """Requests are remembered, not printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        stub = StubEndpoint(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
