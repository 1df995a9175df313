"""Programs that the operator lists for a plugin (`ctx.run`), each in a sandbox of its own.

The host resolves the program and starts it in a fork of its zygote: in a pid namespace, so that it ends with all that
it started; with the plugin's folders, ports and limits; apart from the plugin's own process, which gains nothing by it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from eventcore.kernel.errors import InvalidInput, PermissionDenied, RequestFailed
from eventcore.kernel.outside import PluginScope, ProgramSettings
from eventcore.kernel.ports import Metrics
from eventcore.plugins.host_api import CallApi, number
from eventcore.plugins.outside.lookup import find
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.launch import Process
from eventcore.plugins.sandbox.spec import WorkerSpec

_MAX_WORDS, _MAX_COMMAND, _MAX_INPUT = 256, 65_536, 700_000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
#: Set by us, and those that make the loader run other code.
_NOT_VARIABLES = re.compile(r"PATH|HOME|TMPDIR|LD_.*|GCONV_PATH")
#: What programs read besides the runtime's folders; there is no secret in them.
_SYSTEM = ("/usr", "/bin", "/sbin", "/etc/alternatives", "/etc/gitconfig", "/etc/nsswitch.conf")
_PART = 65_536
#: How long to wait for a killed program to be gone. Seconds.
_DEATH = 5.0


class Programs:
    """Runs programs for the plugins of one engine.

    Args:
        scopes: which programs, by slug.
        spec: what the plugin's own worker is started with, for its folders and limits.
        sandbox: starts them.
    """

    def __init__(
        self,
        settings: ProgramSettings,
        scopes: Mapping[str, PluginScope],
        spec: Callable[[CallApi], WorkerSpec],
        sandbox: Sandbox,
        metrics: Metrics,
    ) -> None:
        self._settings, self._scopes, self._spec = settings, scopes, spec
        self._sandbox, self._metrics = sandbox, metrics
        self._room = anyio.CapacityLimiter(settings.at_once)
        #: What one plugin of a tenant may have of that: the others are not to wait for it.
        self._shares: dict[tuple[str, str], anyio.CapacityLimiter] = {}

    async def run(self, call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
        """The service `run`.

        Raises:
            PermissionDenied: it was not granted `system_access`, or the program is not listed; recorded.
            RequestFailed: it ran over its time.
            SandboxUnavailable: this machine has no pid namespaces to run it in.
        """
        outcome = "failed"
        try:
            answer = await self._run(call, params)
            outcome = "ok" if answer["code"] == 0 else "code"
        except PermissionDenied:
            outcome = "refused"
            raise
        finally:
            self._metrics.count("plugin_programs_total", plugin=call.record.slug, outcome=outcome)
        return answer

    async def _run(self, call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
        command, env = _words(params.get("command")), _variables(params.get("env") or {})
        given = _input(params.get("input") or "")
        longest = self._settings.timeout
        timeout = number(params, "timeout", longest, 0.001, longest)
        await call.need(PluginPermission.SYSTEM_ACCESS, f"run {command[0]}")
        await call.may_change(f"run {command[0]}")
        program = self._listed(call.record.slug, command[0])
        if program is None:
            await call.refuse(
                f"{call.record.slug} may not run {command[0]}: it is not among the programs that it was granted",
                program=command[0],
            )
            raise AssertionError("unreachable: refuse raises")
        path, executes = program
        spec = self._spec(call)
        allow = replace(spec.allow, programs=executes, system=_SYSTEM, isolation="worker")
        try:
            with anyio.fail_after(timeout):
                async with self._share(spec), self._room:
                    process = await self._sandbox.program(replace(spec, allow=allow), (path, *command[1:]), env)
                    return await _Running(process, self._settings.max_output).finish(given)
        except TimeoutError:
            raise RequestFailed(f"{command[0]} ran over its {timeout:g} s and was killed", limit="time") from None

    def _share(self, spec: WorkerSpec) -> anyio.CapacityLimiter:
        half = max(1, self._settings.at_once // 2)
        return self._shares.setdefault((spec.tenant, spec.slug), anyio.CapacityLimiter(half))

    def _listed(self, slug: str, name: str) -> tuple[str, tuple[str, ...]] | None:
        """The path of the program of this name, if it is listed (by the name it is listed under, its own name, or its
        path), and all paths that it may start: the listed programs may start each other, and what lies in listed
        folders."""
        chosen, executes = None, []
        for listed in self._scopes.get(slug, PluginScope()).programs:
            if os.path.isdir(listed):
                executes.append(os.path.realpath(listed))
                continue
            program = find(listed, self._settings.path)
            executes += program.executes
            if name in (listed, os.path.basename(listed), program.path):
                chosen = chosen or program.path
        return None if chosen is None else (chosen, tuple(dict.fromkeys(executes)))


class _Running:
    """One program under way. Its standard input and output are one socket; its standard error is a pipe."""

    def __init__(self, process: Process, most: int) -> None:
        self._process, self._most = process, most
        self._out, self._err = bytearray(), bytearray()
        self._cut = False

    async def finish(self, given: bytes) -> dict[str, Any]:
        """Feed it, read what it writes, and wait for its end. Cancelled, it kills it first."""
        process = self._process
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(process.hold)
                tasks.start_soon(self._feed, given)
                async with anyio.create_task_group() as reading:
                    reading.start_soon(self._read_out)
                    reading.start_soon(self._read_err)
                    code = await process.wait()
                    # Whatever holds the other ends is gone with its namespace, so both streams end.
                tasks.cancel_scope.cancel()
        finally:
            process.kill()
            with anyio.move_on_after(_DEATH, shield=True):
                await process.wait()
            with anyio.CancelScope(shield=True):
                await process.close()
        encoded = {"stdout": _text(self._out), "stderr": _text(self._err)}
        return {"code": code, "cut": self._cut, **encoded}

    async def _feed(self, given: bytes) -> None:
        sock, view = self._process.sock, memoryview(given)
        try:
            while view:
                await anyio.wait_writable(sock)
                view = view[sock.send(view) :]
            sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            return  # it did not want all of it

    async def _read_out(self) -> None:
        sock = self._process.sock
        while True:
            await anyio.wait_readable(sock)
            try:
                part = sock.recv(_PART)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return
            if not part:
                return
            self._keep(self._out, part)

    async def _read_err(self) -> None:
        while True:
            await anyio.wait_readable(self._process.output)
            try:
                part = os.read(self._process.output, _PART)
            except BlockingIOError:
                continue
            if not part:
                return
            self._keep(self._err, part)

    def _keep(self, kept: bytearray, part: bytes) -> None:
        room = self._most - len(kept)
        self._cut = self._cut or len(part) > room
        kept += part[:room]


def _text(data: bytearray) -> str:
    return base64.b64encode(data).decode()


def _words(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(word, str) for word in given):
        raise InvalidInput("ctx.run: a command is a list of texts, the program first")
    if len(given) > _MAX_WORDS or sum(map(len, given)) > _MAX_COMMAND or any("\0" in word for word in given):
        raise InvalidInput(f"ctx.run: a command has at most {_MAX_WORDS} words of {_MAX_COMMAND:,} characters together")
    return tuple(given)


def _variables(given: object) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) and "\0" not in value for value in given.values()):
        raise InvalidInput("ctx.run: env is a table of texts")
    if sum(len(name) + len(value) for name, value in given.items()) > _MAX_COMMAND:
        raise InvalidInput(f"ctx.run: env is longer than {_MAX_COMMAND:,} characters")
    for name in given:
        if not _VARIABLE.fullmatch(name) or _NOT_VARIABLES.fullmatch(name):
            raise InvalidInput(f"ctx.run: the variable {name[:64]!r} cannot be set")
    return dict(given)


def _input(text: object) -> bytes:
    try:
        data = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("ctx.run: the input is not in base64") from None
    if len(data) > _MAX_INPUT:
        raise InvalidInput(f"ctx.run: the input is longer than {_MAX_INPUT:,} bytes")
    return data
