"""Starts workers in containers, and keeps track of those that run."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

import anyio

from eventcore.kernel.errors import SandboxUnavailable
from eventcore.kernel.outside import ContainerSettings
from eventcore.plugins.sandbox.container.errors import CONFLICT, EngineRefused
from eventcore.plugins.sandbox.container.images import Images, image_name
from eventcore.plugins.sandbox.container.process import ContainerProcess
from eventcore.plugins.sandbox.container.request import container_name, create_request, usage, user_of
from eventcore.plugins.sandbox.linux import calls
from eventcore.plugins.sandbox.spec import ContainerWish, WorkerSpec

if TYPE_CHECKING:
    from eventcore.plugins.sandbox.container.engine import DockerEngine


class Containers:
    """The container tier of one engine.

    Args:
        settings: where the Docker Engine is, and its time limits.
    """

    def __init__(self, settings: ContainerSettings) -> None:
        self._settings = settings
        self._opened: tuple[DockerEngine, Images] | None = None
        self._running: dict[str, tuple[str, str, ContainerProcess]] = {}

    def _open(self) -> tuple[DockerEngine, Images]:
        if self._opened is None:
            # Imported here for start-up: an HTTP client is half of what opening an engine costs.
            from eventcore.plugins.sandbox.container.engine import DockerEngine, usual_place

            engine = DockerEngine(self._settings.socket or usual_place())
            self._opened = engine, Images(engine, self._settings.image, self._settings.build_timeout)
        return self._opened

    @property
    def engine(self) -> DockerEngine:
        """The Docker Engine."""
        return self._open()[0]

    async def start(self, spec: WorkerSpec, wish: ContainerWish) -> ContainerProcess:
        """Start a worker in a container of its own.

        Raises:
            SandboxUnavailable: no engine answers (`EngineMissing`), or it refuses the image or the container.
        """
        image = await self._open()[1].provide(spec, wish)
        _open_folders(spec, wish)
        try:
            with anyio.fail_after(self._settings.start_timeout):
                return await self._start(spec, wish, image)
        except TimeoutError:
            text = f"the container of {spec.slug} did not start within {self._settings.start_timeout:g} s"
            raise SandboxUnavailable(text, kind="SandboxUnavailable") from None

    async def _start(self, spec: WorkerSpec, wish: ContainerWish, image: str) -> ContainerProcess:
        container = await self._create(spec, create_request(spec, wish, image))
        try:
            stream = await self.engine.attach(container)
            try:
                await self.engine.start(container)
                state = (await self.engine.inspect(container)).get("State") or {}
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await stream.close()
                raise
        except BaseException:
            with anyio.move_on_after(self._settings.stop_timeout, shield=True):
                await self._remove(container)
            raise
        pid = int(state.get("Pid") or 0)
        process = ContainerProcess(self.engine, container, stream, pid, self._settings.stop_timeout, self._forget)
        self._running[container] = (spec.slug, image, process)
        return process

    async def _create(self, spec: WorkerSpec, body: dict[str, Any]) -> str:
        try:
            return await self.engine.create(container_name(spec), body)
        except EngineRefused as error:
            if error.details.get("status") != CONFLICT:
                raise
        # The one before is still being removed, or a worker for one call runs beside it.
        return await self.engine.create(container_name(spec, f"_{secrets.token_hex(4)}"), body)

    async def _remove(self, container: str) -> None:
        try:
            await self.engine.remove(container)
        except SandboxUnavailable:
            return  # it is gone, or the engine is; it removes containers that end by itself

    def _forget(self, process: ContainerProcess) -> None:
        self._running.pop(process.container, None)

    async def close(self) -> None:
        """Close the connections to the engine. Call it when all workers have ended."""
        if self._opened is not None:
            await self._opened[0].close()

    def image_of(self, spec: WorkerSpec, wish: ContainerWish) -> str:
        """The image that a plugin runs in."""
        return image_name(spec, wish, self._settings.image)

    async def stats(self, slug: str) -> list[dict[str, Any]]:
        """What each running container of a plugin uses now: CPU percent, memory in MiB, bytes in and out."""
        found = []
        for owner, image, process in list(self._running.values()):
            if owner != slug:
                continue
            try:
                used = usage(await process.stats())
            except SandboxUnavailable:
                continue  # it has just ended
            found.append({"container": process.container[:12], "image": image, **used})
        return found


def _open_folders(spec: WorkerSpec, wish: ContainerWish) -> None:
    """As root, give the folders that the plugin may change to the user it runs as: it is not their owner otherwise."""
    uid, _, gid = user_of(wish).partition(":")
    for folder in (*spec.allow.read, *spec.allow.write):
        try:
            place = calls.open_fixed(folder)  # the plugin may have put a link into its path
        except FileNotFoundError:
            continue  # the engine says so
        except OSError as error:
            text = f"{spec.slug} is not run: {error.strerror}"
            raise SandboxUnavailable(text, kind="SandboxUnavailable", hint=f"look at {folder}") from None
        try:
            root = os.geteuid() == 0 and os.fstat(place).st_uid == 0
            if root and uid.isdigit() and folder in spec.allow.write:
                os.chown(f"/proc/self/fd/{place}", int(uid), int(gid) if gid.isdigit() else -1)
        finally:
            os.close(place)
