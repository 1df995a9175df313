"""Finding plugins, hook files and workflows. Looks at names only: nothing is opened, imported or run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eventcore.kernel.errors import Problem

#: Files that make a folder a plugin's.
MANIFESTS = ("plugin_manifest.json", "plugin.toml", "plugin.yaml")
#: How many folders deep below a root a plugin may lie.
MAX_DEPTH = 6
#: How many folders of one root are looked into.
MAX_FOLDERS = 20_000

_SKIPPED = frozenset({"__pycache__", "tests"})


@dataclass(slots=True)
class PluginFolder:
    """A folder with a manifest, or one that could not be used.

    Attributes:
        folder: the folder's path as text: making a thousand `Path`s takes longer than finding what they name.
        file: its manifest's path; the first by name if there are several, the folder's if there is none.
        category: name of the folder above it, or None directly below (or at) the root.
        root: the root it was found under.
        problem: why it cannot be used, or None.
    """

    folder: str
    file: str
    category: str | None
    root: Path
    problem: Problem | None = None

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def manifest(self) -> Path:
        """Its manifest."""
        return Path(self.file)


def find_plugins(
    roots: Sequence[Path], *, max_depth: int = MAX_DEPTH, max_folders: int = MAX_FOLDERS
) -> list[PluginFolder]:
    """Every plugin below the roots: in the order of the roots, and sorted by path within each.

    A root that holds a manifest itself is a plugin. Folders within a plugin are not searched. Hidden folders,
    `__pycache__` and `tests` are skipped, and so are roots that do not exist. A folder is searched once, however many
    links lead to it. A folder that cannot be read, several manifests in one folder and a root with more than
    `max_folders` folders are entries with a `problem`.

    Args:
        roots: folders to search; the same folder given twice counts once.
        max_depth: folders below a root; deeper ones are not looked into.
        max_folders: the most folders of one root.
    """
    found: list[PluginFolder] = []
    searched: set[str] = set()
    for root in roots:
        search = _Search(Path(root), searched, max_depth, max_folders)
        search.folder(os.fspath(Path(root)), 0)
        found += sorted(search.found, key=lambda plugin: plugin.folder.split("/"))
    return found


class _Search:
    """One root's search. `searched` holds the real paths of all folders seen under any root."""

    def __init__(self, root: Path, searched: set[str], max_depth: int, max_folders: int) -> None:
        self.found: list[PluginFolder] = []
        self._root, self._searched = root, searched
        self._max_depth, self._left = max_depth, max_folders
        # A real path costs a few system calls. Below a root it is known without asking, but for links.
        self._real = os.path.realpath(root)

    def folder(self, path: str, depth: int, real: str | None = None) -> None:
        real = real or self._real
        if real in self._searched or self._left < 0:
            return
        self._searched.add(real)
        self._left -= 1
        if self._left < 0:
            self._add(path, depth, (), f"has more than its share of folders; the search of {self._root} ends here")
            return
        try:
            with os.scandir(path) as entries:
                manifests, folders = _sort_out(entries)
        except FileNotFoundError:
            return
        except OSError as error:
            self._add(path, depth, (), f"cannot be searched: {error.strerror}")
            return
        if manifests:
            several = f"holds {' and '.join(manifests)}; keep one" if len(manifests) > 1 else None
            self._add(path, depth, manifests, several)
        elif depth < self._max_depth:
            for name, is_link in folders:
                below = _join(path, name)
                self.folder(below, depth + 1, os.path.realpath(below) if is_link else f"{real}/{name}")

    def _add(self, path: str, depth: int, manifests: Sequence[str], message: str | None) -> None:
        self.found.append(
            PluginFolder(
                path,
                _join(path, manifests[0]) if manifests else path,
                path.split("/")[-2] if depth > 1 else None,
                self._root,
                Problem(path, None, "", message) if message else None,
            )
        )


def _join(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _sort_out(entries: Iterator[os.DirEntry[str]]) -> tuple[list[str], list[tuple[str, bool]]]:
    """The manifests in a folder, and the folders to search with whether they are links; each sorted."""
    manifests: list[str] = []
    folders: list[tuple[str, bool]] = []
    for entry in entries:
        name = entry.name
        if name in MANIFESTS:
            if entry.is_file():
                manifests.append(name)
        elif name[0] != "." and name not in _SKIPPED and entry.is_dir():
            folders.append((name, entry.is_symlink()))
    return sorted(manifests), sorted(folders)


def find_files(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files with one of these suffixes directly in `root`, sorted by name.

    With `.py` among them, a folder with an `__init__.py` counts as that file: `hooks/greet.py`, or
    `hooks/greet/__init__.py`. Hidden names, `tests`, and names that begin with `__` are skipped; a root that does not
    exist is empty. Two files of one stem (`a.yaml`, `a.yml`) are both listed; which one holds, their reader decides.

    Raises:
        OSError: `root` exists but cannot be read.
    """
    found: list[Path] = []
    try:
        entries = os.scandir(root)
    except FileNotFoundError:
        return found
    with entries:
        for entry in entries:
            if entry.name.startswith((".", "__")) or entry.name in _SKIPPED:
                continue
            if entry.is_file():
                if entry.name.endswith(tuple(suffixes)):
                    found.append(Path(entry.path))
            elif ".py" in suffixes and os.path.isfile(package := f"{entry.path}/__init__.py"):
                found.append(Path(package))
    return sorted(found, key=lambda path: path.parts)
