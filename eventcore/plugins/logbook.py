"""What plugins wrote to the log: the newest lines of each, in memory and, in a home, in a file that survives."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio

_log = logging.getLogger("eventcore.plugins")

#: Lines of one plugin that are kept in memory.
KEPT = 1_000
#: A file that grows beyond this becomes the plugin's second file, in place of the one before. Bytes.
MAX_FILE = 1 << 20
#: Plugins whose lines are kept in memory at once.
MAX_PLUGINS = 1_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        plugin: its slug.
        at: seconds since the epoch.
        level: `debug`, `info`, `warning`, `error` or `critical`.
        logger: the name of the logger in the plugin's code; empty for `ctx.log`.
        message: the text; a traceback is part of it.
        tenant: whose data the call was about.
        call: id of the event that records the call, or of the one that was handled; None outside one.
        run: the run that the call belongs to, or None.
    """

    plugin: str
    at: float
    level: str
    logger: str
    message: str
    tenant: str
    call: str | None = None
    run: str | None = None


class Logbook:
    """The newest lines of each plugin.

    Args:
        folder: where the files are, made when the first line is written; None keeps lines in memory only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lines: dict[str, deque[Line]] = {}
        self._told = anyio.Event()

    def add(self, line: Line) -> None:
        """Keep a line. A disk that refuses it costs the line in the file, and a warning."""
        self._of(line.plugin).append(line)
        self._told.set()
        self._told = anyio.Event()
        if self._folder is not None:
            self._write(self._folder, line)

    def newest(self, plugin: str, limit: int = 100) -> list[Line]:
        """The newest lines of a plugin, oldest first; those of earlier engines of the home among them."""
        if self._folder is None:
            return list(self._lines.get(plugin, ()))[-limit:]
        return [*self._read(self._folder, plugin)][-limit:]

    async def follow(self, plugin: str) -> AsyncIterator[Line]:
        """Each line that is written from now on. Who falls `KEPT` lines behind misses some."""
        seen: Line | None = next(iter(reversed(self._lines.get(plugin, ()))), None)
        while True:
            told = self._told
            for line in self._after(plugin, seen):
                yield line
                seen = line
            await told.wait()

    def _after(self, plugin: str, seen: Line | None) -> list[Line]:
        lines = list(self._lines.get(plugin, ()))
        places = [place for place, line in enumerate(lines) if line is seen]
        return lines[places[-1] + 1 :] if places else lines

    def _of(self, plugin: str) -> deque[Line]:
        if plugin not in self._lines and len(self._lines) >= MAX_PLUGINS:
            del self._lines[next(iter(self._lines))]
        return self._lines.setdefault(plugin, deque(maxlen=KEPT))

    def _write(self, folder: Path, line: Line) -> None:
        path = folder / f"{line.plugin}.ndjson"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(line)) + "\n")
                full = file.tell() > MAX_FILE
            if full:
                path.replace(path.with_suffix(".1.ndjson"))
        except OSError as error:
            _log.warning("a log line of %s was not written to %s: %s", line.plugin, path, error)

    def _read(self, folder: Path, plugin: str) -> Iterator[Line]:
        for path in (folder / f"{plugin}.1.ndjson", folder / f"{plugin}.ndjson"):
            if not path.is_file():
                continue
            for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    yield Line(**json.loads(text))
                except (ValueError, TypeError):
                    continue  # a line that a crash cut short
