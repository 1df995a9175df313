"""Writes a line of JSON for each chat message, command and upload that got through, for people who audit.

In a home the file is `.eventcore/audit-hooks.ndjson`; when it is full it becomes `audit-hooks.ndjson.1`, and the older
ones `.2`, `.3`. Without a home the lines go to the logger `eventcore.audit`. What a gate denied is not here: observers
never see it. The history has everything too; this is the copy that can be shipped elsewhere.

Settings in `[hooks.settings.audit-log]`: `file` (relative to the home), `most_bytes` (default 10000000) of one file,
`keep` (default 3) older files, `text` (default true) whether the text itself is written or only its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eventcore.sdk import observe

_settings: dict[str, Any] = globals().get("settings", {})
_home: str | None = globals().get("home")
_FILE = Path(_home, _settings.get("file", ".eventcore/audit-hooks.ndjson")) if _home else None
_MOST_BYTES = int(_settings.get("most_bytes", 10_000_000))
_KEEP = int(_settings.get("keep", 3))
_TEXT = bool(_settings.get("text", True))

_log = logging.getLogger("eventcore.audit")
_lock = threading.Lock()


def _write(hook: str, entry: dict[str, Any]) -> None:
    line = json.dumps({"at": datetime.now(UTC).isoformat(), "hook": hook, **entry}, ensure_ascii=False)
    if _FILE is None:
        _log.info("%s", line)
        return
    data = line.encode("utf-8", "replace") + b"\n"
    with _lock:
        if _FILE.exists() and _FILE.stat().st_size + len(data) > _MOST_BYTES:
            _rotate(_FILE)
        with _FILE.open("ab") as file:
            file.write(data)


def _rotate(file: Path) -> None:
    names = [file, *(file.with_name(f"{file.name}.{number}") for number in range(1, _KEEP + 1))]
    for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
        if newer.exists():
            newer.replace(older)
    if not _KEEP:
        file.unlink()


def _who(payload: dict[str, Any]) -> dict[str, Any]:
    return {"user": payload.get("user"), "channel": payload.get("channel")}


def _said(text: str) -> dict[str, Any]:
    return {"text": text} if _TEXT else {"text_sha256": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()}


@observe
def on_message(message: dict[str, Any]) -> None:
    _write("on_message", {**_who(message), **_said(message["text"])})


@observe
def on_command(command: dict[str, Any]) -> None:
    _write("on_command", {**_who(command), "command": command["command"], **_said(command["text"])})


@observe
def on_file_upload(file: dict[str, Any]) -> None:
    facts = {key: file.get(key) for key in ("name", "size", "content_type", "sha256")}
    _write("on_file_upload", {**_who(file), **facts})
