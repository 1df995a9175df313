"""`plugins/manifest.json`: which plugins a home has installed, from where, with which content.

It goes with the home into version control; the plugins themselves need not: `eventcore plugins install` without a
target brings back what it lists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eventcore.kernel import documents
from eventcore.kernel.errors import InvalidManifest
from eventcore.plugins.packages.archive import sync_folder

LISTING = "manifest.json"
_KEYS = ("name", "version", "source", "sha256")


@dataclass(frozen=True, slots=True)
class Listed:
    """One installed plugin.

    Attributes:
        name: its slug.
        source: where it was installed from; relative to the home if it lies in it.
        sha256: of the archive, or of the folder's names and contents.
    """

    name: str
    version: str
    source: str
    sha256: str


def read_listing(folder: Path) -> list[Listed]:
    """What is listed, by name; nothing where there is no list.

    Raises:
        InvalidManifest: the file is none of ours, with what is wrong and where.
    """
    path = folder / LISTING
    try:
        with path.open("rb") as file:
            text = file.read(documents.MAX_BYTES + 1)
    except FileNotFoundError:
        return []
    document = documents.parse(text, str(path), "json", error=InvalidManifest)
    items = document.value.get("plugins") if isinstance(document.value, dict) else None
    if not isinstance(items, list):
        raise InvalidManifest([document.problem(("plugins",), "must be a list of name, version, source and sha256")])
    found: dict[str, Listed] = {}
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in _KEYS):
            raise InvalidManifest([document.problem(("plugins", index), f"must have {', '.join(_KEYS)}, as text")])
        found[item["name"]] = Listed(*(item[key] for key in _KEYS))
    return [found[name] for name in sorted(found)]


def update_listing(folder: Path, *, put: Listed | None = None, drop: str | None = None) -> None:
    """Add or replace one plugin, or take one out. The file is replaced as a whole; a crash leaves the old or the new.

    Raises:
        InvalidManifest: the file that is there is none of ours; it is left alone.
        OSError: it cannot be written.
    """
    listed = {one.name: one for one in read_listing(folder)}
    before = dict(listed)
    if put is not None:
        listed[put.name] = put
    if drop is not None:
        listed.pop(drop, None)
    if listed != before:
        _write(folder, listed.values())


def _write(folder: Path, listed: Iterable[Listed]) -> None:
    body: dict[str, Any] = {"plugins": [asdict(one) for one in sorted(listed, key=lambda one: one.name)]}
    half = folder / f".{LISTING}.{os.getpid()}"
    with half.open("w", encoding="utf-8") as file:
        file.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(folder / LISTING)
    sync_folder(folder)
