"""Files that a plugin hands over, and downloads that it is given: always within the folders that it was granted."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import to_thread

from eventcore.kernel.errors import Conflict, InvalidInput, PermissionDenied
from eventcore.plugins.host_api import CallApi
from eventcore.plugins.outside.beneath import NewFile, reading
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord
from eventcore.plugins.sandbox.spec import Allowance

#: The largest file that is handed over. Bytes.
MAX_FILE = 256 * 1024 * 1024
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file that a plugin handed over, as it stands in results.

    Attributes:
        plugin: whose folder it is in.
        path: its place, relative to the plugin's folder of data; absolute in a folder that the operator granted.
        size: bytes.
        sha256: of its content then, in hex.
        media_type: by its name.
    """

    plugin: str
    path: str
    size: int
    sha256: str
    media_type: str

    def as_dict(self) -> dict[str, Any]:
        return {"file": {name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> FileRef:
        """From `as_dict`, after JSON.

        Raises:
            InvalidInput: it is no such reference.
        """
        inner = found.get("file")
        try:
            assert isinstance(inner, dict)
            return cls(**{name: kind(inner[name]) for name, kind in _FIELDS.items()})
        except (AssertionError, KeyError, TypeError, ValueError):
            raise InvalidInput("this is no reference to a file; ctx.file(path) makes one") from None


_FIELDS: dict[str, Callable[[Any], Any]] = {"plugin": str, "path": str, "size": int, "sha256": str, "media_type": str}


class Files:
    """Reads and writes for plugins, in their folders.

    Args:
        allowance: what a plugin's worker may use.
    """

    def __init__(self, allowance: Callable[[PluginRecord], Allowance]) -> None:
        self._allowance = allowance

    async def hand_over(self, call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
        """The service `file`: a reference to a file that the plugin has written, fit for its result."""
        if not _writes(call.record):
            await call.need(PluginPermission.FILESYSTEM_READ, "hand over a file")
        path = str(params.get("path", ""))
        try:
            return (await to_thread.run_sync(self._describe, call.record, path)).as_dict()
        except PermissionDenied as error:
            await call.refuse(error.message, path=path)
            raise AssertionError("unreachable: refuse raises") from None

    async def read(self, record: PluginRecord, reference: Mapping[str, Any]) -> bytes:
        """The content of a file that was handed over.

        Raises:
            InvalidInput: no reference, or one that leads elsewhere now.
            NotFound: the file is gone.
            Conflict: it was changed since.
        """
        wanted = FileRef.of(reference)
        raw = await to_thread.run_sync(self._read, record, wanted.path)
        if hashlib.sha256(raw).hexdigest() != wanted.sha256:
            raise Conflict(f"{wanted.path} of {record.slug} is not what it was when it was handed over")
        return raw

    async def content(self, record: PluginRecord, path: str) -> bytes:
        """What stands in a file of the plugin now."""
        return await to_thread.run_sync(self._read, record, path)

    async def save(self, call: CallApi, path: str, parts: AsyncIterator[bytes]) -> dict[str, Any]:
        """Write a download where the plugin may write.

        Raises:
            PermissionDenied: it may not write there; recorded.
        """
        await call.need(PluginPermission.FILESYSTEM_WRITE, f"save {path}")
        record = call.record
        try:
            folder, inner = self._place(record, path, writing=True)
        except PermissionDenied as error:
            await call.refuse(error.message, path=path)
            raise AssertionError("unreachable: refuse raises") from None
        with NewFile(folder, inner) as file:
            size, digest = 0, hashlib.sha256()
            async for part in parts:
                await to_thread.run_sync(file.write, part)
                size += len(part)
                digest.update(part)
            file.finish()
        return FileRef(record.slug, path, size, digest.hexdigest(), _media_type(path)).as_dict()

    def _describe(self, record: PluginRecord, path: str) -> FileRef:
        folder, inner = self._place(record, path)
        digest, size = hashlib.sha256(), 0
        with reading(folder, inner, MAX_FILE) as (fd, _):
            while part := os.read(fd, _PART):
                size += len(part)
                digest.update(part)
        return FileRef(record.slug, path, size, digest.hexdigest(), _media_type(path))

    def _read(self, record: PluginRecord, path: str) -> bytes:
        folder, inner = self._place(record, path)
        with reading(folder, inner, MAX_FILE) as (fd, _), os.fdopen(os.dup(fd), "rb") as file:
            return file.read(MAX_FILE + 1)[:MAX_FILE]

    def _place(self, record: PluginRecord, path: str, *, writing: bool = False) -> tuple[Path, str]:
        """The granted folder that a path of the plugin lies in, and the rest of the path."""
        allowed = self._allowance(record)
        # `..` is folded here, by its letters; links are the kernel's part, when it is opened.
        full = Path(os.path.normpath(os.path.join(allowed.cwd or "/", path)))
        for folder in allowed.write if writing else (*allowed.write, *allowed.read):
            if full.is_relative_to(folder) and full != Path(folder):
                return Path(folder), str(full.relative_to(folder))
        raise PermissionDenied(
            f"{record.slug} may not use {path!r}: it lies in none of the folders that it was granted"
        )


def _writes(record: PluginRecord) -> bool:
    return PluginPermission.FILESYSTEM_WRITE in record.granted


def _media_type(path: str) -> str:
    return mimetypes.guess_type(path)[0] or "application/octet-stream"
