"""A host as one is quickly written: it believes its worker. For comparison only; it shows that the attacks are real.

Its worker inherits environment and open files. Lengths, ids, types and numbers are taken as they come, what the worker
asks for is granted, and nothing has a time limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from eventcore.plugins.sandbox import worker
from eventcore.plugins.sandbox.spec import WorkerSpec

_BOOT = Path(worker.__file__).with_name("boot.py")
_ROOT = _BOOT.parents[4]


class Gone(Exception):
    """The worker's process has ended."""


class TrustingWorker:
    """A worker, and its host's end of the channel."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._sock, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        with theirs:
            command = [sys.executable, "-I", "-S", str(_BOOT), str(theirs.fileno()), str(os.getpid()), str(_ROOT)]
            self._child = subprocess.Popen(
                command, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        assert self._child.stdout is not None
        self._output = self._child.stdout
        os.set_blocking(self._output.fileno(), False)
        self._printed = b""
        self._sock.setblocking(False)
        self._data = b""
        self._calls: dict[Any, asyncio.Future[Any]] = {}
        #: What the worker asked for in a name that it does not have, and got.
        self.forged: list[str] = []
        self._number = 0
        asyncio.get_running_loop().add_reader(self._sock, self._readable)
        asyncio.get_running_loop().add_reader(self._output, self._printing)

    def _printing(self) -> None:
        self._printed += self._output.read() or b""

    def _readable(self) -> None:
        data = self._sock.recv(1 << 24)
        if not data:
            asyncio.get_running_loop().remove_reader(self._sock)
            for call in self._calls.values():
                call.set_exception(Gone())
            return
        self._data += data
        while len(self._data) >= 4:
            (size,) = struct.unpack_from(">I", self._data)
            if len(self._data) < 4 + size:
                return
            body, self._data = self._data[4 : 4 + size], self._data[4 + size :]
            self._frame(body)

    def _frame(self, body: bytes) -> None:
        if body[:1] == b"\x80":
            pickle.loads(body)  # what multiprocessing does
            return
        frame = json.loads(body)
        if "rid" in frame:
            if frame["method"] != "log":
                self.forged.append(frame["method"])
            self._send({"rid": frame["rid"], "ok": True, "result": True})
            return
        call = self._calls.pop(frame["id"], None)
        if call is None:
            self.forged.append(f"an answer to {frame['id']}")
        elif frame["ok"]:
            call.set_result(frame["result"])
        else:
            call.set_exception(RuntimeError(f"{frame['error']['kind']}: {frame['error']['message']}"))

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        with suppress(OSError):
            self._sock.send(struct.pack(">I", len(data)) + data)

    async def call(self, kind: str, params: dict[str, Any]) -> Any:
        self._number += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[self._number] = future
        self._send({"id": self._number, "kind": kind, "params": params, "context": {}})
        return await future

    async def load(self) -> Any:
        spec = self._spec
        params = {name: getattr(spec, name) for name in ("module", "class_name", "entry_point", "slug")}
        return await self.call("load", params | {"dir": str(spec.dir), "config": {}, "hooks": [], "paths": []})

    async def kill(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        asyncio.get_running_loop().remove_reader(self._output)
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()
        self._output.close()
        self._sock.close()
