"""How the host itself fares: its loop, its memory, its descriptors."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType

_TICK = 0.005
_MIB = 1 << 20
#: What an attack may cost its host.
MOST_STALL, MOST_GROWTH, MOST_DESCRIPTORS = float(os.environ.get("EVENTCORE_ATTACK_STALL") or 0.25), 64.0, 3


class Gauges:
    """Measures while it is entered.

    Attributes:
        late: the longest time that the loop came too late, whatever the reason, in seconds.
        stall: the longest time that it was held up, in seconds: without what this machine's own host took away, which
            no attack can.
        growth: the peak of resident memory above the beginning, in MiB.
        descriptors: open descriptors at the end, more than at the beginning.
    """

    def __init__(self) -> None:
        self.late = 0.0
        self.stall = 0.0
        self.growth = 0.0
        self.descriptors = 0

    async def __aenter__(self) -> Gauges:
        self._open = len(os.listdir("/proc/self/fd"))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._memory = _kilobytes("VmRSS:")
        self._stolen = _stolen()
        self._watch = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.sleep(0)
        self._watch.cancel()
        self.growth = (_kilobytes("VmHWM:") - self._memory) / 1024
        self.descriptors = len(os.listdir("/proc/self/fd")) - self._open

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK
            try:
                await asyncio.sleep(_TICK)
            finally:
                self._came(loop.time() - due)

    def _came(self, late: float) -> None:
        """The loop came so late."""
        self.late = max(self.late, late)
        held = late
        if held > self.stall and held > MOST_STALL:
            stolen = _stolen()
            held, self._stolen = held - (stolen - self._stolen), stolen
        self.stall = max(self.stall, held)

    def harm(self) -> list[str]:
        """What is beyond bounds."""
        found = []
        if self.stall > MOST_STALL:
            found.append(f"the loop was held up for {self.stall:.2f} s")
        if self.growth > MOST_GROWTH:
            found.append(f"the host grew by {self.growth:.0f} MiB")
        if self.descriptors > MOST_DESCRIPTORS:
            found.append(f"{self.descriptors} more descriptors are open")
        return found


def _stolen() -> float:
    """How long this machine's own host has kept its processors from it so far, where it says so. Seconds."""
    try:
        return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def _kilobytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
