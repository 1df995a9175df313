"""A worker's processes: itself, what came of it, and what was orphaned beneath its keeper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from eventcore.plugins.sandbox.throttle import used_by

_PROC = Path("/proc")


def parent_of(pid: int) -> int:
    """The parent's pid; 0 where there is none, or nobody any more."""
    try:
        return int((_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def kin_of(worker: int) -> Iterator[int]:
    """The worker, and all that its keeper has beneath it besides: who is orphaned becomes the keeper's child."""
    yield worker
    keeper = parent_of(worker)
    yield from (pid for pid in _below(keeper if keeper > 1 else worker) if pid != worker)


def cpu_of_kin(worker: int) -> float | None:
    """CPU seconds of all that live now; changes when one of them ends, too. None when the worker is gone."""
    if used_by(worker) is None:
        return None
    return sum(used_by(pid) or 0.0 for pid in kin_of(worker))


def _below(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            for word in (thread / "children").read_text().split():
                yield int(word)
                yield from _below(int(word))
