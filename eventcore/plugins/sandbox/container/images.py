"""The image of a plugin: built from its Dockerfile once for each content, or pulled when it is not there."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.sandbox.spec import ContainerWish, WorkerSpec

if TYPE_CHECKING:
    from eventcore.plugins.sandbox.container.engine import DockerEngine

_MAX_CONTEXT = 64 * 1024 * 1024
_NOT_SENT = frozenset({"__pycache__", ".git", ".venv"})


def default_image() -> str:
    """The official image of our own Python version."""
    return f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def image_name(spec: WorkerSpec, wish: ContainerWish, given: str | None) -> str:
    """The image that a plugin runs in: its own build, what its manifest names, what settings name, the default."""
    if wish.dockerfile:
        return f"eventcore-plugin-{spec.slug}:{(spec.version or 'none')[:32]}"
    return wish.image or given or default_image()


class Images:
    """Sees to it that images are there.

    Args:
        given: the image of plugins that name none.
        timeout: seconds that a pull or a build may take.
    """

    def __init__(self, engine: DockerEngine, given: str | None, timeout: float) -> None:
        self._engine, self._given, self._timeout = engine, given, timeout
        self._lock = anyio.Lock()

    async def provide(self, spec: WorkerSpec, wish: ContainerWish) -> str:
        """The name of the plugin's image, which is there when this returns.

        Raises:
            SandboxUnavailable: it cannot be built or pulled; the message is the engine's.
            InvalidInput: the plugin's folder is too large to build from.
        """
        name = image_name(spec, wish, self._given)
        async with self._lock:  # two workers of one plugin build it once
            if await self._engine.has_image(name):
                return name
            if wish.dockerfile:
                context = await to_thread.run_sync(_context, spec.dir)
                await self._engine.build(name, context, self._timeout)
            else:
                await self._engine.pull(_tagged(name), self._timeout)
        return name


def _tagged(name: str) -> str:
    """With a tag: without one, every tag there is would be pulled."""
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def _context(folder: Path) -> bytes:
    """The plugin's folder as a tar archive. Links stay links, owners and times are left out, so that it is the same
    for the same content."""
    buffer = io.BytesIO()

    def kept(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if _NOT_SENT & {*Path(info.name).parts}:
            return None
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        if buffer.tell() + info.size > _MAX_CONTEXT:
            raise InvalidInput(f"{folder} holds more than {_MAX_CONTEXT >> 20} MiB, too much to build an image from")
        return info

    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".", filter=kept)
    return buffer.getvalue()
