"""Hosts as they are quickly written, for comparison only: they show that the attacks are real.

`inline` runs plugins in its own process. `TrustingWorker` believes its worker, which inherits environment and open
files: lengths, ids, types and numbers are taken as they come, what it asks for is granted, and nothing has a limit.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from eventcore.plugins.sandbox import worker
from eventcore.plugins.sandbox.diskwatch import remove
from eventcore.plugins.sandbox.spec import WorkerSpec

_BOOT = Path(worker.__file__).with_name("boot.py")
_ROOT = _BOOT.parents[4]
_INLINE = Path(__file__).with_name("inline.py")
_MOST_PRINTED = 16 << 20


class Gone(Exception):
    """The worker's process has ended."""


async def inline(spec: WorkerSpec, told: dict[str, Any], wait: float) -> tuple[Any, str, list[str]]:
    """Run the plugin as a part of its host: what it brought back, how it ended, and what became of the host."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    command = [sys.executable, str(_INLINE), str(spec.dir), spec.module, spec.entry_point, json.dumps(told), str(write)]
    folder = tempfile.mkdtemp(prefix="eventcore-naive-")
    environment = dict(os.environ, TMPDIR=folder, PYTHONPATH=str(_ROOT))
    harm: list[str] = []
    with tempfile.TemporaryFile() as printed, os.fdopen(read) as answers:
        host = subprocess.Popen(command, close_fds=False, stdout=printed, stderr=printed, env=environment)
        os.close(write)
        try:
            with anyio.fail_after(wait):
                said = await anyio.to_thread.run_sync(answers.read, abandon_on_cancel=True)
        except TimeoutError:
            said, harm = "", ["the host waits for ever"]
            host.kill()
        host.wait()
        if not said and not harm:
            harm.append(f"the host ended with {host.returncode}")
        if (size := os.fstat(printed.fileno()).st_size) > _MOST_PRINTED:
            harm.append(f"the host printed {size:,} bytes")
    remove(folder)
    found = json.loads(said) if said else {"value": None, "how": "no answer"}
    return found["value"], found["how"], harm


class TrustingWorker:
    """A worker, and its host's end of the channel."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._sock, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        self._folder = tempfile.mkdtemp(prefix="eventcore-naive-")
        with theirs:
            command = [sys.executable, "-I", "-S", str(_BOOT), str(theirs.fileno()), str(os.getpid()), str(_ROOT)]
            self._child = subprocess.Popen(
                command,
                close_fds=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, TMPDIR=self._folder),
            )
        assert self._child.stdout is not None
        self._output = self._child.stdout
        os.set_blocking(self._output.fileno(), False)
        self._printed = b""
        self._sock.setblocking(False)
        self._data = b""
        self._calls: dict[Any, asyncio.Future[Any]] = {}
        #: What the worker did to it: what it got in a name that it does not have, and the like.
        self.forged: list[str] = []
        self._number = 0
        self._gone = False
        asyncio.get_running_loop().add_reader(self._sock, self._readable)
        asyncio.get_running_loop().add_reader(self._output, self._printing)

    def _printing(self) -> None:
        self._printed += self._output.read() or b""

    def _readable(self) -> None:
        data, self._received, _, _ = socket.recv_fds(self._sock, 1 << 24, 100)  # as multiprocessing does
        if not data:
            self._gone = True
            asyncio.get_running_loop().remove_reader(self._sock)
            for call in self._calls.values():
                call.set_exception(Gone())
            return
        try:
            self._take(data)
        except Exception as error:
            self.forged.append(f"its reader broke: {type(error).__name__}")
            raise

    def _take(self, data: bytes) -> None:
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
            if frame["method"] == "log":
                logging.getLogger("naive").warning("%s", frame["params"]["message"])
            else:
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
        if not self._gone:  # whose channel is closed has ended, has it not?
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()
        self._child.poll()
        self._output.close()
        self._sock.close()
        try:
            shutil.rmtree(self._folder)
        except (OSError, RecursionError) as error:
            self.forged.append(f"a folder that cannot be removed: {type(error).__name__}")
            remove(self._folder)
