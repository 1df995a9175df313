"""The program that the crash tests of verbs kill: random things done to runs of random workflows.

`python verbs_driver.py HOME LOG SEED LIFE MOVES` goes on with the runs that are there. With no MOVES it helps all of
them to their end. The log is what the world outside has seen; see `Life.heard`.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import anyio

from eventcore import EventCore
from tests.unit.hand_clock import LIMIT
from tests.unit.run_model import Life


class HomeLife(Life):
    """A life on a home, that tells what it does."""

    def __init__(self, home: Path, log: Path, seed: int, life: int) -> None:
        super().__init__(seed, None, Counter())
        self._home, self._told = home, False
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # The clock is the world's: it is not set back because a process has died.
        self.clock.seconds = (LIMIT + 1) * log.read_text().splitlines().count("pass")
        self.chance, self.interrupted = random.Random(f"{seed}:{life}"), True

    def engine(self) -> EventCore:
        return EventCore(self._home, clock=self.clock)

    def heard(self, what: str, *words: str) -> None:
        os.write(self._log, (" ".join((what, *words)) + "\n").encode())

    async def _open(self) -> None:
        await super()._open()
        self.store = self.core.engine.store
        self.ids = [run.id for run in reversed(await self._all()) if run.slug != "kid"]
        if not self._told:  # a restart within the life is told to nobody
            print("go", flush=True)
            self._told = True


if __name__ == "__main__":
    home, log, seed, life, moves = sys.argv[1:]
    anyio.run(HomeLife(Path(home), Path(log), int(seed), int(life)).live_through, int(moves), moves == "0")
