"""Which manifests were found good before: `.eventcore/manifests.json`.

A manifest that has not changed since need not be read again to know its plugin's slug, and most plugins of a home are
not used by most commands: their manifests are read when somebody asks for them (`PluginRecord.manifest`).

A file counts as unchanged if its modification and change times, size and inode are the same, and its change lies more
than two seconds before it was looked at: a later change could have the same times. The change time cannot be set by a
program, so a file that was put back with its old modification time is read again. The whole index is void when the code
that checks manifests is another.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

_SETTLED_NS = 2_000_000_000
_MOST_BYTES = 64 * 1024 * 1024

#: Modification and change time in nanoseconds, size, inode.
Mark = tuple[int, int, int, int]


class ManifestIndex:
    """The slugs of manifests that were good, by path.

    Args:
        path: where the index is kept; None: it is not kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._code = _code()
        self._before: Mapping[str, list[Any]] = self._load()
        self._now: dict[str, list[Any]] = {}
        self._changed = False

    def slug(self, file: str) -> str | None:
        """The slug that an unchanged manifest gives; None: read it."""
        if self._path is None or (kept := self._before.get(file)) is None:
            return None
        try:
            status = os.stat(file)
        except OSError:
            return None
        if kept[1:] != list(_mark(status)):
            return None
        self._now[file] = kept
        return str(kept[0])

    def learn(self, file: str, before: os.stat_result, slug: str, now_ns: int) -> None:
        """Note that a manifest is good. `before` is what it was before it was read."""
        if self._path is not None and now_ns - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED_NS:
            self._now[file] = [slug, *_mark(before)]
            self._changed = True

    def save(self) -> None:
        """Keep what was learnt for the next time. Where that cannot be written, everything is read again then."""
        if self._path is None or not (self._changed or len(self._now) != len(self._before)):
            return
        half = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            half.write_bytes(orjson.dumps({"code": self._code, "manifests": self._now}))
            half.replace(self._path)

    def _load(self) -> Mapping[str, list[Any]]:
        """What was kept; nothing where that is damaged or void."""
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                kept = orjson.loads(file.read(_MOST_BYTES))
        except (OSError, ValueError):
            return {}
        if not isinstance(kept, dict) or kept.get("code") != self._code or not isinstance(kept.get("manifests"), dict):
            return {}
        rows: dict[str, Any] = kept["manifests"]
        return rows if all(type(row) is list and len(row) == 5 and type(row[0]) is str for row in rows.values()) else {}


def _mark(status: os.stat_result) -> Mark:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _code() -> str:
    """Changes with the code that checks manifests."""
    folder = Path(__file__).parent
    files = [*(folder / "manifest").glob("*.py"), folder / "permissions.py"]
    return ",".join(f"{path.name}:{path.stat().st_mtime_ns}" for path in sorted(files))
