"""What a figure is: samples of ours and of a peer, taken turn by turn, and the limits they are held to."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Databases, peers' environments and all else that a run leaves: on the checkout's disk, since /tmp is often memory.
SCRATCH = HERE.parents[1] / ".bench"


class NotMeasured(Exception):
    """Why a figure could not be measured."""


@dataclass(frozen=True)
class Limit:
    """What holds a figure; None holds nothing.

    Attributes:
        least, most: bounds of ours.
        least_ratio, most_ratio: bounds of ours divided by the peer's.
    """

    least: float | None = None
    most: float | None = None
    least_ratio: float | None = None
    most_ratio: float | None = None

    def __str__(self) -> str:
        parts = [
            f">= {self.least:g}" if self.least is not None else "",
            f"<= {self.most:g}" if self.most is not None else "",
            f">= {self.least_ratio:g}x" if self.least_ratio is not None else "",
            f"<= {self.most_ratio:g}x" if self.most_ratio is not None else "",
        ]
        return ", ".join(filter(None, parts)) or "-"


@dataclass
class Line:
    """One row of the table.

    Attributes:
        ours, peers: samples in `unit`; the two of one index were taken in the same round.
        peer: what the peer is; empty where there is none.
        problem: why it was not measured; such a line counts as a miss if it has a limit.
    """

    name: str
    unit: str
    ours: list[float] = field(default_factory=list)
    peer: str = ""
    peers: list[float] = field(default_factory=list)
    limit: Limit = Limit()
    problem: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.ours)

    @property
    def peer_value(self) -> float | None:
        return statistics.median(self.peers) if self.peers else None

    @property
    def ratio(self) -> float | None:
        """Median of the rounds' ratios: what slows a whole round down does not count."""
        if not self.peers:
            return None
        return statistics.median(a / b for a, b in zip(self.ours, self.peers, strict=True))

    def verdict(self) -> str:
        """`ok`, `MISS`, or `-` for a line without a limit."""
        if self.limit == Limit():
            return "-"
        if self.problem:
            return "MISS"
        return "ok" if self._within() else "MISS"

    def _within(self) -> bool:
        limit, ratio = self.limit, self.ratio
        return (
            (limit.least is None or self.value >= limit.least)
            and (limit.most is None or self.value <= limit.most)
            and (limit.least_ratio is None or (ratio is not None and ratio >= limit.least_ratio))
            and (limit.most_ratio is None or (ratio is not None and ratio <= limit.most_ratio))
        )


@dataclass
class Result:
    """A line over all its attempts; each value is the median of the attempts' medians."""

    attempts: list[Line]

    @property
    def line(self) -> Line:
        """The summary: one sample an attempt."""
        first, good = self.attempts[0], [line for line in self.attempts if not line.problem]
        if not good:
            return first
        summary = Line(first.name, first.unit, peer=first.peer, limit=first.limit)
        summary.ours = [line.value for line in good]
        summary.peers = [line.value / line.ratio for line in good if line.ratio]
        return summary

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest sample of ours."""
        samples = [sample for line in self.attempts for sample in line.ours]
        return min(samples), max(samples)

    def as_dict(self) -> dict[str, Any]:
        line = self.line
        row: dict[str, Any] = {"figure": line.name, "unit": line.unit, "limit": str(line.limit)}
        row |= {"verdict": line.verdict(), "attempts": len(self.attempts)}
        if line.problem:
            return row | {"not_measured": line.problem}
        row |= {"ours": line.value, "min": self.span[0], "max": self.span[1]}
        return row | {"peer": line.peer, "peer_value": line.peer_value, "ratio": line.ratio} if line.peer else row


class Subject:
    """A process that measures one round for each line it is sent, so that others can take their turns between.

    It prints a JSON object when it is ready and one for each round. A key `error` in one of them is the reason why it
    cannot go on.
    """

    def __init__(self, script: str, *args: str, python: str = sys.executable) -> None:
        command = [python, str(HERE / "subjects" / script), *args]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=SCRATCH
        )
        self._name = script
        self.about = self._answer()

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def round(self, what: str = "go") -> dict[str, Any]:
        """Measure once.

        Raises:
            NotMeasured: the subject failed; with the end of what it said.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            if text.startswith("{"):
                answer: dict[str, Any] = json.loads(text)
                if "error" in answer:
                    raise NotMeasured(f"{self._name}: {answer['error']}")
                return answer
        assert self._process.stderr is not None
        last = self._process.stderr.read().strip().splitlines()[-1:]
        raise NotMeasured(f"{self._name} ended with {self._process.wait()}: {' '.join(last)[:200]}")


def seconds_of(command: Sequence[str]) -> float:
    """How long a command takes from start to end.

    Raises:
        NotMeasured: it failed.
    """
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRATCH, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        raise NotMeasured(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return taken
