"""A Docker Engine, through as much of its HTTP API as the container tier needs. Podman's service answers it as well.

httpx is the client because it runs on both event loops; the clients that are made for this API run on asyncio alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import anyio
import httpcore
import httpx

from eventcore.kernel.errors import EventCoreError
from eventcore.plugins.sandbox.container.errors import (
    NOT_FOUND,
    SWITCHING_PROTOCOLS,
    EngineMissing,
    EngineRefused,
)

USUAL_SOCKET = "/var/run/docker.sock"
#: How long the engine may take for an answer that needs no work. Seconds.
_SOON = 30.0
_FAILURES = (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)


class Attached:
    """The standard streams of a container, after the connection was taken over."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._stream: httpcore.AsyncNetworkStream = response.extensions["network_stream"]

    async def read(self) -> bytes:
        """What came; empty at the end."""
        try:
            return await self._stream.read(65_536)
        except (*_FAILURES, anyio.EndOfStream, anyio.ClosedResourceError):
            return b""

    async def write(self, data: bytes) -> None:
        """Send to its standard input. What it does not want any more is dropped."""
        with suppress(*_FAILURES, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stream.write(data)

    async def close(self) -> None:
        with suppress(*_FAILURES):
            await self._response.aclose()


class DockerEngine:
    """One engine, at a socket or a URL.

    Args:
        place: a socket's path, `unix://PATH`, `tcp://HOST:PORT` or `http://HOST:PORT`.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        path = place.removeprefix("unix://")
        if path.startswith("/"):
            transport = httpx.AsyncHTTPTransport(uds=path, limits=httpx.Limits(max_connections=None))
            self._base = "http://engine"
        else:
            transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))
            self._base = "http://" + place.partition("://")[2]
        self._http = httpx.AsyncClient(transport=transport, trust_env=False, timeout=None)  # noqa: S113 - see _call
        self._version = ""

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    # -- containers --------------------------------------------------------------------------------------------------

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create a container, and return its id.

        Raises:
            EngineMissing, EngineRefused: as all methods here.
        """
        found = await self._json("POST", "/containers/create", params={"name": name}, json=body)
        return str(found["Id"])

    async def attach(self, container: str) -> Attached:
        """Take over its standard streams. Before it is started, so that nothing of them is missed."""
        wanted = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        response = await self._send("POST", f"/containers/{container}/attach", params=wanted, headers=headers)
        if response.status_code != SWITCHING_PROTOCOLS:
            raise await self._refusal(response, "attach")
        return Attached(response)

    async def start(self, container: str) -> None:
        """Start it."""
        await self._done("POST", f"/containers/{container}/start")

    async def inspect(self, container: str) -> dict[str, Any]:
        """What the engine knows of it."""
        return await self._json("GET", f"/containers/{container}/json")

    async def wait(self, container: str) -> int | None:
        """Wait for its end. Returns its exit code, or None where it is gone already."""
        # `next-exit` ends with the removal too, and gives the code of one that removes itself.
        params = {"condition": "next-exit"}
        try:
            found = await self._json("POST", f"/containers/{container}/wait", timeout=None, params=params)
        except EngineRefused as error:
            if error.details.get("status") == NOT_FOUND:
                return None
            raise
        return None if found.get("Error") else int(found["StatusCode"])

    async def stop(self, container: str, seconds: float) -> None:
        """Ask it to end, and kill it after so many seconds."""
        params = {"t": str(round(seconds))}
        await self._done("POST", f"/containers/{container}/stop", params=params, timeout=seconds + _SOON)

    async def kill(self, container: str) -> None:
        """SIGKILL."""
        await self._done("POST", f"/containers/{container}/kill", params={"signal": "KILL"})

    async def remove(self, container: str) -> None:
        """Remove it, running or not, with its anonymous volumes."""
        await self._done("DELETE", f"/containers/{container}", params={"force": "1", "v": "1"})

    async def stats(self, container: str) -> dict[str, Any]:
        """What it uses now."""
        return await self._json("GET", f"/containers/{container}/stats", params={"stream": "false"})

    # -- images ------------------------------------------------------------------------------------------------------

    async def has_image(self, name: str) -> bool:
        """Whether an image is there."""
        try:
            await self._json("GET", f"/images/{quote(name, safe='')}/json")
        except EngineRefused as error:
            if error.details.get("status") == NOT_FOUND:
                return False
            raise
        return True

    async def pull(self, name: str, timeout: float) -> None:
        """Pull an image."""
        await self._work("/images/create", {"fromImage": name}, b"", timeout, f"pulling {name}")

    async def build(self, tag: str, context: bytes, timeout: float) -> None:
        """Build an image.

        Args:
            context: a tar archive with a Dockerfile.
        """
        params = {"t": tag, "rm": "1", "forcerm": "1"}
        await self._work("/build", params, context, timeout, f"building {tag}")

    async def _work(self, path: str, params: dict[str, str], body: bytes, timeout: float, what: str) -> None:
        """Something that tells its progress as lines of JSON; an error is one of them, after a status of 200."""
        headers = {"Content-Type": "application/x-tar"} if body else {}
        try:
            with anyio.fail_after(timeout):
                response = await self._send("POST", path, params=params, headers=headers, content=body)
                try:
                    if response.is_error:
                        raise await self._refusal(response, what)
                    await self._progress(response, what)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise EngineRefused(f"{what} took longer than {timeout:g} s", kind="SandboxUnavailable") from None
        except _FAILURES as error:
            raise self._missing(error) from error

    async def _progress(self, response: httpx.Response, what: str) -> None:
        wrong = ""
        async for line in response.aiter_lines():  # to its end: a generator that is left early is closed by nobody
            with suppress(ValueError):
                said = json.loads(line)
                wrong = wrong or (str(said.get("error") or "") if isinstance(said, dict) else "")
        if wrong:
            raise EngineRefused(f"{what} failed: {wrong[:2000]}", kind="SandboxUnavailable")

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _json(self, method: str, path: str, *, timeout: float | None = _SOON, **more: Any) -> dict[str, Any]:
        found = await self._call(method, path, timeout, more)
        try:
            parsed = json.loads(found)
        except ValueError as error:
            raise EngineRefused(f"{self.place} is no engine: {error}", kind="SandboxUnavailable") from None
        return parsed if isinstance(parsed, dict) else {"rows": parsed}

    async def _done(self, method: str, path: str, *, timeout: float | None = _SOON, **more: Any) -> None:
        await self._call(method, path, timeout, more)

    async def _call(self, method: str, path: str, timeout: float | None, more: dict[str, Any]) -> bytes:
        try:
            with anyio.fail_after(timeout):
                response = await self._send(method, path, **more)
                try:
                    if response.is_error:
                        raise await self._refusal(response, f"{method} {path}")
                    return await response.aread()
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise self._missing(error) from error
        except _FAILURES as error:
            raise self._missing(error) from error

    async def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request, at the version of the API that the engine itself prefers; the body is not read yet."""
        try:
            if not self._version:
                ping = await self._http.get(f"{self._base}/_ping", timeout=_SOON)
                self._version = ping.headers.get("Api-Version", "1.41")
            request = self._http.build_request(method, f"{self._base}/v{self._version}{path}", **more)
            return await self._http.send(request, stream=True)
        except _FAILURES as error:
            raise self._missing(error) from error

    async def _refusal(self, response: httpx.Response, what: str) -> EventCoreError:
        try:
            said = json.loads(await response.aread())["message"]
        except (ValueError, KeyError, TypeError, *_FAILURES):
            said = response.reason_phrase
        finally:
            await response.aclose()
        text = f"the container engine refused {what}: {str(said)[:2000]}"
        return EngineRefused(text, kind="SandboxUnavailable", status=response.status_code)

    def _missing(self, error: BaseException) -> EngineMissing:
        why = str(error) or type(error).__name__
        return EngineMissing(
            f"no container engine answers at {self.place} ({why})",
            kind="SandboxUnavailable",
            hint="start Docker, or `podman system service`, and name its socket in [containers] socket",
        )


def usual_place(environ: Mapping[str, str] | None = None) -> str:
    """Where an engine is looked for if settings do not say: `DOCKER_HOST`, else the usual socket."""
    return (os.environ if environ is None else environ).get("DOCKER_HOST") or USUAL_SOCKET
