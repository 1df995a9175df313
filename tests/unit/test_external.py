"""n8n's form of an external engine against a real local HTTP server, and the addresses for answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest

from eventcore.kernel.errors import AccessDenied, InvalidInput, PluginFailed
from eventcore.workflows.external.n8n import N8n
from eventcore.workflows.external.port import Engines, ExternalStart
from eventcore.workflows.external.resume import ResumeTokens

Answer = tuple[int, bytes, dict[str, str]] | None


class Stub:
    """Answers in turn; None drops the connection. Keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                stub.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                answer = stub.answers.pop(0)
                if answer is None:
                    self.connection.close()
                    return
                status, raw, headers = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.01,))
    thread.start()
    yield stub
    stub.server.shutdown()
    thread.join()
    stub.server.server_close()


class Time:
    """A clock whose sleeps are over at once, and kept."""

    def __init__(self) -> None:
        self.at, self.slept = 1_800_000_000.0, list[float]()

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def random(self) -> float:
        return 1.0

    def bits(self, count: int) -> int:
        return 0

    def token(self, size: int = 32) -> str:
        return "t"


OK: Answer = (200, b'{"done": true}', {})
REQUEST = ExternalStart("triage", {"text": "hi"}, "key-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")


def call(stub: Stub, answers: list[Answer], request: ExternalStart = REQUEST, **more: Any) -> tuple[Any, Time]:
    stub.answers = answers
    time = Time()
    engine = N8n(stub.url, time, time, headers={"x-secret": "s3cret"}, **more)

    async def main() -> Any:
        return await engine.start(request)

    return anyio.run(main), time


def test_what_is_sent_and_what_comes_back(stub: Stub) -> None:
    result, _ = call(stub, [OK])
    assert result == {"done": True}
    path, headers, body = stub.seen[0]
    assert (path, body) == ("/webhook/triage", {"text": "hi"})
    assert headers["idempotency-key"] == "key-1"
    assert headers["traceparent"] == REQUEST.traceparent
    assert headers["x-secret"] == "s3cret"


def test_text_that_is_no_json_stays_text(stub: Stub) -> None:
    assert call(stub, [(200, b"Workflow was started", {})])[0] == "Workflow was started"


def test_the_address_for_the_answer_is_handed_over(stub: Stub) -> None:
    call(stub, [OK], ExternalStart("triage", {"a": 1}, "k", "t", "http://here/api/resume/x"))
    assert stub.seen[0][2] == {"a": 1, "resume_url": "http://here/api/resume/x"}


@pytest.mark.parametrize(
    "first", [None, (429, b"", {"retry-after": "7"}), (503, b"", {})], ids=["dropped", "429", "503"]
)
def test_what_is_safe_is_tried_again_with_the_same_key(stub: Stub, first: Answer) -> None:
    result, time = call(stub, [first, OK])
    assert result == {"done": True}
    assert [headers["idempotency-key"] for _, headers, _ in stub.seen] == ["key-1", "key-1"]
    assert time.slept == ([7.0] if first and first[0] == 429 else [0.5])


@pytest.mark.parametrize("status", [302, 400, 401, 404, 409])
def test_a_refusal_is_not_tried_again(stub: Stub, status: int) -> None:
    with pytest.raises(PluginFailed, match=f"{status} no such thing") as caught:
        call(stub, [(status, b"no such thing", {"location": "/elsewhere"}), OK])
    assert caught.value.kind == "ExternalRefused"
    assert len(stub.seen) == 1
    assert "s3cret" not in str(caught.value)


def test_tries_end(stub: Stub) -> None:
    with pytest.raises(PluginFailed, match="in 4 tries: status 500") as caught:
        call(stub, [(500, b"", {})] * 9)
    assert caught.value.kind == "ExternalUnavailable"
    assert len(stub.seen) == 4


def test_a_response_that_is_too_large_is_refused(stub: Stub) -> None:
    with pytest.raises(PluginFailed, match="larger than"):
        call(stub, [(200, b"x" * 300_000, {})])


def test_nobody_listens() -> None:
    time = Time()
    engine = N8n("http://127.0.0.1:9", time, time, attempts=2)

    async def main() -> None:
        await engine.start(REQUEST)

    with pytest.raises(PluginFailed, match="in 2 tries: ConnectError"):
        anyio.run(main)


def test_an_unknown_slug_names_every_place_searched() -> None:
    time = Time()
    engine = N8n("https://user:pw@n8n.example.com/base", time, time, slugs=frozenset({"triage"}))
    engines = Engines([engine], time, ResumeTokens(b"0" * 16, time))
    assert engines.find("triage") is engine
    assert engines.find("other") is None
    error = engines.unknown("other")
    assert "n8n at https://n8n.example.com/base/webhook/" in str(error.hint)
    assert "pw" not in str(error.hint)


def test_an_address_that_is_none() -> None:
    with pytest.raises(InvalidInput, match="is no address"):
        N8n("n8n.example.com", Time(), Time())


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_a_token_is_for_one_attempt_of_one_step() -> None:
    time = Time()
    tokens = ResumeTokens(b"s" * 16, time, base_url="https://me.example.com/")
    url = tokens.url("run-1", "a[3]/b", 2)
    assert url.startswith("https://me.example.com/api/resume/")
    found = tokens.verify(url.rpartition("/")[2])
    assert (found.run, found.path, found.attempt, found.ref) == ("run-1", "a[3]/b", 2, "run-1/a[3]/b#2")


def _flip(token: str) -> str:
    return ("B" if token[0] == "A" else "A") + token[1:]


@pytest.mark.parametrize(
    "change",
    [_flip, lambda t: t[:-1], lambda t: "", lambda t: ".", lambda t: "é.é", lambda t: t * 99, lambda t: "\udc80" + t],
)
def test_a_token_that_was_changed_is_refused(change: Callable[[str], str]) -> None:
    tokens = ResumeTokens(b"s" * 16, Time())
    with pytest.raises(AccessDenied, match="not valid"):
        tokens.verify(change(tokens.token("run-1", "a", 1)))


def test_a_token_of_another_secret_or_another_time_is_refused() -> None:
    time = Time()
    token = ResumeTokens(b"s" * 16, time, lifetime=60).token("run-1", "a", 1)
    with pytest.raises(AccessDenied, match="not valid"):
        ResumeTokens(b"t" * 16, time).verify(token)
    time.at += 61
    with pytest.raises(AccessDenied, match="is over"):
        ResumeTokens(b"s" * 16, time).verify(token)
    with pytest.raises(InvalidInput, match="16 bytes"):
        ResumeTokens(b"short", time)


def test_what_the_server_says_of_our_secrets_is_masked(stub: Stub) -> None:
    def hide(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("s3cret", "***"))

    assert call(stub, [(200, b'{"headers": {"x": "s3cret"}}', {})], mask=hide)[0] == {"headers": {"x": "***"}}
    with pytest.raises(PluginFailed) as failed:
        call(stub, [(400, b"no: " + b"-" * 292 + b"s3cret", {})], mask=hide)
    assert "s3c" not in failed.value.message  # not a part of it either, where the message is cut


def test_a_response_that_cannot_be_read_is_no_timeout(stub: Stub) -> None:
    with pytest.raises(PluginFailed, match="the exchange with n8n failed") as failed:
        call(stub, [(200, b"no gzip", {"content-encoding": "gzip"})])
    assert (failed.value.kind, len(stub.seen)) == ("ExternalRefused", 1)
