"""Words for what a worker did, fit for a log or a terminal."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from eventcore.kernel.errors import PluginFailed
from eventcore.plugins.sandbox.frames import MAX_OUTPUT
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec

#: All of Unicode's category Cc but line feed and tabulator.
_SPELLED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
#: What ends a line where nobody expects it, and what changes the direction of all that follows: with those a line of a
#: log reads as another one.
_SPELLED |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
#: The worker keeps to `MAX_OUTPUT` and adds a note; what speaks in its place may not.
_MOST_PRINTED = MAX_OUTPUT + 100


def clean(text: str, most: int) -> str:
    """Text from a plugin: control characters are spelled out, and it ends at `most` characters."""
    return text[:most].translate(_SPELLED)


def printed(reply: Mapping[str, Any]) -> dict[str, str]:
    """What a call printed, fit for a terminal."""
    out, err = reply["stdout"], reply["stderr"]
    return {"stdout": out and clean(out, _MOST_PRINTED), "stderr": err and clean(err, _MOST_PRINTED)}


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


#: Errors of code that ran into a limit: the kind, the beginning of the message, and the limit.
_RAN_INTO = (
    ("OSError", "[Errno 12]", "memory"),
    ("OSError", "[Errno 28]", "disk"),
    ("OSError", "[Errno 27]", "disk"),
    ("OSError", "[Errno 24]", "descriptors"),
    ("OperationalError", "database or disk is full", "disk"),
    ("RuntimeError", "can't start new thread", "threads"),
)


def _limit_of(kind: str, text: str, allow: Allowance) -> tuple[str, str]:
    """The limit that an error of the plugin's code speaks of, and in words what it is; nothing if it speaks of none."""
    if kind == "MemoryError":
        limit = "memory" if allow.memory_mb else ""
    else:
        limit = next((name for one, begin, name in _RAN_INTO if one == kind and text.startswith(begin)), "")
    words = {
        "memory": f"its {allow.memory_mb:g} MiB of memory",
        "disk": f"its {allow.disk_mb:g} MiB of disk",
        "threads": f"its {allow.threads} threads",
        "descriptors": "its 256 open files",
    }
    return limit, words.get(limit, "")


def failure(reply: Mapping[str, Any], spec: WorkerSpec) -> PluginFailed:
    """The error of a call whose code raised. `details["limit"]` says which limit it ran into, where one is known."""
    error = reply["error"]
    kind, text, more = clean(error["kind"], 128), clean(error["message"], 4096), {}
    limit, words = _limit_of(kind, text, spec.allow)
    if limit:
        text = f"{spec.slug} asked for more than {words}" + (text and f": {text}")
        more["limit"] = limit
    return PluginFailed(
        text or kind,
        kind=kind,
        trace=clean(error["trace"], 32 * 1024) or None,
        output=printed(reply),
        transient=error["transient"],
        **more,
    )
