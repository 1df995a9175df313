"""Which plugins there are, in which state, and who answers which intent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from eventcore.bus.calling import AsyncHandler, as_async, never_waits
from eventcore.kernel.errors import InvalidInput, InvalidManifest, NotFound, PluginTimeout, Problem
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import did_you_mean, slug
from eventcore.kernel.records import PluginState
from eventcore.plugins.manifest import PluginManifest, read_manifest
from eventcore.plugins.manifest_index import ManifestIndex
from eventcore.plugins.permissions import PluginPermission

_HASHED_BYTES = 64 * 1024 * 1024
#: A regular file up to this size is read with one call.
_AT_ONCE = 256 * 1024
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
        denied: those that the operator took away, so that settings do not give them back.
        registered: what loading it registered, as the worker reported it.
        strikes: how often its workers broke the rules of their channel, since it was enabled with this code.
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
    denied: frozenset[PluginPermission] = frozenset()
    registered: dict[str, Any] | None = None
    content_hash: str | None = None
    strikes: int = 0
    #: The manifest's file and the category it lies in, until the manifest is read.
    unread: tuple[str, str | None] | None = None

    def __getattr__(self, name: str) -> Any:
        """The manifest of a plugin that was found good before is read when it is first asked for."""
        if name != "manifest" or self.unread is None:
            raise AttributeError(name)
        (file, category), self.unread = self.unread, None
        self.manifest = None
        try:
            found = read_manifest(file, category=category)
            if found.slug != self.slug:
                raise InvalidManifest(
                    [Problem(file, None, "name", f"is another since the home was opened: {found.slug}")]
                )
            self.manifest = found
        except InvalidManifest as error:
            self.problems = tuple(error.problems)
            self.state, self.reason = "failed", str(error.problems[0])
        return self.manifest

    @classmethod
    def known(cls, slug: str, folder: str, origin: str, file: str, category: str | None) -> PluginRecord:
        """A record whose manifest is read when it is asked for."""
        record = cls(slug, folder, origin, unread=(file, category))
        del record.manifest
        return record

    @property
    def path(self) -> Path:
        """The plugin's folder."""
        return Path(self.folder)

    @property
    def enabled(self) -> bool:
        """Whether it is in use. Degraded, its intents are still answered, but its hook handlers are left out."""
        return self.state in ("enabled", "degraded")

    def as_row(self, tenant: str) -> PluginState:
        """What the store keeps of it."""
        granted, denied = sorted(map(str, self.granted)), sorted(map(str, self.denied))
        kept = {"registered": self.registered, "granted": granted, "denied": denied}
        raw = encode(kept | ({"strikes": self.strikes} if self.strikes else {}))
        return PluginState(tenant, self.slug, self.state, self.reason, self.since, self.content_hash, raw)

    def recall(self, row: PluginState) -> None:
        """Take over what the store keeps of the code that lies there now; of other code nothing."""
        if row.content_hash == self.content_hash and row.raw_registered:
            found = decode(row.raw_registered)
            self.registered, self.strikes = found["registered"], found.get("strikes", 0)

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
    index: ManifestIndex = field(default_factory=ManifestIndex)
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
        if problem is None and (known := self.index.slug(manifest)) is not None:
            record = PluginRecord.known(known, folder, origin, manifest, category)
        else:
            record = self._read(folder, manifest, category, origin, problem)
        other = self.records.get(record.slug)
        if other is None:
            self.records[record.slug] = record
        elif other.origin == origin and os.path.realpath(other.folder) != os.path.realpath(folder):
            message = f"two plugins have the slug {record.slug}: {other.folder} and {folder}"
            clash = PluginRecord(f"{record.slug} ({folder})", folder, origin, state="failed", reason=message)
            clash.problems = (Problem(manifest, None, "name", message),)
            self.records[clash.slug] = clash

    def _read(
        self, folder: str, manifest: str, category: str | None, origin: str, problem: Problem | None
    ) -> PluginRecord:
        try:
            before = os.stat(manifest)
        except OSError:
            return _record(folder, manifest, category, origin, problem)
        record = _record(folder, manifest, category, origin, problem)
        if record.manifest is not None:
            self.index.learn(manifest, before, record.slug, time.time_ns())
        return record

    def note_missing(self, states: Mapping[str, PluginState]) -> None:
        """A plugin that was in use and whose folder is gone is shown as failed; its row stays as it is."""
        for name, row in states.items():
            if name not in self.records and row.state not in ("uninstalled", "discovered"):
                reason = f"its folder is gone; it was {row.state}"
                problems = (Problem(name, None, "", reason),)
                record = PluginRecord(name, "", "missing", problems=problems, state="failed", reason=reason)
                self.records[name] = record

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

    def declared(self, intent: str) -> PluginRecord | None:
        """The plugin, in whatever state, whose manifest says that it answers an intent; None: no plugin does.

        Of several it is one that has been in use, if there is such a one.
        """
        if (owner := self._intents.get(intent)) is not None:
            return self.records.get(owner)
        found = [one for one in self if one.manifest is not None and intent in one.manifest.answers]
        return min(found, key=lambda one: one.state == "discovered", default=None) or self.find(intent)

    def version_of(self, plugin: str) -> str | None:
        """The version that a plugin's manifest says; None if there is none."""
        record = self.records.get(plugin)
        return record.manifest.version if record is not None and record.manifest is not None else None

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
        for intent in manifest.answers:
            owner = self._intents.get(intent)
            if owner is not None and owner != record.slug:
                raise InvalidInput(f"the intent {intent!r} is answered by {owner} and by {record.slug}")
        self._intents.update(dict.fromkeys(manifest.answers, record.slug))

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


def hash_folder(folder: str | Path) -> str:
    """SHA-256 (hex) over the names and contents of a plugin's files: changes when its code does.

    Raises:
        InvalidInput: it holds more than 64 MiB.
        OSError: something of it cannot be read.
    """
    # Text and descriptors instead of `Path`s: this is done for every plugin in use whenever a home is opened.
    digest, total, top = hashlib.sha256(), 0, os.fspath(folder)
    for where, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in _NOT_CODE and not name.startswith("."))
        below = where[len(top) + 1 :]
        for name in sorted(files):
            content = _content(f"{where}/{name}")
            total += len(content)
            if total > _HASHED_BYTES:
                raise InvalidInput(f"{folder} holds more than {_HASHED_BYTES >> 20} MiB; a plugin is smaller than that")
            digest.update(f"{below}/{name}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _content(path: str) -> bytes:
    """A file's bytes; none of what is no regular file, or larger than a plugin may be and one byte of that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if os.path.isfile(path):
            raise
        return b""  # a link that leads nowhere, a socket
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        if status.st_size <= _AT_ONCE:
            return os.read(descriptor, _AT_ONCE)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_HASHED_BYTES + 1)
    finally:
        os.close(descriptor)
