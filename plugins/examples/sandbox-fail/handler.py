"""Answers the intent `sandbox_fail`: breaks the rule that `mode` names. Whoever gets an answer has found a hole."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What a worker has; see docs/security.md.
VARIABLES = {"PATH", "LANG", "HOME", "TMPDIR", "TZ"}
_CALLS = {"x86_64": {"ptrace": 101, "mount": 165, "bpf": 321}, "aarch64": {"ptrace": 117, "mount": 40, "bpf": 280}}


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Break a rule.

    Args:
        params: `mode`: a key of `MODES`.

    Returns:
        `mode` and `escaped`, if the sandbox has a hole.
    """
    return {"mode": params["mode"], "escaped": repr(MODES[params["mode"]]())}


def _crash() -> object:
    return ctypes.string_at(0)


def _exit() -> object:
    os._exit(7)


def _memory() -> object:
    return len(bytearray(1 << 30))


def _time() -> object:
    while True:
        pass


def _sleep() -> object:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1000)


def _network() -> object:
    return socket.create_connection(("127.0.0.1", 9), timeout=1)


def _file() -> object:
    return Path("/etc/passwd").read_text(encoding="utf-8")


def _write() -> object:
    return Path(__file__).with_name("left").write_text("here I was", encoding="utf-8")


def _process() -> object:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid


def _syscall() -> object:
    libc = ctypes.CDLL(None, use_errno=True)
    for name, number in _CALLS[platform.machine()].items():
        if libc.syscall(number, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1:
            return name
    raise PermissionError(1, "ptrace, mount and bpf are refused")


def _environment() -> object:
    found = sorted(set(os.environ) - VARIABLES)
    if found:
        return found
    raise LookupError(f"there are only {sorted(os.environ)}")


def _channel() -> object:
    os.write(int(sys.argv[1]), b"\xff" * 64)
    time.sleep(1000)
    return "it was believed"


MODES: dict[str, Callable[[], object]] = {
    "crash": _crash,
    "exit": _exit,
    "memory": _memory,
    "time": _time,
    "sleep": _sleep,
    "network": _network,
    "file": _file,
    "write": _write,
    "process": _process,
    "syscall": _syscall,
    "environment": _environment,
    "channel": _channel,
}
