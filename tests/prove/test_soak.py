"""Long runs: memory stays where it is, the database grows with what is recorded, nothing is lost on the way.

Only `make prove`. EVENTCORE_SOAK=0.1 does a tenth of the events.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

PROVE = os.environ.get("EVENTCORE_PROVE") == "1"
SCALE = float(os.environ.get("EVENTCORE_SOAK", "1"))
pytestmark = [
    pytest.mark.prove,
    pytest.mark.violent,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PROVE, reason="takes minutes: only in `make prove`"),
]

DRIVER = Path(__file__).with_name("soak_driver.py")
TRANSIENT, RECORDED, STUCK = int(1_900_000 * SCALE), int(100_000 * SCALE), int(1_000_000 * SCALE)
MIB = 2**20
#: Bytes that the process may grow by once it is warm. A million events kept would take some 800 MiB.
ROOM = 32 * MIB
#: How far a quarter's growth of the database may be from the mean of all quarters.
EVEN = 0.15


def drive(*words: object) -> list[dict[str, Any]]:
    """What the driver printed."""
    done = subprocess.run([sys.executable, str(DRIVER), *map(str, words)], capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def say(text: str) -> None:
    print(text, file=sys.stderr)


def total(numbers: Sequence[int]) -> tuple[int, int]:
    """How many, and their sum."""
    return len(numbers), sum(numbers)


def test_two_million_events_through_twenty_subscriptions(tmp_path: Path) -> None:
    start, *quarters = drive("soak", tmp_path, TRANSIENT, RECORDED)
    names = quarters[0]["calls"]
    say(f"\nsoak: {TRANSIENT:,} transient and {RECORDED:,} recorded events through {len(names)} subscriptions")
    for line in quarters:
        say(
            f"  quarter {line['quarter']}: {line['seconds']:6.1f} s, memory {line['memory'] / MIB:.1f} MiB, "
            f"database {line['database'] / MIB:.2f} MiB"
        )
    last = quarters[-1]
    say(f"  peak memory {last['peak'] / MIB:.1f} MiB")

    both, even = [0, 0], [0, 0]
    for count in (TRANSIENT, RECORDED):
        for result, numbers in ((both, range(count)), (even, range(0, count, 2))):
            found, summed = total(numbers)
            result[0], result[1] = result[0] + found, result[1] + summed
    assert len(last["calls"]) == 20
    for name, calls in last["calls"].items():
        kind = name.split("-")[0]
        wanted = {"durable": list(total(range(RECORDED))), "filtered": even}.get(kind, both)
        assert [calls, last["sums"][name]] == wanted, name
    assert last["dropped"] == 0
    assert all(line["drained"] for line in quarters)

    assert last["peak"] <= quarters[0]["memory"] + ROOM, "memory grows with the number of events"
    sizes = [start["database"], *(line["database"] for line in quarters)]
    growth = [after - before for before, after in pairwise(sizes)]
    mean = sum(growth) / len(growth)
    assert all(abs(grown - mean) <= EVEN * mean for grown in growth), growth


@pytest.mark.req("A7")
def test_a_million_events_to_a_stuck_subscriber(tmp_path: Path) -> None:
    begun, stuck, done = drive("stuck", tmp_path, STUCK)
    say(f"\nstuck: {STUCK:,} recorded events to three subscriptions that hold their first one")
    for line in (begun, stuck, done):
        now, peak = line["memory"] / MIB, line["peak"] / MIB
        say(f"  {line['when']:>5}: {line['seconds']:6.1f} s, memory {now:.1f}, peak {peak:.1f} MiB")
    assert stuck["handled"] == dict.fromkeys(("dropping", "spilling", "durable"), 0)
    assert done["peak"] <= begun["memory"] + ROOM, "memory grows with the number of events"
    assert done["overflows"] == [["dropping", "drop_oldest"], ["spilling", "spill"]]
    kept = done["handled"].pop("dropping")
    assert kept + done["dropped"]["dropping"] == STUCK
    assert done["dropped"]["dropping"] >= STUCK - 2000
    assert done["handled"] == {"spilling": STUCK, "durable": STUCK}
    assert done["in_order"]
