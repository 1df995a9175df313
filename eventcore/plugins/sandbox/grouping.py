"""Control groups for workers, where they are proven to hold; elsewhere rlimits and the host stand in."""

from __future__ import annotations

import logging
import sys
from typing import Any

from anyio import to_thread

from eventcore.plugins.sandbox.linux.cgroup import REMEDY, Group, Groups, open_groups
from eventcore.plugins.sandbox.spec import WorkerSpec

_log = logging.getLogger(__name__)


class Grouping:
    """The groups of one sandbox.

    Args:
        wanted: whether to use them where they work.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted, self._tried = wanted, False
        self._groups: Groups | None = None
        self._why = "they are switched off"

    async def row(self) -> dict[str, Any]:
        """What `eventcore sandbox check` shows of them; tried at the first call."""
        if self._wanted and not self._tried and sys.platform == "linux":
            self._tried = True
            try:
                self._groups = await to_thread.run_sync(open_groups)
                self._why = "memory, cpu, pids"
            except OSError as error:
                self._why = error.strerror or str(error)
        stops = "memory, CPU and processes beyond the limits of a worker, whoever takes them"
        row = {"name": "control groups", "needed": "limits", "stops": stops, "remedy": REMEDY, "errno": ""}
        return row | {"works": self._groups is not None, "detail": self._why}

    def join(self, spec: WorkerSpec, pids: tuple[int, ...]) -> Group | None:
        """A group for a worker that has not loaded its plugin yet; None where there are no groups.

        Raises:
            OSError: the kernel refuses it, though it did not before.
        """
        if self._groups is None:
            return None
        group = self._groups.make(spec.slug[:64])
        try:
            allow = spec.allow
            group.limit(memory_mb=allow.memory_mb, cpu_percent=allow.cpu_percent, processes=allow.threads + len(pids))
            for pid in pids:
                group.add(pid)
        except OSError:
            group.kill()
            group.remove()
            raise
        return group

    def close(self) -> None:
        """Remove them."""
        groups, self._groups = self._groups, None
        if groups is not None:
            groups.close()
