"""Tells the host what the kernel refuses to the plugin, for the record: sockets, programs, files.

This stops nothing, the confinement of the process does. It looks at the interpreter's own audit events before the
kernel answers, so it tells of what Python code tries by the usual ways; what hides from it is refused all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

#: The logger by whose name the host knows such a line.
LOGGER = "eventcore.denied"
_MOST = 20
_PROGRAMS = frozenset(
    {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.fork", "os.forkpty", "pty.spawn"}
)
_FILES = frozenset({"open", "os.listdir", "os.scandir"})
_INET = (2, 10)  # AF_INET and AF_INET6 on Linux
_NEAR = 3  # so many frames up a file is opened by the plugin's own code

#: Tells of one refusal: (permission, what was tried).
Tell = Callable[[str, str], None]


class Watch:
    """An audit hook.

    Args:
        rules: `home`, the host's folder of secrets and state; `roots`, what may be read; `write`, what may be changed;
            `network` and `programs`, whether there are any; `dir`, the plugin's folder.
        tell: finds the call at hand and tells the host; may raise.
    """

    def __init__(self, rules: Mapping[str, Any], tell: Tell) -> None:
        private = os.environ.get("HOME", "")
        self._home = os.path.join(rules["home"], "") if rules["home"] else ""
        self._write = tuple(os.path.join(root, "") for root in (*rules["write"], private) if root)
        self._roots = (*(os.path.join(root, "") for root in rules["roots"]), *self._write, "/proc/", "/dev/", "/sys/")
        self._dir = os.path.join(rules["dir"], "")
        self._network, self._programs, self._tell = rules["network"], rules["programs"], tell
        self._told: set[tuple[str, str]] = set()
        self._inside = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _WATCHED or self._inside:
            return
        self._inside = True
        # What is only for the record must not change what the code does.
        with suppress(Exception):
            found = self._refused(event, args)
            if found is not None and found not in self._told and len(self._told) < _MOST:
                self._told.add(found)
                self._tell(*found)
        self._inside = False

    def begin(self) -> None:
        """Another call: what it tries is told anew."""
        self._told.clear()

    def _refused(self, event: str, args: tuple[Any, ...]) -> tuple[str, str] | None:
        if event == "socket.__new__":
            return None if self._network or args[1] not in _INET else ("network_access", "open a socket")
        if event in _PROGRAMS:
            return None if self._programs else ("system_access", f"start a program ({event})")
        return self._file(event, args)

    def _file(self, event: str, args: tuple[Any, ...]) -> tuple[str, str] | None:
        if isinstance(args[0], int) or args[0] is None:
            return None
        path = os.path.abspath(os.fsdecode(args[0]))
        changes = event == "open" and _changes(args)
        beneath = os.path.join(path, "")
        if beneath.startswith(self._write if changes else self._roots):
            return None
        if not (self._home and beneath.startswith(self._home)) and not self._by_plugin():
            return None
        verb = "change" if changes else "read"
        return ("filesystem_write" if changes else "filesystem_read", f"{verb} {path[:200]}")

    def _by_plugin(self) -> bool:
        frame = sys._getframe(4) if hasattr(sys, "_getframe") else None
        for _ in range(_NEAR):
            if frame is None:
                return False
            if frame.f_code.co_filename.startswith(self._dir):
                return True
            frame = frame.f_back
        return False


_WATCHED = _PROGRAMS | _FILES | {"socket.__new__"}


def _changes(args: tuple[Any, ...]) -> bool:
    mode, flags = args[1], args[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
