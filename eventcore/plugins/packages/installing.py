"""Installing and uninstalling plugins."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, InvalidManifest, NotFound, PackageRefused
from eventcore.kernel.ports import Clock, Faults, Ids
from eventcore.kernel.records import Batch, Package
from eventcore.plugins.dependencies import Requirements, needed_by
from eventcore.plugins.lifecycle import Lifecycle
from eventcore.plugins.manifest import MANIFEST_NAMES, PluginManifest, check_folder, read_manifest
from eventcore.plugins.packages.archive import digest_of, unpack
from eventcore.plugins.packages.listing import Listed, read_listing
from eventcore.plugins.packages.transit import Transit
from eventcore.plugins.permissions import MEANING
from eventcore.plugins.python_packages import absent, wanted
from eventcore.plugins.registry import PluginRecord, PluginRegistry


@dataclass(frozen=True, slots=True)
class Candidate:
    """A package that was unpacked and found good, and is not installed yet.

    Attributes:
        digest: SHA-256 (hex) of what it was unpacked from.
        folder: where it is to lie, relative to the plugin folder.
        python_packages: requirement lines of the manifest and of `requirements.txt`.
    """

    manifest: PluginManifest
    source: str
    digest: str
    folder: str
    operation: str
    python_packages: list[str]

    def as_dict(self) -> dict[str, Any]:
        """What the operator is shown before anything is installed."""
        manifest = self.manifest
        installation = manifest.marketplace.get("installation") or {}
        return {
            "plugin": manifest.slug,
            "name": manifest.name,
            "version": manifest.version,
            "description": manifest.description,
            "author": manifest.author,
            "license": manifest.license_text,
            "source": self.source,
            "sha256": self.digest,
            "folder": self.folder,
            "permissions": [str(one) for one in manifest.permissions],
            "optional_permissions": [str(one) for one in manifest.optional_permissions],
            "means": {str(one): MEANING[one] for one in (*manifest.permissions, *manifest.optional_permissions)},
            "python_packages": self.python_packages,
            "absent_packages": absent(self.python_packages),
            "needs": [one.model_dump() for one in manifest.plugin_dependencies],
            "instructions": installation.get("setup_instructions") or "",
            "foreign_versions": {key: value for key, value in manifest.compatibility.items() if "eventcore" not in key},
            "warnings": [problem.as_dict() for problem in manifest.warnings],
        }


class Packages:
    """Installs and uninstalls plugins of one home.

    Args:
        transit: the home's plugin folder; None: there is no home, and nothing can be installed.
    """

    def __init__(
        self,
        *,
        transit: Transit | None,
        registry: PluginRegistry,
        lifecycle: Lifecycle,
        bus: Bus,
        commit: Callable[[Batch], Awaitable[Any]],
        clock: Clock,
        ids: Ids,
        faults: Faults,
        tenant: str,
        requirements: Requirements,
    ) -> None:
        self._transit, self._registry, self._lifecycle, self._bus = transit, registry, lifecycle, bus
        self._commit, self._clock, self._ids, self._faults = commit, clock, ids, faults
        self._tenant, self._requirements = tenant, requirements
        self._rows: dict[str, Package] = {}
        self._lock = anyio.Lock()
        #: Removes what the host keeps for a plugin beside its files and settings; set where the engine is put together.
        self.forget: Callable[[CallContext, str], Awaitable[dict[str, int]]] | None = None

    async def restore(self, rows: list[Package]) -> list[str]:
        """Take over what is installed, and finish what a crash interrupted. Before plugins are discovered."""
        self._rows = {row.plugin: row for row in rows}
        if self._transit is None:
            return []
        for slug in await to_thread.run_sync(self._transit.purging, rows):
            await self._forgotten(slug, CallContext(tenant=self._tenant, actor="system"))
        return await to_thread.run_sync(self._transit.recover, rows)

    def installed(self, slug: str) -> Package | None:
        """The package that a plugin was installed from, if it was."""
        row = self._rows.get(slug)
        return row if row is not None and row.state == "installed" else None

    def listed(self) -> list[Listed]:
        """What `plugins/manifest.json` lists.

        Raises:
            InvalidManifest: the file is none of ours.
        """
        return read_listing(self._home().plugins)

    def absent(self) -> list[Listed]:
        """What is listed and not there."""
        return [one for one in self.listed() if self._at_home(one.name) is None]

    def find_source(self, listed: Listed) -> str:
        """The path of a listed plugin's source; those in the home are relative to it."""
        return os.path.join(self._home().data.parent.parent, listed.source)

    # -- installing --------------------------------------------------------------------------------------------------

    async def inspect(self, target: str, *, replacing: str | None = None) -> dict[str, Any]:
        """What would be installed from a folder or archive, with its digest. Nothing is left behind.

        Args:
            replacing: the slug of a plugin whose place it is to take.

        Raises:
            InvalidInput: as `install`; or it is another plugin than the one to replace.
        """
        transit = self._home()
        async with self._lock:
            candidate = await self._unpacked(target, replacing)
            await to_thread.run_sync(transit.abandon, candidate.operation)
        return candidate.as_dict()

    async def install(
        self, target: str, context: CallContext, *, grants: tuple[str, ...] = (), digest: str | None = None
    ) -> PluginRecord:
        """Install a plugin from a folder, a .tar.gz or a .zip. It is then `installed`, and can be enabled.

        Args:
            grants: permissions that it gets.
            digest: what its SHA-256 must be: that of what the operator was shown.

        Raises:
            PackageRefused: something in the package is not allowed, or it is not what was shown.
            InvalidManifest: its manifest has errors.
            InvalidInput: it cannot run here, a plugin that it needs is not there, or one of its name is.
        """
        transit = self._home()
        async with self._lock:
            candidate = await self._unpacked(target)
            stored = False
            try:
                if digest is not None and candidate.digest != digest:
                    raise PackageRefused(f"{target} has changed: its SHA-256 is {candidate.digest}, not {digest}")
                granted = self._lifecycle.permissions(candidate.manifest, grants)
                self._faults.reach("install.staged")
                package, record = self._package(candidate), self._record(candidate, transit)
                record.granted = granted
                record.state, record.since = "installed", package.at
                with anyio.CancelScope(shield=True):
                    await self._commit(self._installation(package, record, context))
                    stored = True
                    self._faults.reach("install.committed")
                    await to_thread.run_sync(transit.arrive, package)
            except BaseException:
                if not stored:  # what was committed is finished when the home is opened again
                    with anyio.CancelScope(shield=True):
                        await to_thread.run_sync(transit.abandon, candidate.operation)
                raise
            self._rows[package.plugin] = package
            self._registry.records[record.slug] = record
            self._faults.reach("install.moved")
            await to_thread.run_sync(transit.list_it, package)
            return record

    async def _unpacked(self, target: str, replacing: str | None = None) -> Candidate:
        transit, operation = self._home(), self._ids.new()
        try:
            return await to_thread.run_sync(self._unpack, transit, target, operation, replacing)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(transit.abandon, operation)
            if isinstance(error, OSError):
                raise InvalidInput(f"cannot unpack {target}: {error.strerror}: {error.filename}") from error
            raise

    def _unpack(self, transit: Transit, target: str, operation: str, replacing: str | None) -> Candidate:
        source = _source(target)
        before = digest_of(source)
        waiting = transit.waiting(operation, source.name.partition(".")[0] or "package")
        unpack(source, waiting)
        if digest_of(source) != before:
            raise PackageRefused(f"{source} changed while it was read")
        manifest = _manifest(waiting, source)
        transit.name(operation, waiting, manifest.slug)
        packages = wanted(manifest)
        folder = f"{manifest.category}/{manifest.slug}" if manifest.category else manifest.slug
        if replacing is not None:
            self._check_replacing(manifest, replacing)
            return Candidate(manifest, str(source), before, folder, operation, packages)
        self._check(manifest)
        if transit.place(folder).exists():
            raise InvalidInput(f"there is something at {transit.place(folder)} already", hint="move it away")
        return Candidate(manifest, str(source), before, folder, operation, packages)

    def _check(self, manifest: PluginManifest) -> None:
        slug = manifest.slug
        if (there := self._at_home(slug)) is not None:
            version = there.manifest.version if there.manifest else "of a broken manifest"
            raise InvalidInput(
                f"{slug} {version} is there already, in {there.folder}",
                hint=f"eventcore plugins uninstall {slug}" if self.installed(slug) else "move its folder away",
            )
        other = self._registry.records.get(slug)
        if other is not None and other.enabled:
            raise InvalidInput(f"the catalogue's {slug} is enabled", hint=f"eventcore plugins disable {slug}")
        self._requirements.check(manifest)

    def _check_replacing(self, manifest: PluginManifest, slug: str) -> None:
        if manifest.slug != slug:
            raise InvalidInput(f"it holds {manifest.slug}, not {slug}")
        self._requirements.check(manifest)

    def _at_home(self, slug: str) -> PluginRecord | None:
        record = self._registry.records.get(slug)
        return record if record is not None and record.origin not in ("catalogue", "missing") else None

    def _package(self, candidate: Candidate) -> Package:
        manifest = candidate.manifest
        return Package(
            self._tenant,
            manifest.slug,
            "installed",
            candidate.operation,
            manifest.version,
            candidate.folder,
            candidate.source,
            candidate.digest,
            self._clock.now(),
        )

    def _record(self, candidate: Candidate, transit: Transit) -> PluginRecord:
        """The plugin as it will be when it is in its place."""
        manifest = candidate.manifest
        place = transit.place(candidate.folder)
        moved = manifest.model_copy(update={"path": str(place / Path(manifest.path).name)})
        return PluginRecord(manifest.slug, str(place), "home", manifest=moved)

    def _installation(self, package: Package, record: PluginRecord, context: CallContext) -> Batch:
        data = {
            "plugin": package.plugin,
            "version": package.version,
            "source": package.source,
            "sha256": package.digest,
            "granted": sorted(map(str, record.granted)),
        }
        batch = self._lifecycle.noted(record, "plugin_installed", context, data)
        batch.packages.append(package)
        return batch

    # -- uninstalling ------------------------------------------------------------------------------------------------

    async def uninstall(
        self, record: PluginRecord, context: CallContext, *, purge: bool = False, force: bool = False
    ) -> dict[str, int]:
        """Stop a plugin that was installed, and remove its code and registration.

        Args:
            purge: remove its data and settings as well, and what the host keeps for it: memories, plans, databases,
                hooks.
            force: also if another plugin needs it.

        Returns:
            With `purge`, how much of each was removed.

        Raises:
            InvalidInput: it was not installed, or another plugin needs it.
        """
        transit = self._home()
        async with self._lock:
            package = self.installed(record.slug)
            if package is None:
                raise InvalidInput(
                    f"{record.slug} was not installed: it lies in {record.folder}",
                    hint=f"eventcore plugins disable {record.slug}, and remove the folder yourself",
                )
            if not force and (others := needed_by(record.slug, self._registry)):
                raise InvalidInput(
                    f"{', '.join(others)} {'needs' if len(others) == 1 else 'need'} {record.slug}",
                    hint="eventcore plugins uninstall with --yes removes it all the same",
                )
            forgotten: dict[str, int] = {}
            with anyio.CancelScope(shield=True):
                forgotten = await self._remove(transit, record, package, context, purge)
            return forgotten  # noqa: RET504 - mypy holds that the scope might swallow an error

    async def _remove(
        self, transit: Transit, record: PluginRecord, package: Package, context: CallContext, purge: bool
    ) -> dict[str, int]:
        operation = self._ids.new()
        async with self._lifecycle.stopped(record):
            await to_thread.run_sync(lambda: transit.leave(operation, package, purge=purge))
            self._faults.reach("uninstall.moved")
            try:
                row, batch = await self._removal(record, package, operation, context, purge)
                await self._commit(batch)
            except BaseException:
                await to_thread.run_sync(lambda: transit.take_back(operation, package, purge=purge))
                raise
            self._faults.reach("uninstall.committed")
            self._rows[record.slug] = row
            self._lifecycle.dropped(record, purge=purge)
        # What a crash keeps from being forgotten here is forgotten when the home is opened again: see `restore`.
        forgotten = await self._forgotten(record.slug, context) if purge else {}
        self._faults.reach("uninstall.forgotten")
        await to_thread.run_sync(lambda: transit.gone(operation, record.slug, purge=purge))
        return forgotten

    async def _forgotten(self, slug: str, context: CallContext) -> dict[str, int]:
        return await self.forget(context, slug) if self.forget is not None else {}

    async def _removal(
        self, record: PluginRecord, package: Package, operation: str, context: CallContext, purge: bool
    ) -> tuple[Package, Batch]:
        now = self._clock.now()
        row = Package(
            self._tenant,
            record.slug,
            "removed",
            operation,
            package.version,
            package.folder,
            package.source,
            package.digest,
            now,
        )
        record.state, record.reason, record.since = "uninstalled", None, now
        record.granted, record.registered = frozenset(), None
        data = {"plugin": record.slug, "version": package.version, "purged": purge}
        batch = self._lifecycle.noted(record, "plugin_uninstalled", context, data)
        batch.packages.append(row)
        if purge:
            batch.add(await self._lifecycle.purge(record))
        return row, batch

    def _home(self) -> Transit:
        if self._transit is None:
            raise InvalidInput(
                "plugins are installed into a home, and this engine has none",
                hint="open one: EventCore('path/to/home')",
            )
        return self._transit


def _source(target: str) -> Path:
    """The folder or archive that a target names.

    Raises:
        InvalidInput: it is an address, and nothing is fetched.
        NotFound: there is no such file.
    """
    if "://" in target:
        raise InvalidInput(
            f"nothing is fetched from {target[:200]}: plugins are installed from folders and archives",
            hint="download it, look at it, and name the file",
        )
    source = Path(target).expanduser().absolute()
    if not source.exists():
        raise NotFound(
            f"there is no file or folder {source}",
            hint="name a folder, a .tar.gz or a .zip; there is no index yet to look a name up in",
        )
    return source


def _manifest(folder: Path, source: Path) -> PluginManifest:
    """The manifest of what was unpacked, and what it promises about the files beside it.

    Raises:
        InvalidManifest: there are errors; named as files of the source, which the operator knows.
    """
    names = [name for name in MANIFEST_NAMES if (folder / name).is_file()]
    if len(names) > 1:
        raise PackageRefused(f"{source} has {len(names)} manifests: {', '.join(names)}", hint="keep one of them")
    try:
        manifest = read_manifest(folder / names[0], category="")
        problems = [problem for problem in check_folder(manifest) if not problem.warning]
    except InvalidManifest as error:
        problems = error.problems
    if problems:
        for problem in problems:
            problem.file = problem.file.replace(str(folder), str(source), 1)
        raise InvalidManifest(problems)
    return manifest
