"""How a plugin's folder comes in and goes out, so that a crash leaves it wholly there or wholly not.

What comes in is unpacked into `.arriving-<operation>/<slug>` beside the plugins (a hidden folder, which discovery
does not see), and moved to its place after its row is stored. What goes out is moved to `.leaving-<operation>/<slug>`
before its row is stored, and deleted afterwards. The store's commit decides: `recover` looks at each folder in
transit and asks whether its operation was committed, then finishes it or takes it back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from eventcore.kernel.records import Package
from eventcore.plugins.packages.archive import sync_folder
from eventcore.plugins.packages.listing import Listed, update_listing
from eventcore.plugins.sandbox import diskwatch

log = logging.getLogger("eventcore.plugins")

_ARRIVING, _LEAVING, _PURGE = ".arriving-", ".leaving-", "-purge"


class Transit:
    """The ways in and out of a home's plugin folder.

    Args:
        plugins: the plugin folder.
        data: where each plugin has a folder of data.
    """

    def __init__(self, plugins: Path, data: Path) -> None:
        self.plugins, self.data = plugins, data

    def place(self, folder: str) -> Path:
        """Where a plugin lies, by its path relative to the plugin folder."""
        return self.plugins / folder

    # -- in ----------------------------------------------------------------------------------------------------------

    def waiting(self, operation: str, slug: str) -> Path:
        """Where a plugin is unpacked. Its parent is made; the folder itself is for whoever unpacks."""
        holder = self.plugins / f"{_ARRIVING}{operation}"
        holder.mkdir(parents=True)
        return holder / slug

    def name(self, operation: str, found: Path, slug: str) -> None:
        """Give what was unpacked its slug, which only its manifest tells."""
        if found.name != slug:
            found.rename(found.with_name(slug))
        sync_folder(self.plugins / f"{_ARRIVING}{operation}")
        sync_folder(self.plugins)

    def arrive(self, package: Package) -> None:
        """Move a committed plugin to its place."""
        holder = self.plugins / f"{_ARRIVING}{package.operation}"
        place = self.place(package.folder)
        if (holder / package.plugin).exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(holder / package.plugin, place)
            sync_folder(place.parent)

    def list_it(self, package: Package) -> None:
        """Put it into `manifest.json`, and end the transit."""
        update_listing(
            self.plugins, put=Listed(package.plugin, package.version, self.named(package.source), package.digest)
        )
        self.abandon(package.operation)

    def named(self, source: str) -> str:
        """A source as the list names it: relative to the home if it lies in it, so that the home can be copied."""
        home = self.data.parent.parent
        path = Path(source)
        return path.relative_to(home).as_posix() if path.is_relative_to(home) else source

    def abandon(self, operation: str) -> None:
        """Remove what is left of a way in."""
        _remove(self.plugins / f"{_ARRIVING}{operation}")

    # -- out ---------------------------------------------------------------------------------------------------------

    def leave(self, operation: str, package: Package, *, purge: bool) -> None:
        """Move a plugin out of its place; one whose files are gone already leaves all the same."""
        holder = self._leaving(operation, purge)
        holder.mkdir(parents=True)
        place = self.place(package.folder)
        if place.exists():
            os.rename(place, holder / package.plugin)
            sync_folder(place.parent)
        sync_folder(self.plugins)

    def take_back(self, operation: str, package: Package, *, purge: bool) -> None:
        """Undo `leave`."""
        holder = self._leaving(operation, purge)
        place = self.place(package.folder)
        if (holder / package.plugin).exists() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(holder / package.plugin, place)
        _remove(holder)

    def gone(self, operation: str, slug: str, *, purge: bool) -> None:
        """Delete a plugin whose removal is committed, and its data if that was asked for."""
        update_listing(self.plugins, drop=slug)
        if purge:
            _remove(self.data / slug)
        _remove(self._leaving(operation, purge))

    def _leaving(self, operation: str, purge: bool) -> Path:
        return self.plugins / f"{_LEAVING}{operation}{_PURGE if purge else ''}"

    # -- after a crash -----------------------------------------------------------------------------------------------

    def purging(self, packages: Iterable[Package]) -> list[str]:
        """The plugins whose removal was committed with all that they kept, and not finished."""
        rows = {row.operation: row for row in packages if row.state == "removed"}
        operations = [
            name.removeprefix(_LEAVING).removesuffix(_PURGE)
            for name in (os.listdir(self.plugins) if self.plugins.is_dir() else ())
            if name.startswith(_LEAVING) and name.endswith(_PURGE)
        ]
        return sorted(rows[operation].plugin for operation in operations if operation in rows)

    def recover(self, packages: Iterable[Package]) -> list[str]:
        """Finish or take back what a crash interrupted. Returns what was done, in words."""
        try:
            names = [name for name in os.listdir(self.plugins) if name.startswith((_ARRIVING, _LEAVING))]
        except OSError:
            return []
        rows = {row.operation: row for row in packages}
        by_slug = {row.plugin: row for row in rows.values()}
        done = []
        for name in sorted(names):
            try:
                done.append(self._recover_one(name, rows, by_slug))
            except OSError as error:
                log.error("%s cannot be cleaned up: %s", self.plugins / name, error)
        return done

    def _recover_one(self, name: str, rows: dict[str, Package], by_slug: dict[str, Package]) -> str:
        if name.startswith(_ARRIVING):
            operation = name.removeprefix(_ARRIVING)
            row = rows.get(operation)
            if row is None or row.state != "installed":
                self.abandon(operation)
                return "an install that was interrupted was taken back"
            self.arrive(row)
            self.list_it(row)
            return f"the install of {row.plugin} was finished"
        operation = name.removeprefix(_LEAVING).removesuffix(_PURGE)
        purge = name.endswith(_PURGE)
        row = rows.get(operation)
        if row is not None and row.state == "removed":
            self.gone(operation, row.plugin, purge=purge)
            return f"the removal of {row.plugin} was finished"
        for slug in os.listdir(self.plugins / name):
            if (still := by_slug.get(slug)) is not None:
                self.take_back(operation, still, purge=purge)
                return f"the removal of {slug} was taken back"
        _remove(self.plugins / name)
        return "a removal that was interrupted was cleaned up"


def _remove(folder: Path) -> None:
    """Delete a folder and all in it; nothing to do where it is gone. Links in it are removed, not followed."""
    diskwatch.remove(str(folder))  # a plugin may have nested folders deeper than a recursion goes
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)  # what is left, it says why
