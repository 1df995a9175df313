"""The catalogue's hook files, in an engine. Each test fails when the handler's body returns None."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.settings import Settings

pytestmark = pytest.mark.anyio

Open = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """An engine with one hook file of the catalogue enabled, in a home of its own."""

    @asynccontextmanager
    async def open_(slug: str, **settings: Any) -> AsyncIterator[EventCore]:
        (tmp_path / "eventcore.toml").touch()
        chosen = Settings.model_validate({"hooks": {"enabled": [slug], "settings": {slug: settings}}})
        with anyio.fail_after(100):
            async with EventCore(tmp_path, store="memory:", settings=chosen) as core:
                assert core.engine.problems == []
                yield core

    return open_


def module(core: EventCore, slug: str) -> Any:
    return core.engine.hook_files._modules[slug]


async def test_secret_leak_gate(opened: Open) -> None:
    async with opened("secret-leak-gate") as core:
        key = "AKIA" + "ABCDEFGHIJKLMNOP"
        assert (await core.hooks.call("on_message", {"text": f"use {key}"})).reason == (
            "the message seems to hold an AWS access key"
        )
        assert not (await core.hooks.call("on_message", {"text": "the key is under the mat"})).denied


async def test_tidy_text(opened: Open) -> None:
    async with opened("tidy-text") as core:
        outcome = await core.hooks.call("on_message", {"text": "  a \n  b "})
    assert outcome.value is not None
    assert outcome.value["text"] == "a b"


async def test_rate_limit_gate(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened("rate-limit-gate", per_minute=6, burst=2, most_users=3) as core:
        gate, now = module(core, "rate-limit-gate"), 1000.0
        monkeypatch.setattr(gate, "_now", lambda: now)

        async def allowed(user: str = "ada") -> bool:
            return not (await core.hooks.call("on_message", {"text": "hi", "user": user})).denied

        assert [await allowed() for _ in range(3)] == [True, True, False]
        assert await allowed("bob")
        outcome = await core.hooks.call("on_message", {"text": "hi", "user": "ada"})
        assert outcome.reason == "ada writes too fast; wait 10 seconds"
        now += 10
        assert [await allowed() for _ in range(2)] == [True, False]
        for number in range(10):
            await allowed(f"user-{number}")
        assert len(gate._buckets) == 3


@pytest.mark.parametrize(
    ("settings", "text", "made"),
    [
        ({}, "Damn, this is crap; damned classic scrap", "D***, this is c***; d***** classic scrap"),
        ({"words": ["mango"]}, "damn Mangos", "damn M*****"),
        ({"also": ["mango"], "except": ["damn"]}, "damn crap mango", "damn c*** m****"),
        ({"file": "mine.txt"}, "damn papaya", "damn p*****"),
        ({"words": []}, "damn", "damn"),
    ],
)
async def test_profanity_filter(opened: Open, tmp_path: Path, settings: Any, text: str, made: str) -> None:
    (tmp_path / "mine.txt").write_text("# ours\nPapaya\n")
    async with opened("profanity-filter", **settings) as core:
        outcome = await core.hooks.call("on_message", {"text": text, "extra": 1})
    assert outcome.value is not None
    assert (outcome.value["text"], outcome.value["extra"]) == (made, 1)


async def test_audit_log(opened: Open, tmp_path: Path) -> None:
    async with opened("audit-log", most_bytes=2000, keep=2) as core:
        await core.hooks.call("on_message", {"text": "grüße", "user": "ada"})
        upload = {"name": "a.txt", "size": 3, "sha256": "f" * 64}
        await core.hooks.call("on_file_upload", upload)
        file = tmp_path / ".eventcore/audit-hooks.ndjson"
        said, sent = [json.loads(line) for line in file.read_text().splitlines()]
        assert (said["hook"], said["user"], said["channel"], said["text"]) == ("on_message", "ada", "#general", "grüße")
        assert (sent["hook"], sent["name"], sent["size"], sent["sha256"]) == ("on_file_upload", "a.txt", 3, "f" * 64)
        for number in range(60):
            await core.hooks.call("on_message", {"text": f"message {number}"})
    files = sorted(path.name for path in file.parent.glob("audit-hooks*"))
    assert files == ["audit-hooks.ndjson", "audit-hooks.ndjson.1", "audit-hooks.ndjson.2"]
    assert all(path.stat().st_size <= 2000 for path in file.parent.glob("audit-hooks*"))
    assert json.loads(file.read_text().splitlines()[-1])["text"] == "message 59"


async def test_audit_log_without_a_home_or_texts(caplog: pytest.LogCaptureFixture) -> None:
    chosen = {"hooks": {"enabled": ["audit-log"], "settings": {"audit-log": {"text": False}}}}
    with caplog.at_level(logging.INFO, "eventcore.audit"):
        async with EventCore(settings=Settings.model_validate(chosen)) as core:
            await core.hooks.call("on_message", {"text": "hello"})
    [line] = [json.loads(record.message) for record in caplog.records if record.name == "eventcore.audit"]
    assert line["text_sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert "text" not in line


@pytest.fixture
def receiver() -> Iterator[Any]:
    """A server on the loopback that refuses the first request of each body with 503."""
    got: list[tuple[str, bytes]] = []
    refuse = {"first": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            refused = refuse["first"] > 0
            refuse["first"] -= refused
            if not refused:
                got.append((self.headers.get("X-EventCore-Signature", ""), body))
            self.send_response(503 if refused else 204)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.got, server.refuse = got, refuse  # type: ignore[attr-defined]
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


async def test_webhook_relay(opened: Open, receiver: Any) -> None:
    receiver.refuse["first"] = 2
    url = f"http://127.0.0.1:{receiver.server_port}/in"
    settings = {"url": url, "pattern": "(?i)order", "channels": ["#shop"], "secret": "s3", "pause": 0.01}
    async with opened("webhook-relay", **settings) as core:
        for text, channel in (("my order", "#shop"), ("order", "#other"), ("hello", "#shop"), ("Order 2", "#shop")):
            await core.hooks.call("on_message", {"text": text, "channel": channel})
    # on_shutdown has waited for the queue.
    assert [json.loads(body)["text"] for _, body in receiver.got] == ["my order", "Order 2"]
    for signature, body in receiver.got:
        at, mac = (part.partition("=")[2] for part in signature.split(","))
        assert hmac.compare_digest(mac, hmac.new(b"s3", f"{at}.".encode() + body, hashlib.sha256).hexdigest())


async def test_webhook_relay_gives_up_and_does_not_hold_up_the_chat(
    opened: Open, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.refuse["first"] = 99
    url = f"http://127.0.0.1:{receiver.server_port}/in"
    async with opened("webhook-relay", url=url, tries=2, pause=0.01) as core:
        outcome = await core.hooks.call("on_message", {"text": "x"})
        assert [trace.status for trace in outcome.trace] == ["ok"]
    assert receiver.got == []
    assert receiver.refuse["first"] == 97
    assert "the receiver answered 503" in caplog.text


async def test_webhook_relay_needs_a_url(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").write_text('[hooks]\nenabled = ["webhook-relay"]\n')
    async with EventCore(tmp_path, store="memory:") as core:
        [problem] = core.engine.problems
    assert "[hooks.settings.webhook-relay]" in problem
