"""Python packages that plugins need: what they say, and what of it is not here.

Nothing is installed: plugins import what lies beside EventCore. Requirements are read as Python's own tools do.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from eventcore.kernel.errors import PluginFailed
from eventcore.plugins.manifest import PluginManifest
from eventcore.plugins.plain_files import read_plain

FILE = "requirements.txt"
_MOST_BYTES, _MOST_LINES = 64 * 1024, 500
_COMMENT = re.compile(r"(^|\s)#.*$")


def wanted(manifest: PluginManifest) -> list[str]:
    """Requirement lines of the manifest, then those of `requirements.txt` beside it; options of installers left out."""
    return list(dict.fromkeys([*manifest.python_packages, *_listed(manifest.folder / FILE)]))


def absent(lines: list[str]) -> list[str]:
    """Which of the requirements nothing fulfils that can be imported here."""
    return [line for line in lines if not _here(line)]


def hint_at_packages(error: PluginFailed, manifest: PluginManifest) -> None:
    """Say in the error of an import which of the packages that the plugin asks for are not here."""
    if error.kind in ("ModuleNotFoundError", "ImportError") and (lacking := absent(wanted(manifest))):
        words = " ".join(f"'{line}'" for line in lacking)
        error.hint = f"install what it needs beside EventCore: pip install {words}"


def _listed(path: Path) -> list[str]:
    try:
        read = read_plain(path.parent, path.name, _MOST_BYTES)
    except OSError:
        return []
    if len(read) > _MOST_BYTES:
        return []
    lines = read.decode("utf-8", "replace").splitlines()[:_MOST_LINES]
    cleaned = (_COMMENT.sub("", line).strip() for line in lines)
    return [line for line in cleaned if line and not line.startswith("-")]


def _here(line: str) -> bool:
    try:
        asked = Requirement(line)
        if asked.marker is not None and not asked.marker.evaluate():
            return True  # not meant for this machine
        return asked.specifier.contains(metadata.version(asked.name), prereleases=True)
    except (InvalidRequirement, metadata.PackageNotFoundError, ValueError):
        return False
