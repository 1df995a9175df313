"""Killing a program that embeds EventCore at a named fault point, to see that it recovers.

    ended = run_until_killed([sys.executable, "my_program.py"], "step.after_call", hit=3)
    # ... start the program again without a fault, and look

`FAULT_POINTS` names the points and says what has happened at each. A `FaultPlan` given as `EventCore(faults=plan)`
counts how often each is reached.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from eventcore.kernel.faults import FAULT_POINTS, FaultPlan

__all__ = ["FAULT_POINTS", "FaultPlan", "fault_environment", "run_until_killed"]


def fault_environment(point: str, hit: int = 1) -> dict[str, str]:
    """The environment variable that makes an engine kill its own process.

    Args:
        point: a name in `FAULT_POINTS`.
        hit: at which time the point is reached, counted from 1.

    Raises:
        ValueError: there is no such point, or the hit is below 1.
    """
    if point not in FAULT_POINTS:
        raise ValueError(f"no such fault point: {point!r}; there are {', '.join(FAULT_POINTS)}")
    if hit < 1:
        raise ValueError("hits are counted from 1")
    return {"EVENTCORE_FAULT": f"{point}:{hit}"}


def run_until_killed(
    command: Sequence[str], point: str, hit: int = 1, *, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> None:
    """Run a program that opens an engine until it dies by SIGKILL at a fault point.

    Args:
        command: the program and its arguments.
        env: its environment; default that of this process.
        timeout: seconds it may take.

    Raises:
        ValueError: as for `fault_environment`.
        AssertionError: it ended in another way; most often the point was not reached so often.
        subprocess.TimeoutExpired: it did not end.
    """
    chosen = {**(os.environ if env is None else env), **fault_environment(point, hit)}
    ended = subprocess.run(list(command), env=chosen, timeout=timeout, check=False).returncode  # noqa: S603 - the caller's
    if ended != -signal.SIGKILL:
        raise AssertionError(f"the program ended with {ended}: {point} was not reached {hit} times")
