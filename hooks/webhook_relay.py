"""Sends chat messages that match to a URL, as JSON in a POST.

The chat does not wait: messages go into a queue of bounded length, and a thread sends them one after the other. A
message that does not fit, or that was tried in vain, is dropped with a line in the log; the history still has it.

Settings in `[hooks.settings.webhook-relay]`: `url` (http or https; required), `pattern` (a regular expression on the
text; default all), `channels` (a list; default all), `secret` (signs the body, see below; write
`secret = {secret = "NAME"}`), `timeout` (default 5) seconds of one try, `tries` (default 3), `queue` (default 1000).

With a secret, `X-EventCore-Signature: t=SECONDS,v1=HEX` holds the HMAC-SHA256 of `SECONDS.BODY`. A receiver computes it
again and compares, and refuses old times. Redirects are not followed: they would carry the message somewhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from eventcore.sdk import observe

_settings: dict[str, Any] = globals().get("settings", {})
_URL = str(_settings.get("url", ""))
if urlsplit(_URL).scheme not in ("http", "https") or not urlsplit(_URL).hostname:
    raise ValueError('set url = "https://..." under [hooks.settings.webhook-relay] in eventcore.toml')
_SHAPE = re.compile(str(_settings.get("pattern", "")))
_CHANNELS = frozenset(map(str, _settings.get("channels", ())))
_SECRET = str(_settings.get("secret", ""))
_TIMEOUT = float(_settings.get("timeout", 5))
_TRIES = max(1, int(_settings.get("tries", 3)))
_FIRST_PAUSE = float(_settings.get("pause", 1))
#: How long the engine's end may be held up by what is still in the queue. Seconds.
_LAST = 2.0

_log = logging.getLogger("eventcore.hooks.webhook_relay")
_waiting: queue.Queue[bytes] = queue.Queue(max(1, int(_settings.get("queue", 1000))))
_stopping = threading.Event()
_lock = threading.Lock()
_sender: threading.Thread | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


@observe
async def on_message(message: dict[str, Any]) -> None:
    if (_CHANNELS and message["channel"] not in _CHANNELS) or not _SHAPE.search(message["text"]):
        return
    try:
        _waiting.put_nowait(json.dumps(message).encode())
    except queue.Full:
        _log.warning("a message was not relayed: %d are waiting already", _waiting.maxsize)
        return
    _start()


def on_shutdown(about: dict[str, Any]) -> None:
    """Give what is in the queue a last chance, then stop."""
    end = time.monotonic() + _LAST
    while _waiting.unfinished_tasks and time.monotonic() < end:
        time.sleep(0.02)
    _stopping.set()


def _start() -> None:
    global _sender
    with _lock:
        if _sender is None or not _sender.is_alive():
            _stopping.clear()
            _sender = threading.Thread(target=_work, name="webhook-relay", daemon=True)
            _sender.start()


def _work() -> None:
    while not _stopping.is_set():
        try:
            body = _waiting.get(timeout=0.5)
        except queue.Empty:
            continue
        try:
            _deliver(body)
        finally:
            _waiting.task_done()


def _deliver(body: bytes) -> None:
    why = ""
    for attempt in range(_TRIES):
        if attempt and _stopping.wait(min(30.0, _FIRST_PAUSE * 2 ** (attempt - 1))):
            break
        try:
            with _opener.open(_request(body), timeout=_TIMEOUT) as answer:
                answer.read(1)
            return
        except urllib.error.HTTPError as error:
            why = f"the receiver answered {error.code}"
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                break  # it will not like it better the next time
        except (OSError, ValueError) as error:
            why = type(error).__name__
    _log.warning("a message was not relayed to %s: %s", urlsplit(_URL).hostname, why)


def _request(body: bytes) -> urllib.request.Request:
    headers = {"Content-Type": "application/json", "User-Agent": "eventcore-webhook-relay"}
    if _SECRET:
        at = str(int(time.time()))
        mac = hmac.new(_SECRET.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
        headers["X-EventCore-Signature"] = f"t={at},v1={mac}"
    return urllib.request.Request(_URL, body, headers, method="POST")  # noqa: S310 - the scheme was checked above
