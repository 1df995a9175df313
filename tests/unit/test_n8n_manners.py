"""How n8n answers: what its response modes, its webhooks that are not active, and proxies before it send."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import anyio
import pytest

from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import PluginFailed
from eventcore.workflows.external.n8n import N8n
from tests.unit.test_external import OK, REQUEST, Stub, Time, call
from tests.unit.test_external import stub as stub

_NOT_ACTIVE = (
    b'{"code":404,"message":"The requested webhook \\"POST triage\\" is not registered.",'
    b'"hint":"The workflow must be active for a production URL to run successfully."}'
)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"message":"Workflow was started"}', {"message": "Workflow was started"}),  # respond immediately
        (b'[{"id":1},{"id":2}]', [{"id": 1}, {"id": 2}]),  # when last node finishes: all entries
        (b"", ""),  # no response body
        (b"ok", "ok"),  # Respond to Webhook, text
        (b"\xff\xfe", "\ufffd\ufffd"),  # Respond to Webhook, binary
    ],
    ids=["at once", "all entries", "no body", "text", "binary"],
)
def test_each_way_to_respond(stub: Stub, raw: bytes, value: Any) -> None:
    assert call(stub, [(200, raw, {})])[0] == value


def test_a_workflow_that_is_not_active_is_told_of_in_its_words(stub: Stub) -> None:
    with pytest.raises(PluginFailed, match="must be active") as caught:
        call(stub, [(404, _NOT_ACTIVE, {}), OK])
    assert caught.value.kind == "ExternalRefused"
    assert len(stub.seen) == 1


def test_a_page_of_a_proxy_is_no_answer(stub: Stub) -> None:
    page = (502, b"<html><body>Bad Gateway</body></html>", {"content-type": "text/html"})
    assert call(stub, [page, OK])[0] == {"done": True}


@pytest.mark.parametrize(
    ("asks", "slept"),
    [
        (formatdate(Time().at + 9, usegmt=True), 9.0),
        (formatdate(Time().at - 9, usegmt=True), 0.0),
        (formatdate(Time().at + 9), 9.0),  # without a zone that it names: UTC
        ("3600", 60.0),
        ("soon", 0.5),
        ("Fri, 99 Nov 2026 99:00:00 GMT", 0.5),
        ("-5", 0.5),
    ],
)
def test_when_to_come_again(stub: Stub, asks: str, slept: float) -> None:
    assert call(stub, [(429, b"", {"retry-after": asks}), OK])[1].slept == [slept]


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that sends a byte of its response now and then, and never comes to an end."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not over.wait(0.02):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    thread.join(10)
    listener.close()


def test_a_response_that_never_ends_runs_over(dripping: str) -> None:
    engine = N8n(dripping, SystemClock(), Time(), timeout=1)
    began = time.monotonic()
    with pytest.raises(PluginFailed, match=r"did not answer within 1 s") as caught:
        anyio.run(engine.start, REQUEST)
    assert caught.value.kind == "ExternalTimeout"
    assert time.monotonic() - began < 15
