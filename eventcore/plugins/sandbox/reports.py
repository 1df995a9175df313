"""Words for what a worker did, fit for a log or a terminal."""

from __future__ import annotations

import signal
import unicodedata
from collections.abc import Mapping
from typing import Any

from eventcore.kernel.errors import PluginFailed
from eventcore.plugins.sandbox.spec import WorkerSpec


def clean(text: str, most: int) -> str:
    """Text from a plugin: control characters are spelled out, and it ends at `most` characters."""
    text = text[:most]
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else f"\\x{ord(c):02x}" for c in text)


def describe_exit(code: int | None) -> str:
    """`exited with code 3`, or `was killed by SIGABRT`."""
    if code is None:
        return "was killed and is not gone yet"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def failure(reply: Mapping[str, Any], spec: WorkerSpec) -> PluginFailed:
    """The error of a call whose code raised. `details["limit"]` says which limit it ran into, where one is known."""
    error = reply["error"]
    kind, text, more = clean(error["kind"], 128), clean(error["message"], 4096), {}
    if kind == "MemoryError" and spec.allow.memory_mb:
        text = f"{spec.slug} asked for more than its {spec.allow.memory_mb:g} MiB of memory" + (text and f": {text}")
        more["limit"] = "memory"
    return PluginFailed(
        text or kind,
        kind=kind,
        trace=clean(error["trace"], 32 * 1024) or None,
        output={"stdout": reply["stdout"], "stderr": reply["stderr"]},
        transient=error["transient"],
        **more,
    )
