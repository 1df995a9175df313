"""Which plugins there are, in which state, and who answers which intent."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from eventcore.bus.calling import AsyncHandler, as_async, never_waits
from eventcore.kernel.errors import InvalidInput, InvalidManifest, NotFound, PluginTimeout, Problem
from eventcore.kernel.names import did_you_mean, slug
from eventcore.plugins.manifest import PluginManifest, read_manifest
from eventcore.plugins.permissions import PluginPermission

_HASHED_BYTES = 64 * 1024 * 1024
_NOT_CODE = frozenset({"__pycache__", ".git", ".venv", "tests"})


@dataclass(slots=True)
class PluginRecord:
    """One plugin as the host knows it.

    Attributes:
        slug: what it is reached by.
        folder: its folder's path, as discovery named it; `path` is the same as a `Path`.
        origin: `home`, `catalogue`, or the search folder it came from.
        manifest: None if it could not be read; `problems` then says why.
        state: `discovered`, `enabled`, `degraded`, `disabled` or `failed`.
        reason: why it is in that state, where there is something to say.
        since: when the state began, seconds since the epoch; 0 for the state it was found in.
        granted: the permissions that it has.
        registered: what loading it registered, as the worker reported it.
    """

    slug: str
    folder: str
    origin: str
    manifest: PluginManifest | None = None
    problems: tuple[Problem, ...] = ()
    state: str = "discovered"
    reason: str | None = None
    since: float = 0.0
    granted: frozenset[PluginPermission] = frozenset()
    registered: dict[str, Any] | None = None
    content_hash: str | None = None

    @property
    def path(self) -> Path:
        """The plugin's folder."""
        return Path(self.folder)

    @property
    def enabled(self) -> bool:
        """Whether it is in use. Degraded, its intents are still answered, but its hook handlers are left out."""
        return self.state in ("enabled", "degraded")

    def described(self) -> PluginManifest:
        """The manifest.

        Raises:
            InvalidManifest: it could not be read.
        """
        if self.manifest is None:
            raise InvalidManifest(list(self.problems))
        return self.manifest


@dataclass(slots=True)
class HostIntent:
    """A function of the embedder's own, callable wherever a plugin's intent is.

    Attributes:
        function: the same, made async.
        at_once: whether that runs to its end in one step, so that no time limit can end it.
    """

    name: str
    call: Callable[[dict[str, Any]], Any]
    roles: tuple[str, ...] = ()
    function: AsyncHandler = field(init=False)
    at_once: bool = field(init=False)

    def __post_init__(self) -> None:
        self.function = as_async(self.call)
        self.at_once = never_waits(self.function)

    async def answer(self, body: dict[str, Any], limit: float) -> Any:
        """Call it.

        Args:
            limit: seconds.

        Raises:
            PluginTimeout: it ran over the limit.
            Exception: whatever the function raised.
        """
        if self.at_once:
            return await self.function(body)
        with anyio.move_on_after(limit):
            return await self.function(body)
        raise PluginTimeout(f"{self.name} ran over its {limit:g} s", kind="TimeoutError")


@dataclass(slots=True)
class PluginRegistry:
    """All records by slug; intents of the enabled ones; the embedder's own intents."""

    records: dict[str, PluginRecord] = field(default_factory=dict)
    host: dict[str, HostIntent] = field(default_factory=dict)
    _intents: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[PluginRecord]:
        return iter(sorted(self.records.values(), key=lambda record: record.slug))

    # -- discovering -------------------------------------------------------------------------------------------------

    def discover(self, folder: str, manifest: str, category: str | None, origin: str, problem: Problem | None) -> None:
        """Read the manifest of a folder into a record. One that cannot be used never hides another.

        The first of several with the same slug wins, in the order of discovery (home before catalogue), and the later
        one of the same origin is kept as failed, naming both: within one place it is a mistake.
        """
        record = _record(folder, manifest, category, origin, problem)
        other = self.records.get(record.slug)
        if other is None:
            self.records[record.slug] = record
        elif other.origin == origin and os.path.realpath(other.folder) != os.path.realpath(folder):
            message = f"two plugins have the slug {record.slug}: {other.folder} and {folder}"
            clash = PluginRecord(f"{record.slug} ({folder})", folder, origin, state="failed", reason=message)
            clash.problems = (Problem(manifest, None, "name", message),)
            self.records[clash.slug] = clash

    # -- looking up --------------------------------------------------------------------------------------------------

    def get(self, name: str) -> PluginRecord:
        """A plugin by slug, name or (of the enabled ones) intent.

        Raises:
            NotFound: there is none; names the nearest.
        """
        record = self.find(name)
        if record is None:
            raise NotFound(
                f"there is no plugin {name!r}{did_you_mean(name, self.records)}", hint="eventcore plugins list"
            )
        return record

    def find(self, name: str) -> PluginRecord | None:
        if owner := self._intents.get(name):
            return self.records.get(owner)
        try:
            return self.records.get(name) or self.records.get(slug(name))
        except InvalidInput:
            return None

    def answering(self, intent: str) -> HostIntent | PluginRecord | None:
        """Who answers an intent now: the embedder's function, else an enabled plugin, by intent or slug."""
        if found := self.host.get(intent):
            return found
        record = self.find(intent)
        return record if record is not None and record.enabled else None

    def intents(self) -> list[str]:
        """Every intent that somebody answers."""
        return sorted({*self.host, *self._intents})

    # -- claiming ----------------------------------------------------------------------------------------------------

    def claim(self, record: PluginRecord) -> None:
        """Give an enabled plugin its intents.

        Raises:
            InvalidInput: another one has one of them; names both. Nothing was claimed.
        """
        manifest = record.described()
        for intent in manifest.intents:
            owner = self._intents.get(intent)
            if owner is not None and owner != record.slug:
                raise InvalidInput(f"the intent {intent!r} is answered by {owner} and by {record.slug}")
        self._intents.update(dict.fromkeys(manifest.intents, record.slug))

    def give_up(self, record: PluginRecord) -> None:
        """Take a plugin's intents away."""
        self._intents = {intent: owner for intent, owner in self._intents.items() if owner != record.slug}


def _record(folder: str, manifest: str, category: str | None, origin: str, problem: Problem | None) -> PluginRecord:
    problems: tuple[Problem, ...] = (problem,) if problem else ()
    if not problems:
        try:
            read = read_manifest(manifest, category=category)
            return PluginRecord(read.slug, folder, origin, manifest=read)
        except InvalidManifest as error:
            problems = tuple(error.problems)
    name = Path(folder).name
    with contextlib.suppress(InvalidInput):
        name = slug(name)
    return PluginRecord(name, folder, origin, problems=problems, state="failed", reason=str(problems[0]))


def hash_folder(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of a plugin's files: changes when its code does.

    Raises:
        InvalidInput: it holds more than 64 MiB.
    """
    digest, total = hashlib.sha256(), 0
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_CODE and not name.startswith("."))
        for name in sorted(files):
            path = Path(where, name)
            content = path.read_bytes() if path.is_file() else b""
            total += len(content)
            if total > _HASHED_BYTES:
                raise InvalidInput(f"{folder} holds more than {_HASHED_BYTES >> 20} MiB; a plugin is smaller than that")
            digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()
